"""Live: latency, drops and memory over a long run that is faster than the machine."""

import argparse
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vos_deploy.arguments import positive, positive_number
from vos_deploy.bundle import demonstration_model
from vos_deploy.captures import Picture
from vos_deploy.commands import progress
from vos_deploy.frame_source import FrameSource
from vos_deploy.frames import Size
from vos_deploy.runtime.arguments import add_segmenter_arguments, segmenter_options
from vos_deploy.runtime.run.follow import Follower
from vos_deploy.runtime.run.given_masks import GivenMask
from vos_deploy.runtime.run.live import LiveSummary
from vos_deploy.runtime.segmenter import Segmenter

from . import conditions, report
from .memory import FLAT, grown, resident, whole_size
from .options import add_model_argument, add_report_arguments
from .scene import scene

EXAMPLE = "python -m vos_deploy.benchmarks live --frames 10000 --factor 2 --size 120x216"
FILES = ("live.csv", "live.json")
DEFAULT_SIZE = (120, 216)
# Steps by which the rate of the machine is measured first.
CALIBRATION = 100
# What the p99 latency may be, in frame times of the machine.
BOUND = 3.0
SAMPLES = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_model_argument(parser)
    add("--frames", type=positive, default=10_000, metavar="N", help="frames that are captured")
    add(
        "--factor",
        type=positive_number,
        default=2.0,
        metavar="X",
        help="captured frames per frame that the machine manages",
    )
    add("--objects", type=positive, default=1, metavar="K", help="number of objects")
    add_segmenter_arguments(parser)
    add_report_arguments(parser, " and ".join(FILES))


def run(args: argparse.Namespace) -> int:
    model = args.model or demonstration_model()
    report.keep_inputs(args.output, FILES, {"--model": model})
    options = segmenter_options(args)
    options["size"] = whole_size(options["size"] or DEFAULT_SIZE)
    with Segmenter(model, **options) as segmenter:
        managed = rate(segmenter, options["size"], args.objects)
        source = Scene(options["size"], args.objects, args.frames)
        source.play(args.factor * managed)
        rows, live = follow(segmenter, source)
        bundle = segmenter.bundle
    growth = grown(rows)
    frame_times = live.latency["p99"] * managed / 1000
    right = live.captured == args.frames == live.followed + live.dropped
    verdict = {
        "p99 latency in frame times": round(frame_times, 2),
        "all frames accounted for": right,
        "growth after the first quarter": f"{growth:+.2%}",
    }
    facts = {
        "rate managed": f"{managed:.1f} FPS",
        "rate captured": f"{args.factor * managed:.1f} FPS",
        "captured": live.captured,
        "followed": live.followed,
        "dropped": live.dropped,
        "latency ms": {name: round(value, 2) for name, value in live.latency.items()},
        "oldest ms": round(live.oldest, 2),
        **verdict,
        "objects": args.objects,
        **conditions.model(bundle, options),
        **conditions.machine(),
    }
    report.publish(args, FILES, rows, {"conditions": facts, "rows": rows}, report.plain)
    return 0 if right and frame_times <= BOUND and growth <= FLAT else 1


def rate(segmenter: Segmenter, size: Size, objects: int) -> float:
    """Frames per second of steps one after the other, with a full memory."""
    clip = scene(size, objects)
    segmenter.step(*next(clip))
    for frame, _ in itertools.islice(clip, CALIBRATION):
        segmenter.step(frame)
    frames = [frame for frame, _ in itertools.islice(clip, CALIBRATION)]
    started = time.perf_counter()
    for frame in frames:
        segmenter.step(frame)
    managed = len(frames) / (time.perf_counter() - started)
    segmenter.reset()
    return managed


class Scene(FrameSource):
    """The scene as a source of frames."""

    def __init__(self, size: Size, objects: int, frames: int) -> None:
        super().__init__(size, 25.0, frames)
        self._objects = objects
        self.mask = next(scene(size, objects))[1]

    def _decode(self) -> Iterator[Picture]:
        for frame, _ in itertools.islice(scene(self.size, self._objects), self.count):
            yield Picture(frame, None, time.perf_counter())


class FirstMask:
    """The mask of the first frame."""

    def __init__(self, labels: NDArray[np.uint8]) -> None:
        self.given, self.kinds = 0, dict[str, int]()
        self._labels = labels

    def of(self, index: int) -> GivenMask | None:
        if index:
            return None
        ids = [int(object_id) for object_id in np.unique(self._labels) if object_id]
        return GivenMask(Path("scene"), self._labels, ids, "object ids")


def follow(segmenter: Segmenter, source: Scene) -> tuple[list[dict[str, Any]], LiveSummary]:
    """Frames followed, dropped and resident MiB, sampled over the run, and its summary."""
    rows: list[dict[str, Any]] = []
    every = max(1, (source.count or 1) // SAMPLES)
    with source:
        follower = Follower(segmenter, source, FirstMask(source.mask))
        for followed in progress(follower):
            if followed.index >= every * len(rows):
                rows.append(
                    {
                        "captured": followed.index + 1,
                        "followed": follower.frames + 1,
                        "dropped": source.dropped,
                        "resident MiB": round(resident() / 2**20, 1),
                    }
                )
    live = follower.live
    assert live is not None
    return rows, live
