"""Read: RMNet's memory read over all tokens beside that inside the regions."""

import argparse
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from vos_deploy.bundle import Bundle, Graph
from vos_deploy.errors import InputError
from vos_deploy.frames import Size
from vos_deploy.runtime import backends
from vos_deploy.runtime.backends import DEVICES, Backend
from vos_deploy.runtime.trackers.rmnet.tokens import (
    MARGIN,
    STRIDE,
    leading_padding,
    places,
    tokens_inside,
)

from . import conditions, report
from .options import add_report_arguments, frame_size, positive

EXAMPLE = "python -m vos_deploy.benchmarks read --size 480x854 --memory 10 --object 120x150"
TIMED = "one read of one object; for the sparse read, making and uploading the lists too"
GRAPHS = ("memory_read", "memory_read_regional")
# Of the official network.
KEY_DIM, VALUE_DIM = 128, 512
WARM_UP = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--model",
        type=Path,
        metavar="FOLDER",
        help="an exported RMNet (default: its two read graphs with the official widths, exported "
        "on the spot, which needs PyTorch)",
    )
    add("--size", type=frame_size, default=(480, 854), metavar="HxW", help="size of the frames")
    add("--memory", type=positive, default=10, metavar="T", help="number of memory frames")
    add(
        "--object",
        type=frame_size,
        default=(120, 150),
        metavar="HxW",
        help="height and width of the object, in the middle of all frames",
    )
    add("--repeats", type=positive, default=20, metavar="N", help="reads to time")
    add("--device", choices=DEVICES, default="auto", help="where the graphs run")
    add("--threads", type=positive, metavar="N", help="CPU threads")
    add_report_arguments(parser, "read.csv and read.json")


