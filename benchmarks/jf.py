"""J&F: accuracy on DAVIS of a model, or of existing result masks."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vos_deploy.bundle import Bundle, demonstration_model
from vos_deploy.commands import progress
from vos_deploy.errors import InputError
from vos_deploy.results import ResultFolder
from vos_deploy.runtime.arguments import add_segmenter_arguments, segmenter_options
from vos_deploy.runtime.segmenter import Segmenter

from . import conditions, report
from .davis import Clip
from .follow import Steps, follow
from .fps import import_pytorch
from .measures import Statistics
from .options import add_davis_arguments, add_report_arguments, davis_clips
from .parity import published_options
from .peers import score_command
from .result_files import find_results, read_results
from .scores import ClipScore, overall, score_clip
from .spent import Spent

EXAMPLE = "python -m vos_deploy.benchmarks jf --davis DAVIS/ --year 2017 --model stm/"
TIMED_COMMAND = "the whole command, its start, decoding and writing included"
TIMED = "a step from the second frame on, without writing and scoring"
COUNTED = "all but the first, which is given, and the last of a sequence, as in the DAVIS code"
OVERALL = "overall"
PROCESSORS = "CPU ms"  # of a frame
MAIN_FACTS = ("data", "frames", "results", "model", "size", "device", "threads", "timed")
RECORD = "jf-run.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_davis_arguments(parser)
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--model",
        type=Path,
        metavar="FOLDER",
        help="follow the first masks with this model (default: the demonstration model)",
    )
    source.add_argument(
        "--results", type=Path, metavar="FOLDER", help="score FOLDER/<sequence>/00000.png, ..."
    )
    source.add_argument(
        "--copy-first",
        action="store_true",
        help="score the first mask for every frame: what a model has to be better than",
    )
    source.add_argument(
        "--nearest-features",
        type=Path,
        metavar="WEIGHTS",
        help="score labels carried by the nearest features of an ImageNet ResNet-18, whose weights "
        "these are by torchvision's names: what a trained model has to be better than",
    )
    source.add_argument(
        "--command",
        metavar="COMMAND",
        help="run a program once for each sequence and score its masks, such as 'follow.py "
        "{frames} {mask} {output}'",
    )
    parser.add_argument(
        "--pytorch",
        type=Path,
        metavar="CHECKPOINT",
        help="follow with the network that --model was exported from in PyTorch, in the published "
        "loop",
    )
    parser.add_argument("--compile", action="store_true", help="--pytorch with torch.compile")
    parser.add_argument(
        "--conditions", action="store_true", help="print all that the figures depend on"
    )
    add_report_arguments(parser, "scores.csv, scores.json and, unless --results, masks/")
    add_segmenter_arguments(parser)


def run(args: argparse.Namespace) -> int:
    if args.pytorch and (args.results or args.copy_first or args.nearest_features or args.command):
        raise InputError("--pytorch runs the network of a --model: leave out the others")
    if args.compile and not args.pytorch:
        raise InputError("--compile is of PyTorch: give the checkpoint, --pytorch FILE")
    folder = _result_folder(args)
    clips = davis_clips(args)
    facts: dict[str, Any] = {
        "data": f"DAVIS-{args.year} {args.set}, sequences: {len(clips)}",
        "frames": COUNTED,
    }
    facts |= conditions.machine()
    spent: dict[str, Spent] = {}
    try:
        if args.results:
            scores = score_results(clips, args.results)
            facts |= {"results": str(args.results)}
        elif args.copy_first:
            scores = [score_clip(clip, _first_masks(clip)) for clip in progress(clips, unit="clip")]
            facts |= {"results": "the first mask for every frame"}
        elif args.nearest_features:
            from .nearest import SIZE, NearestFeatures  # needs PyTorch

            size = args.size or SIZE
            follower = NearestFeatures(args.nearest_features, size=size)
            scores, spent = score_segmenter(clips, follower, folder)
            facts |= {"results": f"nearest features of {args.nearest_features.name}"}
            facts |= {"size": conditions.working_size(size)}
        elif args.command:
            scores, spent = score_command(clips, args.command)
            facts |= {"results": f"of {args.command}", "timed": TIMED_COMMAND}
        elif args.pytorch:
            published, more = _published(args)
            scores, spent = score_segmenter(clips, published, folder)
            facts |= {**more, "timed": TIMED}
        else:
            options = segmenter_options(args)
            with Segmenter(args.model, **options) as segmenter:
                scores, spent = score_segmenter(clips, segmenter, folder)
                facts |= conditions.model(segmenter.bundle, options)
                facts |= {"memory": conditions.memory(segmenter.bundle, options), "timed": TIMED}
        _publish(args, scores, spent, facts, folder)
    finally:
        if folder:
            folder.finish("failed")  # unless it is finished
    return 0


def _result_folder(args: argparse.Namespace) -> ResultFolder | None:
    """Where results go, apart from all that is read."""
    if args.output is None:
        return None
    # Masks of another run must not stay beside these scores, where this one writes none too.
    folder = ResultFolder(args.output, ("masks", "scores.csv", "scores.json"), RECORD)
    model = args.model
    if not (args.results or args.copy_first or args.nearest_features or args.command):
        model = model or demonstration_model()
    weights = args.nearest_features
    reads = {"--model": model, "--results": args.results, "--nearest-features": weights}
    parts = [args.davis / name for name in ("Annotations", "JPEGImages", "ImageSets")]
    folder.keep_apart({**reads, "--davis": args.davis}, trees={"--davis": parts})
    return folder


def _published(args: argparse.Namespace) -> tuple[Steps, dict[str, Any]]:
    """The published loop in PyTorch with what the arguments and the manifest say, and facts."""
    pytorch = import_pytorch()
    bundle = Bundle.load(args.model or demonstration_model())
    options = segmenter_options(args)
    kept = published_options(bundle, options)
    network = pytorch.load_network(bundle, args.pytorch)
    set_up = pytorch.set_up(options["threads"], "cpu")
    size = options["size"] or bundle.size or bundle.short_side
    network = pytorch.compiled(network) if args.compile else network
    mode = "torch.compile" if args.compile else set_up["mode"]
    facts = {
        **conditions.model(bundle, options),
        "memory": conditions.memory(bundle, options),
        "results": f"PyTorch, {mode}",
        "device": "cpu",
        "threads": set_up["threads"],
    }
    return pytorch.Published(network, size, **kept), facts


def _first_masks(clip: Clip) -> list[NDArray[np.uint8]]:
    return [clip.labels(clip.annotations[0])] * len(clip.scored)


def score_results(clips: Sequence[Clip], folder: Path) -> list[ClipScore]:
    """Scores masks on disk. Raises InputError before anything is scored if some are missing."""
    files = find_results(clips, folder)
    return [
        score_clip(clip, read_results(clip, files[clip.name]))
        for clip in progress(clips, unit="clip")
    ]


def score_segmenter(
    clips: Sequence[Clip], segmenter: Steps, output: ResultFolder | None
) -> tuple[list[ClipScore], dict[str, Spent]]:
    """Runs a segmenter over the clips; their scores, and what `step` took by clip.

    With `output`, every mask goes to `masks/<sequence>/<frame>.png` in it.
    """
    scores, spent = [], {}
    note = output.note if output else None
    if output:
        output.start({})
    for clip in clips:
        folder = output.folder / "masks" / clip.name if output else None
        labels, spent[clip.name] = follow(segmenter, clip, folder, note)
        scores.append(score_clip(clip, [labels[path.stem] for path in clip.scored]))
    return scores, spent


def _publish(
    args: argparse.Namespace,
    scores: Sequence[ClipScore],
    spent: Mapping[str, Spent],
    facts: Mapping[str, Any],
    folder: ResultFolder | None,
) -> None:
    rows = [_row(clip.name, [clip], spent) for clip in scores]
    rows.append(_row(OVERALL, scores, spent))
    data = {
        "benchmark": "jf",
        "conditions": facts,
        "scores": rows,
        "frames": {
            clip.name: {o.object_id: {"J": o.region, "F": o.contour} for o in clip.objects}
            for clip in scores
        },
    }
    if folder:
        folder.start({})
        for name in ("scores.csv", "scores.json"):
            folder.note(folder.folder / name)
        report.write_csv(folder.folder / "scores.csv", rows)
        report.write_json(folder.folder / "scores.json", data)
        folder.finish("finished", **facts)
    if args.json:
        print(report.to_json(data))
    else:
        print(report.table([_shown(row) for row in rows]))
        print(report.listing(facts if args.conditions else _main_facts(facts)))
        if not args.conditions:
            print("more of what the figures depend on: --conditions")


def _main_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a score means at all."""
    shown = {name: facts[name] for name in MAIN_FACTS if name in facts}
    return shown | ({"cpu": facts["cpu"]} if "timed" in facts else {})


