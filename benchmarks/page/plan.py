"""Which benchmarks a page is made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from vos_deploy.bundle import Bundle, demonstration_model
from vos_deploy.files import entries, sha256
from vos_deploy.runtime import trackers
from vos_deploy.runtime.backends.driver import has_driver

from .runs import Planned

ACCURACY, OBJECTS, FRAMES, SIZES = "accuracy", "objects", "memory frames", "resolution"
MEMORY, STEADY, PARITY, GPU = "memory", "steady state", "parity", "GPU"
KINDS = (ACCURACY, OBJECTS, FRAMES, SIZES, MEMORY, STEADY, PARITY, GPU)
PYTORCH, COMPILED = "PyTorch eager", "torch.compile"
NO_PYTORCH = "PyTorch is not installed, or --no-pytorch was given"


@dataclass(frozen=True)
class Amount:
    """How much is run. sequences: of a data set; None for all. frames: of the long video. warm_up:
    steps before those whose allocations are listed."""

    objects: str
    memory: str
    sizes: tuple[str, ...]
    repeats: int
    frames: int
    compared: int
    sequences: int | None
    warm_up: int


# Of what cameras send: larger than what models work at.
FRAME = "1080x1920"

QUICK = Amount("1,3", "1,5", ("240x432", "360x640"), 5, 120, 8, 2, 20)
FULL = Amount("1,2,3,5", "1,2,5,10", ("240x432", "360x640", "480x854"), 20, 2000, 20, None, 100)


@dataclass(frozen=True)
class Wanted:
    """What the page is of.

    models: folders by the names that the page gives them. checkpoints: where those the models were
    exported from may lie. clip: frames and the mask of the first, for parity; binary: which is
    white on black. peers: commands by name. davis, year, sequences: the data set, and which of it.
    """

    models: dict[str, Path]
    amount: Amount
    checkpoints: Sequence[Path]
    clip: tuple[Path, Path] | None
    binary: bool
    peers: dict[str, str]
    davis: Path | None
    year: int
    sequences: Sequence[str]
    size: str | None
    threads: int | None
    pytorch: bool
    compile: bool


def plan(wanted: Wanted) -> list[Planned]:
    """Every benchmark of the page, with the reason where one is not run."""
    found: list[Planned] = []
    for name, model in wanted.models.items():
        found += _of_model(wanted, name, model)
    found += _of_peers(wanted)
    if not has_driver():
        found.append(Planned(GPU, "all models", reason="there is no NVIDIA GPU here"))
    else:
        reason = "measured by a benchmark of its own: python -m vos_deploy.benchmarks gpu"
        found.append(Planned(GPU, "all models", reason=reason))
    return found


def find_checkpoint(bundle: Bundle, folders: Sequence[Path]) -> Path | None:
    """The file a model was exported from, by its SHA-256."""
    files = [path for folder in folders for path in entries(folder) if path.is_file()]
    wanted = bundle.checkpoint.get("sha256")
    named = sorted(files, key=lambda path: path.name != bundle.checkpoint.get("name"))
    return next((path for path in named if wanted and sha256(path) == wanted), None)


def _of_model(wanted: Wanted, name: str, model: Path) -> Iterator[Planned]:
    bundle, amount = Bundle.load(model), wanted.amount
    checkpoint = find_checkpoint(bundle, wanted.checkpoints)
    given: tuple[str, ...] = () if model == demonstration_model() else ("--model", _path(model))
    of_model = (*given, *_threads(wanted))
    missing = f"the checkpoint {bundle.checkpoint.get('name', '')} was not found: --checkpoints"
    yield from _accuracy(wanted, name, of_model, bundle.precision, checkpoint, missing)
    timed = ("fps", *of_model, "--repeats", str(amount.repeats))
    at = ("--size", wanted.size or amount.sizes[0]) if bundle.size is None else ()
    sides: tuple[str, ...] = ("--compile",) if wanted.compile else ()
    if checkpoint:
        sides += ("--checkpoint", _path(checkpoint))
    beside = sides if _has_pytorch(wanted) else ("--no-pytorch",)
    yield Planned(OBJECTS, name, (*timed, *at, "--objects", amount.objects, *beside))
    if trackers.find(bundle).grows:
        yield Planned(FRAMES, name, (*timed, *at, "--memory", amount.memory, "--no-pytorch"))
    else:
        yield Planned(FRAMES, name, reason="the memory of this method has one size")
    if bundle.size is None:
        for size in amount.sizes:
            yield Planned(SIZES, name, (*timed, "--size", size, "--no-pytorch"))
    else:
        yield Planned(SIZES, name, reason="this model was exported for one size")
    frames = ("--frames", str(amount.frames))
    warm_up = ("--warm-up", str(amount.warm_up))
    yield Planned(MEMORY, name, ("memory", *of_model, *at, *frames))
    yield Planned(STEADY, name, ("steady", *of_model, *at, "--frame", FRAME, *warm_up))
    if not _has_pytorch(wanted) or wanted.clip is None or checkpoint is None:
        clip = "there is no clip: --video and --mask, or --davis"
        reason = NO_PYTORCH if not _has_pytorch(wanted) else clip if not wanted.clip else missing
        yield Planned(PARITY, name, reason=reason)
        return
    video, mask = map(_path, wanted.clip)
    compared = ("--frames", str(amount.compared), "--pictures", "2")
    clip_of = ("--checkpoint", _path(checkpoint), "--video", video, "--mask", mask)
    binary = ("--binary-mask",) if wanted.binary else ()
    yield Planned(PARITY, name, ("parity", *of_model, *clip_of, *binary, *compared))


def _accuracy(
    wanted: Wanted,
    name: str,
    of_model: tuple[str, ...],
    precision: str,
    checkpoint: Path | None,
    missing: str,
) -> Iterator[Planned]:
    if wanted.davis is None:
        yield Planned(ACCURACY, name, reason="there is no data set: --davis")
        return
    yield Planned(ACCURACY, name, ("jf", *_data(wanted), *of_model))
    for side, more in ((PYTORCH, ()), (COMPILED, ("--compile",))):
        peer = f"{name}, {side}"
        if not _has_pytorch(wanted):
            yield Planned(ACCURACY, peer, reason=NO_PYTORCH)
        elif side == COMPILED and not wanted.compile:
            yield Planned(ACCURACY, peer, reason="it compiles for minutes: --compile")
        elif checkpoint is None:
            yield Planned(ACCURACY, peer, reason=missing)
        elif precision == "int8":
            yield Planned(ACCURACY, peer, reason="PyTorch has no INT8 here: see the model in fp32")
        else:
            words = ("jf", *_data(wanted), *of_model, "--pytorch", _path(checkpoint), *more)
            yield Planned(ACCURACY, peer, words)


def _of_peers(wanted: Wanted) -> Iterator[Planned]:
    for name, command in wanted.peers.items():
        if wanted.davis is None:
            yield Planned(ACCURACY, name, reason="there is no data set: --davis")
        else:
            yield Planned(ACCURACY, name, ("jf", *_data(wanted), "--command", command))


def _data(wanted: Wanted) -> tuple[str, ...]:
    chosen = ("--sequences", ",".join(wanted.sequences)) if wanted.sequences else ()
    return ("--davis", _path(wanted.davis), "--year", str(wanted.year), *chosen)


def _threads(wanted: Wanted) -> tuple[str, ...]:
    return ("--threads", str(wanted.threads)) if wanted.threads else ()


def _path(path: Path | None) -> str:
    """As it is called from where the command is run."""
    here = Path.cwd()
    return str(path.relative_to(here) if path and path.is_relative_to(here) else path)


def _has_pytorch(wanted: Wanted) -> bool:
    return wanted.pytorch and find_spec("torch") is not None
