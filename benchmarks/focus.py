"""Focus: J of small objects in large frames, with the whole frame and with a crop that follows."""

import argparse
from collections.abc import Iterator
from itertools import islice
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vos_deploy.arguments import frame_size, positive
from vos_deploy.bundle import demonstration_model
from vos_deploy.commands import progress
from vos_deploy.frames import Size
from vos_deploy.runtime.arguments import add_segmenter_arguments, segmenter_options
from vos_deploy.runtime.segmenter import Segmenter
from vos_deploy.video import open_source

from . import conditions, report
from .davis import Clip
from .measures import region_similarity
from .options import add_davis_arguments, add_model_argument, add_report_arguments, davis_clips

EXAMPLE = "python -m vos_deploy.benchmarks focus --davis DAVIS/ --sequences blackswan,car-shadow"
FILES = ("focus.csv", "focus.json")
# How far the picture moves over the large frame, from frame to frame.
DRIFT = 12
BLUR = (61, 61)
# Below this J an object is lost in a frame.
LOST = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_davis_arguments(parser, years=False)
    add_model_argument(parser)
    add("--pixels", type=positive, default=60, metavar="N", help="longer side of the object")
    add("--frames", type=positive, default=40, metavar="N", help="frames of each sequence")
    add("--canvas", type=frame_size(), default="2160x3840", metavar="HxW", help="the large frame")
    add_segmenter_arguments(parser)
    add_report_arguments(parser, " and ".join(FILES))


def run(args: argparse.Namespace) -> int:
    model = args.model or demonstration_model()
    report.keep_inputs(args.output, FILES, {"--model": model, "--davis": args.davis})
    options = segmenter_options(args)
    clips = davis_clips(args)
    rows = []
    for clip in progress(clips, unit="clip"):
        row: dict[str, Any] = {"Sequence": clip.name}
        for name, focus in (("whole", False), ("focus", True)):
            with Segmenter(model, **{**options, "focus": focus}) as segmenter:
                found = score(segmenter, clip, args.canvas, args.pixels, args.frames)
                bundle = segmenter.bundle
            lost = int((found < LOST).sum())
            row |= {f"{name} J": float(np.mean(found)), f"{name} lost in": lost}
        rows.append({**row, "Frames": len(found)})
    facts = {
        "clips": f"DAVIS-2016 {args.set}, made small: the object is {args.pixels} pixels long in "
        f"frames of {args.canvas[0]}x{args.canvas[1]}, and drifts by {DRIFT} per frame",
        **conditions.model(bundle, options),
        **conditions.machine(),
    }
    report.publish(args, FILES, rows, {"conditions": facts, "scores": rows}, report.percent)
    return 0


def score(
    segmenter: Segmenter, clip: Clip, canvas: Size, pixels: int, frames: int
) -> NDArray[np.float64]:
    """J of every frame of a clip that is made small, but of the first, whose mask is given."""
    found = []
    for index, (frame, mask) in enumerate(islice(embedded(clip, canvas, pixels), frames)):
        labels = segmenter.step(frame, None if index else mask)
        if index:
            found.append(region_similarity(labels > 0, mask > 0))
    return np.array(found)


def embedded(
    clip: Clip, canvas: Size, pixels: int
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Frames, uint8 [H, W, 3], and masks, uint8 [H, W], of a clip whose object is at first so many
    pixels long, in a large frame of its own colours."""
    first = clip.labels(clip.annotations[0])
    _, _, width, height = cv2.boundingRect(first)
    scale = pixels / max(width, height)
    size = max(1, round(scale * first.shape[0])), max(1, round(scale * first.shape[1]))
    top, left = (canvas[0] - size[0]) // 2, canvas[1] // 4
    background: NDArray[np.uint8] | None = None
    with open_source(clip.frames) as source:
        for index, (frame, path) in enumerate(zip(source, clip.annotations, strict=False)):
            if background is None:
                blurred = cv2.blur(frame, BLUR)
                background = np.asarray(cv2.resize(blurred, canvas[::-1]), np.uint8)
            start = left + (DRIFT * index) % max(1, canvas[1] - size[1] - left)
            place = np.s_[top : top + size[0], start : start + size[1]]
            picture, mask = background.copy(), np.zeros(canvas, np.uint8)
            picture[place] = cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA)
            labels = clip.labels(path)
            mask[place] = cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
            yield picture, mask
