"""vos-deploy-build: from a model folder to a plan, one TensorRT engine per graph."""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from vos_deploy.arguments import frame_size, positive
from vos_deploy.bundle import Bundle, Engines, MemoryDefaults
from vos_deploy.commands import Parser, progress, run_command, setup_logging
from vos_deploy.errors import InputError
from vos_deploy.frames import MIN_SIDE, Size
from vos_deploy.manifest import PRECISIONS, export_command
from vos_deploy.plan import SUFFIX
from vos_deploy.results import keep_apart

from .backends.cuda import Gpu, describe_gpu, import_cuda
from .backends.tensorrt import fused_read as plugin
from .backends.tensorrt.builder import EngineBuilder, EngineError
from .backends.tensorrt.library import RUNTIMES, import_runtime
from .backends.tensorrt.profiles import Limits, dimension_ranges, parse_range, with_sides

MAX_OBJECTS = 4
MEMORY_FRAMES = 20


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(_main, argv)


def _main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    setup_logging(1 if args.verbose else 0)
    started = perf_counter()
    bundle = Bundle.load(args.model)
    output = args.output or args.model.with_suffix(SUFFIX)
    if output.suffix != SUFFIX or output.is_dir():
        raise InputError(f"--output {output}: expected the name of a file that ends in {SUFFIX}")
    saved = build(
        bundle,
        output,
        size=args.size,
        max_objects=args.max_objects,
        memory_frames=args.memory_frames,
        precision=args.precision,
        runtime=args.runtime,
        timing_cache=args.timing_cache,
        ranges=args.range,
        fused_read=args.fused_read,
        tf32=args.tf32,
    )
    _report(saved, perf_counter() - started, args.json)
    return 0


def build(
    bundle: Bundle,
    output: Path,
    *,
    size: Size | None = None,
    max_objects: int | None = None,
    memory_frames: int | None = None,
    precision: str | None = None,
    runtime: str = "auto",
    timing_cache: Path | None = None,
    ranges: Sequence[str] = (),
    fused_read: bool = False,
    tf32: bool = False,
) -> Bundle:
    """Build every graph of a model folder and write the plan; returns it.

    Args:
        size: (H, W) of the frames the plan is for. Compulsory for a model of any size.
        max_objects, memory_frames: the most that the plan has room for; None for 4 and 20, or what
            the model itself is made for.
        precision: what the model must be of: "fp32", "fp16" or "int8"; None takes what it is.
        runtime: "tensorrt", "tensorrt_rtx" or "auto": the first of them that is installed.
        timing_cache: file of measurements that later builds use again; None for the user's cache
            folder.
        ranges: `NAME=MIN,USUAL,MAX` for dimensions or values of inputs.
        fused_read: one kernel for a read of the memory, which keeps no matrix of scores; for models
            in half precision.
        tf32: let a model of FP32 multiply in TF32: faster, and good to three digits.

    Raises:
        InputError: an argument does not go with the model, or TensorRT is not installed.
        ModelError: TensorRT cannot parse a graph.
        EngineError: TensorRT cannot build a graph.
        VosDeployError: the plan cannot be written.
    """
    keep_apart({"the model": bundle.path, "--timing-cache": timing_cache}, [output])
    if timing_cache is not None:
        keep_apart({"the model": bundle.path}, [timing_cache], option="--timing-cache")
    _check_buildable(bundle, precision)
    limits = Limits(
        _size(bundle, size),
        _objects(bundle, max_objects),
        memory_frames or max(MEMORY_FRAMES, bundle.memory.frames),
        dict(map(parse_range, ranges)),
    )
    module = import_runtime(runtime)
    gpu = _gpu(module)
    cache = None if gpu is None else timing_cache or _default_cache(module, gpu)
    onnx = {name: bundle.read(name) for name in bundle.graphs}
    if bundle.precision == "int8":
        onnx = _symmetric(onnx)
    if fused_read:
        _prepare_fused_read(bundle, onnx, module, gpu)
    builder = EngineBuilder(module, cache, fused_read, tf32)
    graphs = with_sides(bundle.graphs, builder.sides(onnx, bundle.graphs, limits))
    varying = dimension_ranges(limits)
    engines, profiles = {}, {}
    for name in progress(list(graphs), description="build", unit="graph"):
        try:
            engines[name], profiles[name] = builder.build(name, onnx[name], graphs[name], varying)
        except EngineError as error:
            raise _with_hint(error, bundle, limits.size) from error
    built = replace(
        bundle,
        graphs=graphs,
        size=limits.size,
        short_side=None,
        max_objects=limits.max_objects,
        memory=MemoryDefaults(bundle.memory.every, min(bundle.memory.frames, limits.memory_frames)),
        versions={**bundle.versions, module.__name__: module.__version__},
        engine=Engines(
            runtime=module.__name__,
            version=module.__version__,
            gpu=None if gpu is None else gpu.name,
            compute_capability=None if gpu is None else gpu.compute_capability,
            max_objects=limits.max_objects,
            memory_frames=limits.memory_frames,
            profiles=profiles,
            fused_read=fused_read,
            tf32=tf32,
        ),
    )
    return built.save_plan(output, engines)


