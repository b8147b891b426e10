"""What is measured of a model on an engine. Each function gives rows, as they come."""

from __future__ import annotations

import collections
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError
from vos_deploy.files import replacing
from vos_deploy.frames import Size
from vos_deploy.runtime.backends import Backend, BackendMaker
from vos_deploy.runtime.build import build
from vos_deploy.runtime.memory.bank import MemoryPolicy
from vos_deploy.runtime.run.times import StageTimes
from vos_deploy.runtime.segmenter import Segmenter

from ..measures import region_similarity
from ..memory import FLAT, resident
from ..scene import scene
from .engines import TF32, maker, profiled, torch_backend, weights_ship

Row = dict[str, Any]
Labels = NDArray[np.uint8]
STEP = "step"
# Smallest IoU with FP32 PyTorch of any object in any frame, by precision.
LEAST_IOU = {"fp32": 0.999, "fp16": 0.995, "int8": 0.95}
OBJECTS = 2  # where engines are compared
# A bank with no limit of its own is measured with so many frames.
MOST_FRAMES = 24
# On a slow machine fewer steps are timed, three at least; labels are compared and memory is watched
# for a minute.
MOST_SECONDS = 10.0
WATCHED_SECONDS = 60.0


def _working(model: Path, size: Size) -> Size:
    """What frames are measured at: the size that a model is fixed to, or the one given."""
    return Bundle.load(model).size or size


def clip(size: Size, objects: int, frames: int) -> Iterator[tuple[Labels, Labels | None]]:
    """Frames, and the mask of the first."""
    for index, (frame, mask) in enumerate(islice(scene(size, objects), frames)):
        yield frame, None if index else mask


def sample(size: Size, frames: int) -> Iterator[tuple[Labels, Labels | None]]:
    """The clip that ships, forwards and backwards: objects that a trained model does not lose, as
    the smallest IoU of what is nearly gone says nothing."""
    from vos_deploy.export.clip import sample_clip

    shown = sample_clip(size)
    turning = cycle([*shown.frames, *shown.frames[-2:0:-1]])
    for index, frame in enumerate(islice(turning, frames)):
        yield frame, None if index else shown.mask


def follow(
    model: Path,
    engine: BackendMaker,
    size: Size,
    video: Iterable[tuple[Labels, Labels | None]],
    seconds: float = float("inf"),
) -> tuple[NDArray[np.uint8], list[NDArray[np.float32]]]:
    """Labels [frames, H, W] and the probabilities of every frame but the first; of fewer, two at
    least, where they take longer than `seconds`."""
    labels, probabilities = [], []
    end = perf_counter() + seconds
    with Segmenter(model, device=engine, size=size) as segmenter:
        for frame, mask in video:
            labels.append(segmenter.step(frame, mask))
            probabilities.append(segmenter.probabilities)
            if perf_counter() > end and len(labels) > 1:
                break
    return np.stack(labels), probabilities[1:]


def smallest_iou(found: Labels, reference: Labels) -> float:
    """Of all objects in all frames but the first, whose labels are given; [frames, H, W]."""
    return min(
        region_similarity(ours == object_id, theirs == object_id)
        for ours, theirs in zip(found[1:], reference[1:], strict=True)
        for object_id in np.unique(reference[0][reference[0] > 0])
    )


def write_reference(model: Path, size: Size, frames: int, path: Path) -> None:
    """Keep the labels of a model, with what they depend on: by PyTorch if its weights ship,
    otherwise by ONNX Runtime.

    On the CPU, which everybody has and which adds in the same order in every run.
    """
    bundle = Bundle.load(model)

    def in_pytorch(bundle: Bundle, threads: int | None) -> Backend:
        return torch_backend(bundle, place="cpu")

    size = bundle.size or size
    engine = in_pytorch if weights_ship(bundle) else maker("cpu")
    labels, _ = follow(model, engine, size, sample(size, frames))
    facts = {"checkpoint": bundle.checkpoint.get("sha256")}
    with replacing(path) as temporary:
        np.savez_compressed(temporary, labels=labels, facts=json.dumps(facts))


