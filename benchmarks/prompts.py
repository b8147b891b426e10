"""IoU of what boxes and points cut out, against the true first masks of DAVIS."""

import argparse
from collections.abc import Iterator
from itertools import islice
from time import perf_counter
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vos_deploy.commands import progress
from vos_deploy.palette import VOID
from vos_deploy.prompts import Prompt, PromptError, cut_out
from vos_deploy.video import open_source

from . import conditions, report
from .davis import Clip
from .measures import region_similarity
from .options import add_davis_arguments, add_report_arguments, davis_clips

EXAMPLE = "python -m vos_deploy.benchmarks prompts --davis DAVIS/ --year 2016"
FILES = ("prompts.csv", "prompts.json")
KINDS = ("box", "box + point", "point", "3 + 4 points")
MEAN = "mean"
# A box as people draw it: somewhat larger than the object, by this part of its sides on each side.
LOOSE = 0.05
HOW = {
    "box": f"the object's bounding box, {LOOSE:.0%} larger on each side",
    "point": "the pixel of the object that is farthest from its rim",
    "3 + 4 points": "three such pixels far from each other, and one off each side of the box",
    "refused": "no mask came of it, which counts as 0",
}

Mask = NDArray[np.bool_]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_davis_arguments(parser)
    add_report_arguments(parser, "prompts.csv and prompts.json")


def run(args: argparse.Namespace) -> int:
    report.keep_inputs(args.output, FILES, {"--davis": args.davis})
    clips = davis_clips(args)
    rows = [row for clip in progress(clips, unit="clip") for row in score_clip(clip)]
    facts: dict[str, Any] = {"data": f"DAVIS-{args.year}, first frames: {len(clips)}", **HOW}
    facts |= {"cpu": conditions.machine()["cpu"]}
    rows.append(_mean(rows))
    data = {"benchmark": "prompts", "conditions": facts, "scores": rows}
    report.publish(args, FILES, rows, data, _shown)
    return 0


def score_clip(clip: Clip) -> Iterator[dict[str, Any]]:
    """One row per object of the first frame: the IoU by kind of prompt, and milliseconds."""
    with open_source(clip.frames) as source:
        (frame,) = islice(source, 1)
    truth = clip.labels(clip.annotations[0])
    for object_id in clip.objects():
        row: dict[str, Any] = {"sequence": clip.name, "object": object_id}
        refused, started = 0, perf_counter()
        for kind, prompt in prompts_of(truth == object_id, object_id).items():
            try:
                found = cut_out(frame, prompt)
            except PromptError:
                refused += 1
                row[kind] = 0.0
            else:
                row[kind] = region_similarity(found, truth == object_id, truth == VOID)
        milliseconds = 1000 * (perf_counter() - started) / len(KINDS)
        yield row | {"refused": refused, "ms": milliseconds}


def prompts_of(truth: Mask, object_id: int) -> dict[str, Prompt]:
    """What somebody would give who sees the true mask, bool [H, W], by kind."""
    x, y, width, height = cv2.boundingRect(truth.astype(np.uint8))
    across, down = (max(1, round(LOOSE * side)) for side in (width, height))
    left, top = max(0, x - across), max(0, y - down)
    right = min(truth.shape[1], x + width + across)
    bottom = min(truth.shape[0], y + height + down)
    if (left, top, right, bottom) == (0, 0, truth.shape[1], truth.shape[0]):
        right -= 1  # a box of the whole frame is none
    box = left, top, right - left, bottom - top
    centre, *others = _inside(truth, 3)
    beside = [
        (px, py)
        for px, py in (
            (left - 1, y + height // 2),
            (right, y + height // 2),
            (x + width // 2, top - 1),
            (x + width // 2, bottom),
        )
        if 0 <= px < truth.shape[1] and 0 <= py < truth.shape[0] and not truth[py, px]
    ]
    return {
        "box": Prompt(object_id, box),
        "box + point": Prompt(object_id, box, [centre]),
        "point": Prompt(object_id, None, [centre]),
        "3 + 4 points": Prompt(object_id, None, [centre, *others], beside),
    }


def _inside(truth: Mask, count: int) -> list[tuple[int, int]]:
    """Pixels (x, y) deep inside a mask, each far from those before it."""
    depth = cv2.distanceTransform(np.pad(truth, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    rows, columns = np.indices(truth.shape)
    score, found = np.asarray(depth, np.float64), []
    for _ in range(count):
        y, x = np.unravel_index(int(score.argmax()), score.shape)
        found.append((int(x), int(y)))
        score = np.minimum(score, np.where(truth, np.hypot(rows - y, columns - x) / 2, 0))
    return found


def _mean(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Over all objects, each weighing the same."""
    return {
        "sequence": MEAN,
        "object": len(rows),
        **{kind: sum(row[kind] for row in rows) / len(rows) for kind in KINDS},
        "refused": sum(row["refused"] for row in rows),
        "ms": sum(row["ms"] for row in rows) / len(rows),
    }


def _shown(row: report.Row) -> dict[str, str]:
    """IoU in percent, as J is."""
    return {name: _cell(name, value) for name, value in row.items()}


def _cell(name: str, value: Any) -> str:
    if name in KINDS:
        return f"{100 * value:.1f}"
    return f"{value:.0f}" if name == "ms" else str(value)
