"""Report: one page of all that this machine can measure, as HTML, Markdown and JSON."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from vos_deploy.arguments import frame_size, positive
from vos_deploy.bundle import Bundle, demonstration_model
from vos_deploy.commands import progress
from vos_deploy.errors import InputError
from vos_deploy.files import replacing

from .. import conditions, report
from ..davis import YEARS, find_clips
from ..peers import check_command
from .figures import alone, import_matplotlib
from .plan import ACCURACY, FULL, KINDS, QUICK, Wanted, plan
from .runs import Outcome, execute
from .sections import sections
from .write import as_html, as_markdown

EXAMPLE = "python -m vos_deploy.benchmarks report --quick --output report/"
FILES = ("report.html", "report.md", "report.json")
# J&F against time by itself, as other pages show it.
PLOT = "accuracy.svg"
TITLE = "Accuracy, speed and memory"
PACKAGES = ("torch", "matplotlib", "onnx")
# Processes that want a core, for each there is: those of the benchmarks are among them.
BUSY = 1.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--model",
        type=Path,
        action="append",
        metavar="FOLDER",
        help="exported model; may be given several times (default: the bundled demo model)",
    )
    add("--davis", type=Path, metavar="ROOT", help="data set for J&F (default: no J&F)")
    add("--year", type=int, choices=YEARS, default=2016, help="2016: one object; 2017: several")
    add("--sequences", metavar="A,B", help="only these (default: all, and two with --quick)")
    add("--video", type=Path, metavar="FOLDER", help="clip for parity (default: the sample)")
    add("--mask", type=Path, help="mask of its first frame")
    add(
        "--checkpoints",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="where the checkpoints lie that models were exported from, found by their SHA-256",
    )
    add(
        "--peer",
        type=_peer,
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="also score and time a program: 'mine=follow.py {frames} {mask} {output}', which "
        "writes a PNG of object ids per frame, named like it; may be given several times",
    )
    add(
        "--only",
        choices=KINDS,
        action="append",
        metavar="SECTION",
        help="run what this section needs and no more; may be given several times: "
        + ", ".join(KINDS),
    )
    add("--no-pytorch", action="store_true", help="leave out what needs PyTorch")
    add("--compile", action="store_true", help="also time torch.compile, which takes minutes")
    add("--size", type=frame_size(), metavar="HxW", help="working size of what is timed")
    add("--threads", type=positive, metavar="N", help="CPU threads of both engines")
    add("--quick", action="store_true", help="few repeats, sizes and frames: minutes, not an hour")
    add("--output", type=Path, default=Path("report"), metavar="FOLDER", help="where it goes")


def run(args: argparse.Namespace) -> int:
    import_matplotlib()
    models = args.model or [demonstration_model()]
    report.keep_inputs(args.output, (*FILES, PLOT), {"--model": models, "--davis": args.davis})
    wanted = _wanted(args, models)
    kinds = args.only or KINDS
    planned = [each for each in plan(wanted) if each.section in kinds]
    outcomes = []
    with tempfile.TemporaryDirectory() as scratch:
        for number, each in enumerate(progress(planned, unit="benchmark")):
            outcomes.append(execute(each, Path(scratch) / str(number)))
        facts = _facts(args, outcomes)
        shown = sections(outcomes, kinds)
        named = {name: str(value) for name, value in facts.items()}
        data = {
            "benchmark": "report",
            "conditions": facts,
            "outcomes": [outcome.as_json() for outcome in outcomes],
        }
        about = _about(outcomes, len(wanted.models), facts)
        _write(args.output / FILES[0], as_html(TITLE, about, shown, named))
        _write(args.output / FILES[1], as_markdown(TITLE, about, shown, named))
        report.write_json(args.output / FILES[2], data)
        written = list(FILES)
        if ACCURACY in kinds and shown[0].drawn:
            _write(args.output / PLOT, alone(shown[0].drawn[0]))
            written.append(PLOT)
    print(about)
    print("\n".join(str(args.output / name) for name in written))
    failed = [outcome for outcome in outcomes if outcome.reason and not outcome.planned.reason]
    for outcome in failed:
        print(f"failed: {outcome.planned.command}: {outcome.reason}")
    return 1 if failed else 0


def _wanted(args: argparse.Namespace, models: Sequence[Path]) -> Wanted:
    """What the arguments ask for. Raises InputError for what no benchmark could work with."""
    amount = QUICK if args.quick else FULL
    if (args.video is None) != (args.mask is None):
        raise InputError("--video and --mask belong together: give both, or neither")
    for _, command in args.peer:
        check_command(command)
    chosen = args.sequences.split(",") if args.sequences else []
    clips = find_clips(args.davis, args.year, names=chosen or None) if args.davis else []
    if amount.sequences and not chosen:
        clips = clips[: amount.sequences]
        chosen = [clip.name for clip in clips]
    clip = (args.video, args.mask) if args.video else None
    if of_data := clip is None and bool(clips):
        clip = clips[0].frames, clips[0].annotations[0]
    return Wanted(
        models=_named(models),
        amount=amount,
        checkpoints=[*args.checkpoints, demonstration_model().parent],
        clip=clip or _sample(),
        binary=of_data and args.year == 2016,
        peers=dict(args.peer),
        davis=args.davis,
        year=args.year,
        sequences=chosen,
        size=None if args.size is None else "{}x{}".format(*args.size),
        threads=args.threads,
        pytorch=not args.no_pytorch,
        compile=args.compile,
    )


def _named(models: Sequence[Path]) -> dict[str, Path]:
    """Models by the names of their folders, with their precision where it is not fp32; two of one
    name by their paths. Raises ModelError for one that cannot be used."""
    names = []
    for model in models:
        precision = Bundle.load(model).precision
        names.append(model.resolve().name + ("" if precision == "fp32" else f" ({precision})"))
    twice = len(set(names)) < len(names)
    return {str(m) if twice else name: m for name, m in zip(names, models, strict=True)}


def _sample() -> tuple[Path, Path]:
    """The clip that ships."""
    folder = Path(str(resources.files("vos_deploy.export"))) / "sample"
    return folder / "frames", folder / "mask.png"


def _facts(args: argparse.Namespace, outcomes: Sequence[Outcome]) -> Mapping[str, Any]:
    machine = conditions.machine(*PACKAGES)
    return {
        "run": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "amount": "quick" if args.quick else "full",
        "threads": args.threads or "as each engine chooses",
        "seconds": round(sum(outcome.seconds for outcome in outcomes)),
        **machine,
        "packages": ", ".join(f"{name} {found}" for name, found in machine["packages"].items()),
    }


def _about(outcomes: Sequence[Outcome], models: int, facts: Mapping[str, Any]) -> str:
    done = sum(bool(outcome.data) for outcome in outcomes)
    counted = "One model" if models == 1 else f"{models} models"
    about = f"{counted}, {done} benchmarks; {len(outcomes) - done} were not run: sections say why."
    load, cores = (float(facts[name] or 0) for name in ("load", "cores"))
    if load > BUSY * cores:
        about += f" The machine was busy (load {load:g} on {cores:g} cores): times are too long."
    return about


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _peer(text: str) -> tuple[str, str]:
    name, equals, command = text.partition("=")
    if not (name.strip() and equals and command.strip()):
        raise argparse.ArgumentTypeError(f"must be NAME=COMMAND, got {text!r}")
    return name.strip(), command.strip()
