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
from vos_deploy.bundle import Bundle, demonstration_model
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
from .options import add_model_argument, add_report_arguments
from .worst import Worst

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
    add_model_argument(parser)
    add("--checkpoint", type=Path, required=True, metavar="FILE", help="what it was exported from")
    add("--video", required=True, help="video file or folder of images")
    add("--mask", type=Path, required=True, help="PNG of the first frame, object ids")
    add("--binary-mask", action="store_true", help="the mask shows one object, white on black")
    add("--frames", type=positive, default=20, metavar="N", help="stop after N frames")
    add(
        "--pictures",
        type=positive,
        metavar="N",
        help="write pictures of the N frames that agree least to --output",
    )
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
    model = args.model or demonstration_model()
    reads = {f"--{name}": getattr(args, name) for name in ("checkpoint", "video", "mask")}
    reads["--model"] = model
    report.keep_inputs(args.output, ("parity.csv", "parity.json"), reads)
    if args.pictures and args.output is None:
        raise InputError("--pictures are written to --output: give a folder")
    bundle = Bundle.load(model)
    options = segmenter_options(args)
    kept = published_options(bundle, options)
    worst = Worst(args.pictures or 0)
    pytorch = import_pytorch()
    network = pytorch.load_network(bundle, args.checkpoint)
    with (
        Segmenter(model, **options) as segmenter,
        open_source(args.video, exclude=[args.mask]) as source,
    ):
        given = read_mask(args.mask, binary=args.binary_mask)
        held = list(itertools.islice(source, args.frames))
        frames, mask = _clip(held, given, f"the mask {args.mask}", options, bundle)
        official = pytorch.reference(network, **kept)
        rows = compare(segmenter, official, frames, mask, worst)
        facts = {
            **conditions.model(bundle, options),
            "memory": conditions.memory(bundle, options),
            **conditions.machine("torch"),
        }
    smallest = min(row["smallest IoU"] for row in rows)
    passed = bool(smallest >= args.smallest_iou)
    data = {"benchmark": "parity", "conditions": facts, "frames": rows, "passed": passed}
    if args.pictures:
        data["pictures"] = worst.write(args.output)
    report.publish(args, ("parity.csv", "parity.json"), rows, data, _shown)
    if not args.json:
        verdict = "ok" if passed else "OUT OF TOLERANCE"
        print(f"smallest IoU {smallest:.4f}, asked for {args.smallest_iou:g}: {verdict}")
    return 0 if passed else 1


def published_options(bundle: Bundle, options: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a published loop, of those of a Segmenter and what the manifest says.

    Raises InputError for what no published loop does.
    """
    if options["memory_policy"] not in (None, OLDEST) or options["memory_mib"]:
        raise InputError(
            "the published loops drop the oldest memory frames: leave out --memory-policy and "
            "--memory-mib"
        )
    own = {k: v for k, v in options.items() if k not in GENERAL}
    chosen, every = configure(trackers.find(bundle), own, options.get("setting"))
    frames = options["memory_frames"] or bundle.memory.frames
    return {
        "memory_every": options["memory_every"] or every or bundle.memory.every,
        "memory_frames": None if frames == UNLIMITED else frames,
        **vars(chosen),
    }


def compare(
    exported: Segmenter,
    official: Reference,
    frames: Iterable[Image],
    mask: Image,
    worst: Worst | None = None,
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
            agreement = min(iou(ours == i, theirs == i) for i in ids)
            if worst:
                worst.see(index, agreement, frame, ours, theirs)
            apart = np.abs(exported.probabilities - np.asarray(official.probabilities))[1:]
            rows.append(
                {
                    "frame": index,
                    "smallest IoU": agreement,
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
    held: list[Image], mask: Image, name: str, options: Mapping[str, Any], bundle: Bundle
) -> tuple[list[Image], Image]:
    """Frames and mask at the working size; ids renumbered 1, 2, ..., as both sides take them."""
    if not held:
        raise InputError("expected at least two frames to compare, found none")
    ids = check_mask(mask, held[0].shape[:2], name=name)
    asked = options["size"] or bundle.size or bundle.short_side
    size = working_size((held[0].shape[0], held[0].shape[1]), asked)
    held, ids = [resize_frame(frame, size) for frame in held], resize_ids(ids, size)
    slots = np.zeros(256, np.uint8)
    slots[object_ids(ids)] = np.arange(1, len(object_ids(ids)) + 1)
    return held, slots[ids]


def _shown(row: report.Row) -> dict[str, str]:
    return {name: f"{value:.6g}" for name, value in row.items()}
