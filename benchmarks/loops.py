"""Loops: J&F over clips played forwards and backwards, by the size and policy of the memory."""

import argparse
from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from vos_deploy.arguments import numbers, positive
from vos_deploy.bundle import demonstration_model
from vos_deploy.commands import progress
from vos_deploy.errors import InputError
from vos_deploy.runtime.arguments import add_segmenter_arguments, segmenter_options
from vos_deploy.runtime.memory.eviction import POLICIES
from vos_deploy.runtime.segmenter import Segmenter
from vos_deploy.video import open_source

from . import conditions, report
from .davis import Clip
from .options import add_davis_arguments, add_model_argument, add_report_arguments, davis_clips
from .scores import ClipScore, overall, score_clip

EXAMPLE = (
    "python -m vos_deploy.benchmarks loops --davis DAVIS/ --sequences blackswan --capacities 2,4,8"
)
FILES = ("loops.csv", "loops.json")
COUNTED = "of every pass all frames but the first and the last of the clip"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_davis_arguments(parser)
    add_model_argument(parser)
    add("--passes", type=positive, default=4, metavar="N", help="forwards, backwards, forwards ...")
    add(
        "--capacities",
        type=numbers,
        default="2,4,8",
        metavar="N,N",
        help="memory frames of an object",
    )
    add(
        "--policies",
        type=_policies,
        default="oldest,stride",
        metavar="A,B",
        help=f"of {', '.join(POLICIES)}",
    )
    add_segmenter_arguments(parser)
    add_report_arguments(parser, " and ".join(FILES))


def run(args: argparse.Namespace) -> int:
    model = args.model or demonstration_model()
    report.keep_inputs(args.output, FILES, {"--model": model, "--davis": args.davis})
    options = segmenter_options(args)
    if options["memory_frames"] or options["memory_policy"]:
        raise InputError("give --capacities and --policies here, which are compared")
    clips = davis_clips(args)
    rows = []
    for policy, capacity in product(args.policies, args.capacities):
        kept = {"memory_policy": policy, "memory_frames": capacity}
        with Segmenter(model, **{**options, **kept}) as segmenter:
            scores = [score_passes(segmenter, clip, args.passes) for clip in clips]
            bundle = segmenter.bundle
        rows.append({"Policy": policy, "Memory frames": capacity, **_columns(scores)})
    facts = {
        "data": f"DAVIS-{args.year} {args.set}, {', '.join(clip.name for clip in clips)}",
        "passes": args.passes,
        "frames": COUNTED,
        **conditions.model(bundle, options),
        "memory every": options["memory_every"] or bundle.memory.every,
        **conditions.machine(),
    }
    data = {"benchmark": "loops", "conditions": facts, "scores": rows}
    report.publish(args, FILES, rows, data, report.percent)
    return 0


def score_passes(segmenter: Segmenter, clip: Clip, passes: int) -> list[ClipScore]:
    """The scores of each pass over a clip, of which only the first mask is given."""
    with open_source(clip.frames) as source:
        names = [source.name(index) for index in range(source.count or 0)]
        frames = list(source)
    segmenter.reset()
    labels: dict[int, NDArray[np.uint8]] = {}
    scores = []
    mask: NDArray[np.uint8] | None = clip.labels(clip.annotations[0])
    for order in progress(turns(len(frames), passes), total=passes, unit="pass"):
        for index in order:
            labels[index] = segmenter.step(frames[index], mask)
            mask = None
        found = {names[index]: found for index, found in labels.items()}
        scores.append(score_clip(clip, [found[path.stem] for path in clip.scored]))
    return scores


def turns(frames: int, passes: int) -> Iterator[Sequence[int]]:
    """The frames of each pass, forwards and backwards in turn; where it turns, a frame is seen
    once."""
    for number in range(passes):
        forwards = range(min(1, number), frames)
        yield forwards if number % 2 == 0 else range(frames - 2, -1, -1)


def _columns(scores: Sequence[Sequence[ClipScore]]) -> dict[str, float]:
    """J&F per pass: the mean over the clips."""
    by_pass = zip(*scores, strict=True)
    return {f"pass {n} J&F": overall(clips).mean for n, clips in enumerate(by_pass, start=1)}


def _policies(text: str) -> list[str]:
    chosen = text.split(",")
    for name in chosen:
        if name not in POLICIES:
            raise argparse.ArgumentTypeError(f"must be of {', '.join(POLICIES)}, got {name!r}")
    return chosen