def _with_hint(error: EngineError, bundle: Bundle, size: Size) -> EngineError:
    """A graph of any size holds more than one of a fixed size does, and more that can go wrong."""
    if bundle.size is not None:
        return error
    option = "--size {}x{}".format(*size)
    command = export_command(bundle.path, bundle.method, option)
    return EngineError(f"{error}; it may build if the model is exported for this size: {command}")


def _check_buildable(bundle: Bundle, precision: str | None) -> None:
    if bundle.engine is not None:
        raise InputError(f"{bundle.path} is already a plan: give the folder it was built from")
    if precision not in (None, bundle.precision):
        # TensorRT takes the types as they are in the ONNX file.
        folder = bundle.path.with_name(f"{bundle.path.name}-{precision}")
        command = export_command(folder, bundle.method, f"--precision {precision}")
        raise InputError(
            f"{bundle.path} is {bundle.precision}, and a plan has the precision of its graphs; "
            f"export it in {precision} with: {command}"
        )


def _symmetric(onnx: Mapping[str, bytes]) -> dict[str, bytes]:
    from .backends.tensorrt.eight_bit import symmetric

    try:
        return {name: symmetric(content) for name, content in onnx.items()}
    except ImportError as error:
        raise InputError(
            f"a plan of an INT8 model needs ONNX ({error}); install it with: pip install onnx"
        ) from error


def _size(bundle: Bundle, asked: Size | None) -> Size:
    if asked is not None and bundle.size not in (None, asked):
        text = "{}x{}".format(*asked)
        command = export_command(bundle.path, bundle.method, f"--size {text}")
        raise InputError(
            f"{bundle.path} is fixed to {'{}x{}'.format(*bundle.size)}, got --size {text}: omit "
            f"it, or export the model with: {command}"
        )
    size = asked or bundle.size
    if size is None:
        raise InputError(
            f"{bundle.path} takes frames of any size, but a plan needs one: give its height and "
            "width, such as --size 480x854"
        )
    return size


def _objects(bundle: Bundle, asked: int | None) -> int:
    most = bundle.max_objects
    if most is not None and asked is not None and asked > most:
        raise InputError(
            f"{bundle.path} takes at most {most} objects, got --max-objects {asked}: ask for "
            "fewer, or export the model for more"
        )
    return asked or min(MAX_OBJECTS, most or MAX_OBJECTS)