def _row(name: str, clips: Sequence[ClipScore], spent: Mapping[str, Spent]) -> dict[str, Any]:
    """Fractions under the column names of the DAVIS code, frames that count, and speed."""
    score = overall(clips)
    frames = sum(clip.frames for clip in clips)
    row = {
        "Sequence": name,
        "J&F-Mean": score.mean,
        **_columns("J", score.region),
        **_columns("F", score.contour),
        "Frames": frames,
    }
    if spent:
        # The last frame of a clip does not count in the score, but it took its time.
        timed, took = frames + len(clips), Spent.total(spent[clip.name] for clip in clips)
        row["FPS"], row[PROCESSORS] = timed / took.clock, 1000 * took.processors / timed
    return row


def _columns(measure: str, values: Statistics) -> dict[str, float]:
    return {
        f"{measure}-Mean": values.mean,
        f"{measure}-Recall": values.recall,
        f"{measure}-Decay": values.decay,
    }


def _shown(row: Mapping[str, Any]) -> dict[str, str]:
    """Scores in percent, as papers print them."""
    return {name: _cell(name, value) for name, value in row.items()}


def _cell(name: str, value: str | int | float) -> str:
    if not isinstance(value, float):
        return str(value)
    share = name not in ("FPS", PROCESSORS)
    return f"{100 * value if share else value:z.1f}"
