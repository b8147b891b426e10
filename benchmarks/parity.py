"""Parity: an exported model and the same weights in PyTorch, compared frame by frame on a clip."""

import argparse
import itertools
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vos_deploy.arguments import positive
from vos_deploy.bundle import Bundle
from vos_deploy.commands import progress
from vos_deploy.errors import InputError
from vos_deploy.frames import resize_frame, resize_ids, working_size
from vos_deploy.masks import check_mask, object_ids, read_mask
from vos_deploy.runtime import trackers
from vos_deploy.runtime.arguments import add_segmenter_arguments, segmenter_options
from vos_deploy.runtime.memory.eviction import OLDEST
from vos_deploy.runtime.options import GENERAL, configure
from vos_deploy.runtime.segmenter import Segmenter
from vos_deploy.runtime.settings import UNLIMITED
from vos_deploy.video import open_source

from . import conditions, report
from .fps import Steps, import_pytorch
from .options import add_report_arguments

log = logging.getLogger(__name__)

EXAMPLE = (
    "python -m vos_deploy.benchmarks parity --model stm/ --checkpoint stm.pth "
    "--video frames/ --mask first.png"
)
# What a model in half precision keeps, closed loop, on weights that are trained.
SMALLEST_IOU = 0.995

Image = NDArray[np.uint8]


class Reference(Steps, Protocol):
    """A network in PyTorch; `probabilities` are float32 [1 + K, H, W]."""

    probabilities: Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", type=Path, required=True, metavar="FOLDER", help="the exported model")
    add("--checkpoint", type=Path, required=True, metavar="FILE", help="what it was exported from")
    add("--video", required=True, help="video file or folder of images")
    add("--mask", type=Path, required=True, help="PNG of the first frame, object ids")
    add("--frames", type=positive, default=20, metavar="N", help="stop after N frames")
    add(
        "--smallest-iou",
        type=float,
        default=SMALLEST_IOU,
        metavar="X",
        help="fail where an object of any frame agrees less than this",
    )
    add_segmenter_arguments(parser)
    add_report_arguments(parser, "parity.csv and parity.json")


def run(args: argparse.Namespace) -> int:
    reads = {f"--{name}": getattr(args, name) for name in ("model", "checkpoint", "video", "mask")}
    report.keep_inputs(args.output, ("parity.csv", "parity.json"), reads)
    bundle = Bundle.load(args.model)
    options = segmenter_options(args)
    if options["memory_policy"] not in (None, OLDEST) or options["memory_mib"]:
        raise InputError(
            "the published loops drop the oldest memory frames: leave out --memory-policy and "
            "--memory-mib"
        )
    pytorch = import_pytorch()
    network = pytorch.load_network(bundle, args.checkpoint)
    with (
        Segmenter(args.model, **options) as segmenter,
        open_source(args.video, exclude=[args.mask]) as source,
    ):
        frames, mask = _clip(itertools.islice(source, args.frames), args.mask, options, bundle)
        tracker = trackers.find(bundle)
        own = {k: v for k, v in options.items() if k not in GENERAL}
        chosen, every = configure(tracker, own, options.get("setting"))
        frames_kept = options["memory_frames"] or bundle.memory.frames
        kept = {
            "memory_every": options["memory_every"] or every or bundle.memory.every,
            "memory_frames": None if frames_kept == UNLIMITED else frames_kept,
        }
        rows = compare(segmenter, pytorch.reference(network, **kept, **vars(chosen)), frames, mask)
        facts = {
            **conditions.model(bundle, options),
            "memory": conditions.memory(bundle, options),
            **conditions.machine("torch"),
        }
    smallest = min(row["smallest IoU"] for row in rows)
    passed = bool(smallest >= args.smallest_iou)
    data = {"benchmark": "parity", "conditions": facts, "frames": rows, "passed": passed}
    report.publish(args, ("parity.csv", "parity.json"), rows, data, _shown)
    if not args.json:
        verdict = "ok" if passed else "OUT OF TOLERANCE"
        print(f"smallest IoU {smallest:.4f}, asked for {args.smallest_iou:g}: {verdict}")
    return 0 if passed else 1


def compare(
    exported: Segmenter, official: Reference, frames: Iterable[Image], mask: Image
) -> list[dict[str, float]]:
    """One row per frame after the first: how far the two are apart.

    Both run in closed loop, each on its own past, so that errors may add up as they would in use.
    """
    rows = []
    ids = object_ids(mask)
    for index, frame in enumerate(progress(frames, unit="frame")):
        given = None if index else mask
        ours, theirs = exported.step(frame, given), official.step(frame, given)
        if index:
            apart = np.abs(exported.probabilities - np.asarray(official.probabilities))[1:]
            rows.append(
                {
                    "frame": index,
                    "smallest IoU": min(iou(ours == i, theirs == i) for i in ids),
                    "pixels differing": float((ours != theirs).mean()),
                    "probability max": float(apart.max()),
                    "probability mean": float(apart.mean()),
                }
            )
    if not rows:
        raise InputError("expected at least two frames to compare, found fewer")
    return rows


def iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks; 1 where both are empty."""
    union = np.count_nonzero(one | other)
    return float(np.count_nonzero(one & other) / union) if union else 1.0


def _clip(
    frames: Iterable[Image], mask: Path, options: Mapping[str, Any], bundle: Bundle
) -> tuple[list[Image], Image]:
    """Frames and mask at the working size; ids renumbered 1, 2, ..., as both sides take them."""
    held = list(frames)
    if not held:
        raise InputError("expected at least two frames to compare, found none")
    ids = check_mask(read_mask(mask), held[0].shape[:2], name=f"the mask {mask}")
    asked = options["size"] or bundle.size or bundle.short_side
    size = working_size((held[0].shape[0], held[0].shape[1]), asked)
    held, ids = [resize_frame(frame, size) for frame in held], resize_ids(ids, size)
    slots = np.zeros(256, np.uint8)
    slots[object_ids(ids)] = np.arange(1, len(object_ids(ids)) + 1)
    return held, slots[ids]


def _shown(row: report.Row) -> dict[str, str]:
    return {name: f"{value:.6g}" for name, value in row.items()}