def _prepare_fused_read(
    bundle: Bundle, onnx: Mapping[str, bytes], module: Any, gpu: Gpu | None
) -> None:
    if bundle.precision != "fp16":
        raise InputError(
            f"--fused-read needs an fp16 model, got {bundle.precision} in {bundle.path}: in FP32 "
            "the fused kernel is many times slower than the layers it replaces"
        )
    plugin.prepare(module, None if gpu is None else gpu.compute_capability)
    for name, content in onnx.items():
        plugin.check_scale(name, content)
    if not any(map(plugin.reads, onnx.values())):
        raise InputError(
            f"--fused-read is unsupported for {bundle.method}: {bundle.path} has no memory read "
            "that can be fused"
        )


def _gpu(module: Any) -> Gpu | None:
    """The GPU that the engines are tuned on; None for TensorRT for RTX, which finishes them on the
    GPU that runs them and needs none here."""
    return None if module.__name__ == "tensorrt_rtx" else describe_gpu(import_cuda())


def _default_cache(module: Any, gpu: Gpu) -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    capability = gpu.compute_capability.replace(".", "")
    name = f"timing-{module.__name__}-{module.__version__}-sm{capability}.cache"
    return Path(home) / "vos_deploy" / name


def _report(bundle: Bundle, seconds: float, as_json: bool) -> None:
    engine = bundle.engine
    assert engine is not None and bundle.size is not None
    mebibytes = bundle.path.stat().st_size / 2**20
    if as_json:
        facts = {"plan": str(bundle.path), "seconds": seconds, "MiB": mebibytes}
        sizes = {"size": bundle.size, "precision": bundle.precision}
        built = {k: v for k, v in vars(engine).items() if k != "profiles"}
        print(json.dumps({**facts, **sizes, **built}, indent=2))
        return
    height, width = bundle.size
    print(
        f"wrote {bundle.path}: {len(bundle.graphs)} engines, {mebibytes:.1f} MiB, in "
        f"{seconds:.0f} s\n"
        f"{height}x{width}, {bundle.precision}, up to {engine.max_objects} objects and "
        f"{engine.memory_frames} memory frames, {engine.runtime} {engine.version}, "
        f"{engine.gpu or 'for the GPU that runs it'}"
    )


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        "vos-deploy-build",
        "MODEL [options]",
        "Build TensorRT engines from a model folder, one per graph, into one .plan file. A "
        "plan works for one frame size, and only with the TensorRT version it was built with; "
        "TensorRT's own, and not those for RTX, only on the GPU they were built on.",
        "vos-deploy-build stm/ --output stm.plan --size 480x854 --precision fp16",
    )
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="model folder")
    add("--output", type=Path, help="plan to write (default: the name of the folder with .plan)")
    add(
        "--size",
        type=frame_size(MIN_SIDE),
        metavar="HxW",
        help="height and width of the frames (default: the size the model is fixed to)",
    )
    add("--precision", choices=PRECISIONS, help="fail unless the model is of this precision")
    add(
        "--max-objects",
        type=positive,
        metavar="K",
        help=f"most objects at once (default: {MAX_OBJECTS})",
    )
    add(
        "--memory-frames",
        type=positive,
        metavar="N",
        help=f"most memory frames (default: {MEMORY_FRAMES}, or the model's own if that is more)",
    )
    add(
        "--runtime",
        choices=("auto", *RUNTIMES),
        default="auto",
        help="which TensorRT to build with",
    )
    add(
        "--timing-cache",
        type=Path,
        metavar="FILE",
        help="kernel timings that make the next build faster (default: a file in the user's "
        "cache folder)",
    )
    add(
        "--range",
        action="append",
        default=[],
        metavar="NAME=MIN,USUAL,MAX",
        help="limits of a dimension or of the value of an input, such as top_k=1,20,100",
    )
    add(
        "--fused-read",
        action="store_true",
        help="read the memory with one fused kernel that stores no score matrix (a plugin; fp16 "
        "models only, not with TensorRT for RTX)",
    )
    add("--tf32", action="store_true", help="allow TF32 in fp32 models: faster, less exact")
    add("--verbose", action="store_true", help="print TensorRT's log")
    add("--json", action="store_true", help="print the result as JSON")
    return parser