def recorded_checkpoint(reference: Path) -> str | None:
    """The sha256 of the checkpoint whose labels were recorded."""
    with np.load(reference) as kept:
        found: str | None = json.loads(str(kept["facts"]))["checkpoint"]
    return found


def parity(model: Path, engine: str, reference: Path, size: Size) -> Iterator[Row]:
    """Labels beside those that were recorded."""
    bundle = Bundle.load(model)
    with np.load(reference) as kept:
        wanted, facts = kept["labels"], json.loads(str(kept["facts"]))
    if facts["checkpoint"] != bundle.checkpoint.get("sha256"):
        raise InputError(f"{reference} was recorded with other weights than those of {model}")
    if wanted.shape[1:] != (bundle.size or size):
        raise InputError(f"{reference} is of frames of {wanted.shape[1:]}, and not of this size")
    size, video = wanted.shape[1:], sample(wanted.shape[1:], len(wanted))
    found, _ = follow(model, maker(engine), size, video, WATCHED_SECONDS)
    wanted = wanted[: len(found)]
    iou = smallest_iou(found, wanted)
    least = LEAST_IOU[bundle.precision]
    yield {
        "frames": len(found),
        "smallest IoU": round(iou, 5),
        "pixels that differ": float((found != wanted).mean()),
        "passed": bool(iou >= least or engine == TF32),
    }


def build_plan(model: Path, engine: str, size: Size, path: Path, objects: int) -> Iterator[Row]:
    """Engines of a model, for the size and the most objects that are measured.

    engine: the package of TensorRT, with "-fused" for the fused read.
    """
    started = perf_counter()
    build(
        Bundle.load(model),
        path,
        size=_working(model, size),
        max_objects=objects,
        runtime=engine.removesuffix("-fused"),
        fused_read=engine.endswith("-fused"),
    )
    yield {"MiB": round(path.stat().st_size / 2**20, 1), "s": round(perf_counter() - started, 1)}


def speed(
    model: Path, engine: str, size: Size, objects: Sequence[int], frames: int
) -> Iterator[Row]:
    """Milliseconds per stage with a full memory, for several numbers of objects in turn."""
    started = perf_counter()
    size, kept = _working(model, size), list[Backend]()
    device = _keeping(engine, kept)
    with Segmenter(model, device=device, size=size, memory_every=1) as segmenter:
        loaded = perf_counter() - started
        for number in objects:
            segmenter.reset()
            times, first = _times(segmenter, size, number, frames)
            summary = times.summary()
            yield {
                "objects": number,
                "frames": summary[STEP]["frames"],
                "FPS": round(1000 / summary[STEP]["p50"], 1),
                "p50 ms": round(summary[STEP]["p50"], 2),
                **{f"{n} ms": round(summary[STEP][n], 2) for n in ("p90", "mean")},
                "load s": round(loaded, 1),
                "first two s": round(first, 2),
                "GPU MiB": _used(kept[0]),
                "memory": str(segmenter.memory),
                "stages": {n: round(v["mean"], 2) for n, v in summary.items() if n != STEP},
            }


def _times(segmenter: Segmenter, size: Size, objects: int, frames: int) -> tuple[StageTimes, float]:
    """Times of up to `frames` steps with a full memory, and the seconds of the first two steps."""
    usual = segmenter.bundle.memory
    untimed = min((usual.frames or MOST_FRAMES) + 2, MOST_FRAMES)
    times, first, timed = StageTimes(), 0.0, 0.0
    for index, (frame, mask) in enumerate(clip(size, objects, untimed + frames)):
        if index == untimed:  # filled by every frame, and measured as it is used
            assert segmenter._tracker is not None
            segmenter._tracker.policy = MemoryPolicy(usual.every, usual.frames)
        started = perf_counter()
        segmenter.step(frame, mask)
        seconds = perf_counter() - started
        if index >= untimed:
            times.add({**segmenter.timings, STEP: seconds})
            timed += seconds
        first += seconds * (index < 2)
        if timed > MOST_SECONDS and index >= untimed + 2:
            break
    return times, first