def run(args: argparse.Namespace) -> int:
    with ExitStack() as stack:
        if args.model:
            bundle = Bundle.load(args.model)
            if not set(GRAPHS) <= bundle.graphs.keys():
                raise InputError(f"expected a model of rmnet, found one of {bundle.method}")
            bundle = replace(bundle, graphs={name: bundle.graphs[name] for name in GRAPHS})
        else:
            bundle = official_reads(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        backend = stack.enter_context(backends.create(bundle, args.device, args.threads))
        rows, facts = measure(backend, args.size, args.memory, args.object, args.repeats)
        facts |= {
            "precision": bundle.precision,
            "size": "x".join(map(str, args.size)),
            "object": "x".join(map(str, args.object)),
            "memory frames": args.memory,
            "timed": TIMED,
            "repeats": args.repeats,
            "device": backend.device,
            "threads": args.threads or "one per physical core",
            **conditions.machine("torch"),
        }
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        report.write_csv(args.output / "read.csv", rows)
        report.write_json(args.output / "read.json", {"conditions": facts, "rows": rows})
    if args.json:
        print(report.to_json({"conditions": facts, "rows": rows}))
    else:
        print(report.table([{name: str(value) for name, value in row.items()} for row in rows]))
        print(report.listing(facts))
    return 0


def official_reads(folder: Path) -> Bundle:
    """A model of the two read graphs alone, which hold no weights."""
    try:
        from vos_deploy.export.methods.rmnet.read import read_graphs
        from vos_deploy.export.to_onnx import tensor_specs, to_onnx
    except ImportError as error:
        raise InputError(
            f"the read graphs are exported by PyTorch, which is not here ({error}): install it "
            'with pip install "vos_deploy[export]", or give an exported model with --model'
        ) from error
    models = {
        name: to_onnx(spec, fixed_size=False)
        for name, spec in read_graphs(KEY_DIM, VALUE_DIM, (6, 10)).items()
    }
    graphs = {name: Graph(*tensor_specs(model)) for name, model in models.items()}
    contents = {name: model.SerializeToString() for name, model in models.items()}
    return Bundle("rmnet", "fp32", graphs).save(folder / "rmnet", contents)


def measure(
    backend: Backend, size: Size, memory: int, item: Size, repeats: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Times both reads in turn on the same random tokens, those outside the boxes being zeros.

    Returns a row of milliseconds per read, and what was read: token counts, the speed-up of the
    medians and the largest difference between the two results.
    """
    grid = -(-size[0] // STRIDE), -(-size[1] // STRIDE)
    hw, before = grid[0] * grid[1], leading_padding(size)
    specs = {spec.name: spec for spec in backend.bundle.graphs["memory_read"].inputs}
    dtype = specs["query_key"].dtype
    key_dim, value_dim = (int(specs[n].shape[1]) for n in ("memory_key", "memory_value"))
    box = _box(size, item)
    # The memory's box is in the padded frame, the query's in the frame itself.
    shifted = box + np.array([before[1], before[1], before[0], before[0]])
    held = tokens_inside(shifted, grid)
    rng = np.random.default_rng(0)

    def device(array: Any) -> Any:
        target = backend.empty(array.shape, array.dtype)
        backend.upload(array, target)
        return target

    def tokens(width: int) -> Any:
        array = np.zeros((memory, hw, width), dtype)
        array[:, held] = rng.normal(size=(memory, len(held), width))
        return device(array.reshape(memory * hw, width))

    query_key = device(rng.normal(size=(hw, key_dim)).astype(dtype))
    memory_arrays = {"memory_key": tokens(key_dim), "memory_value": tokens(value_dim)}
    asked = tokens_inside(box, grid, before)
    region = np.zeros(hw, np.float32)
    region[asked] = 1
    query_region = device(region)
    readouts = {name: backend.empty((hw, value_dim), dtype) for name in GRAPHS}

    def dense() -> None:
        inputs = {"query_key": query_key, "query_region": query_region, **memory_arrays}
        backend.run("memory_read", inputs, {"readout": readouts["memory_read"]})

    def sparse() -> None:
        query = tokens_inside(box, grid, before)
        inside = tokens_inside(shifted, grid)
        listed = np.concatenate([t * hw + inside for t in range(memory)], dtype=np.int32)
        inputs = {
            "query_key": query_key,
            "query_tokens": device(query),
            "places": device(places(query, hw)),
            **memory_arrays,
            "memory_tokens": device(listed),
            "outside": device(np.array([memory * hw - len(listed)], np.float32)),
        }
        outputs = {"readout": readouts["memory_read_regional"]}
        backend.run("memory_read_regional", inputs, outputs)

    reads: dict[str, Callable[[], None]] = {"dense": dense, "sparse": sparse}
    times: dict[str, list[float]] = {name: [] for name in reads}
    for index in range(WARM_UP + repeats):
        for (name, read), graph in zip(reads.items(), GRAPHS, strict=True):
            started = perf_counter()
            read()
            backend.download(readouts[graph][0])  # until the device has done it
            if index >= WARM_UP:
                times[name].append(1000 * (perf_counter() - started))
    medians = {name: float(np.median(values)) for name, values in times.items()}
    results = [backend.download(array).astype(np.float64) for array in readouts.values()]
    rows = [
        {
            "Read": name,
            "median ms": round(medians[name], 2),
            "fastest ms": round(min(values), 2),
            "slowest ms": round(max(values), 2),
        }
        for name, values in times.items()
    ]
    return rows, {
        "speed-up": round(medians["dense"] / medians["sparse"], 1),
        "largest difference": float(np.abs(results[0] - results[1]).max()),
        "query tokens": f"{len(asked)} of {hw}",
        "memory tokens": f"{memory * len(held)} of {memory * hw}",
    }


def _box(size: Size, item: Size) -> Any:
    """(x_min, x_max, y_min, y_max) of an object in the middle of a frame, grown and cut to it."""
    sides = []
    for whole, part in ((size[1], item[1]), (size[0], item[0])):
        low = (whole - part) // 2
        sides += [max(0, low - MARGIN), min(whole - 1, low + part - 1 + MARGIN)]
    return np.array(sides, np.int32)