def flat(model: Path, engine: str, size: Size, frames: int) -> Iterator[Row]:
    """Whether memory grows over a long video, after its first quarter."""
    size, kept, samples = _working(model, size), list[Backend](), []
    end_time = perf_counter() + WATCHED_SECONDS
    with Segmenter(model, device=_keeping(engine, kept), size=size) as segmenter:
        for index, (frame, mask) in enumerate(clip(size, 1, frames)):
            segmenter.step(frame, mask)
            if (index + 1) % max(1, frames // 40) == 0:
                samples.append((resident() / 2**20, _used(kept[0])))
                if perf_counter() > end_time:
                    break
    settled, end = samples[max(1, len(samples) // 4) - 1], samples[-1]
    grown = [last / first - 1 if first else 0.0 for first, last in zip(settled, end, strict=True)]
    yield {
        "frames": index + 1,
        "host MiB": round(end[0]),
        "GPU MiB": end[1],
        "host growth": round(grown[0], 4),
        "GPU growth": round(grown[1], 4),
        "passed": max(grown) <= FLAT,
    }


def agreement(model: Path, engine: str, other: str, size: Size) -> Iterator[Row]:
    """Probabilities of two engines on the same model, frames 1 to 3. Nothing is promised: random
    weights may make much of little."""
    size = _working(model, size)
    ours, theirs = (
        follow(model, maker(name), size, clip(size, OBJECTS, 4))[1] for name in (engine, other)
    )
    differences = [np.abs(a - b) for a, b in zip(ours, theirs, strict=True)]
    yield {
        "beside": other,
        "largest difference": float(np.max([d.max() for d in differences])),
        "mean difference": float(np.mean([d.mean() for d in differences])),
    }


def placement(model: Path, engine: str, size: Size) -> Iterator[Row]:
    """Per graph: operators that ONNX Runtime ran on the CPU, and copies between CPU and GPU."""
    size, kept = _working(model, size), list[Any]()
    with tempfile.TemporaryDirectory() as folder:

        def make(bundle: Bundle, threads: int | None) -> Backend:
            kept.append(profiled(bundle, threads, Path(folder) / "profile"))
            return kept[-1]  # type: ignore[no-any-return]

        with Segmenter(model, device=make, size=size) as segmenter:
            for frame, mask in clip(size, OBJECTS, 4):
                segmenter.step(frame, mask)
            files = kept[0].end_profiling()
        for name, file in files.items():
            yield {"graph": name, **_placed(json.loads(Path(file).read_text()))}


def _placed(events: Sequence[Mapping[str, Any]]) -> Row:
    runs: collections.Counter[tuple[str, str]] = collections.Counter()
    for event in events:
        facts = event.get("args") or {}
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            runs[facts.get("provider", ""), facts.get("op_name", "")] += 1
    on_cpu = sorted({op for provider, op in runs if provider == "CPUExecutionProvider"})
    copies = sum(n for (_, op), n in runs.items() if op.startswith("Memcpy"))
    return {"operators run": sum(runs.values()), "on the CPU": ", ".join(on_cpu), "copies": copies}


def _keeping(engine: str, kept: list[Backend]) -> BackendMaker:
    def make(bundle: Bundle, threads: int | None) -> Backend:
        kept.append(maker(engine)(bundle, threads))
        return kept[-1]

    return make


def _used(backend: Backend) -> float:
    """MiB of the GPU in use; 0 where that is not known."""
    gpu = getattr(backend, "gpu", None)
    return 0.0 if gpu is None else float(round(gpu.used() / 2**20, 1))
