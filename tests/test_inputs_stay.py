"""Every command, with each of its inputs at each of the places that it writes to: all stay.

`vos-deploy-run` has tests of its own, in runtime/run/test_no_overwriting.py.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from vos_deploy.benchmarks.cli import main as benchmarks
from vos_deploy.bundle import demonstration_model
from vos_deploy.commands import run_command
from vos_deploy.export.cli import main as export
from vos_deploy.runtime.build import main as build
from vos_deploy.runtime.run.command import main as run
from vos_deploy.train.cli import main as train
from vos_deploy.train.data.check import main as data

OUTPUT = "--output"
MODEL = "the model"


@dataclass(frozen=True)
class Command:
    """What a command reads, option -> a file, a folder that it reads or one with all in it; and
    where it writes: names in the folder of `option`, or that file itself where there are none."""

    main: Callable[[Sequence[str]], int]
    arguments: tuple[str, ...]
    reads: dict[str, str]
    writes: tuple[str, ...] = ()
    option: str = OUTPUT
    alone: frozenset[str] = field(default_factory=frozenset)  # options that exclude each other


def benchmark(name: str, *arguments: str, **fields: object) -> Command:
    call = lambda argv: run_command(benchmarks, argv)  # noqa: E731
    return Command(call, (name, *arguments), **fields)  # type: ignore[arg-type]


TRAINED = ("last.pth", "model.safetensors", "bad_files.txt", "options.toml")
SETS = {"--stills": "tree", "--davis": "tree", "--youtube": "tree", "--bl30k": "tree"}
FILES = {"--initial": "file", "--imagenet": "file", "--exclude": "file", "--config": "file"}
COMMANDS = {
    "run --save-frame": Command(
        run, ("--save-frame", "0"), {"--video": "frames"}, ("frame_a.png",), OUTPUT
    ),
    "build": Command(build, (), {MODEL: "model", "--timing-cache": "file"}),
    "build --timing-cache": Command(build, (), {MODEL: "model"}, option="--timing-cache"),
    "export": Command(
        export, ("--method", "stm"), {"--checkpoint": "file", "--trunk": "file"}, ("", "inside")
    ),
    "train": Command(train, ("--method", "stm", "--stage", "main"), SETS | FILES, TRAINED),
    "data": Command(data, (), SETS, option="--list"),
    "jf": benchmark(
        "jf",
        reads={"--davis": "tree", "--model": "folder", "--results": "folder"},
        writes=("masks", "scores.csv", "scores.json", "jf-run.json"),
        alone=frozenset({"--model", "--results"}),
    ),
    "fps": benchmark(
        "fps", reads={"--model": "folder", "--checkpoint": "file"}, writes=("fps.csv", "fps.json")
    ),
    "memory": benchmark(
        "memory", reads={"--model": "folder"}, writes=("memory.csv", "memory.json")
    ),
    "cost": benchmark("cost", reads={"--model": "folder"}, writes=("cost.csv", "cost.json")),
    "steady": benchmark(
        "steady", reads={"--model": "folder"}, writes=("steady.csv", "steady.json")
    ),
    "prompts": benchmark(
        "prompts", reads={"--davis": "tree"}, writes=("prompts.csv", "prompts.json")
    ),
    "streams": benchmark(
        "streams", reads={"--model": "folder"}, writes=("streams.csv", "streams.json")
    ),
    **{
        name: benchmark(
            name,
            reads={"--davis": "tree", "--model": "folder"},
            writes=(f"{name}.csv", f"{name}.json"),
        )
        for name in ("loops", "focus")
    },
    "live": benchmark("live", reads={"--model": "folder"}, writes=("live.csv", "live.json")),
    "parity": benchmark(
        "parity",
        reads={
            "--model": "folder",
            "--checkpoint": "file",
            "--video": "frames",
            "--mask": "file",
        },
        writes=("parity.csv", "parity.json"),
    ),
    "gpu": benchmark(
        "gpu", "--engine", "cpu", "--list",
        reads={"--models": "folder", "--reference": "file"},
        writes=("rows.jsonl", "report.md", "models", "plans"),
    ),
}  # fmt: skip


def pairs() -> Iterator[tuple[str, str, str]]:
    for name, command in COMMANDS.items():
        for option, kind in command.reads.items():
            for place in command.writes or ("",):
                yield name, option, place
            if command.writes and kind not in ("file", "model"):
                yield name, option, "."


def put(kind: str, path: Path) -> Path:
    """An input of a kind at this place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "file":
        path.write_text("# batch = 4\n")
    elif kind == "model":
        shutil.copytree(demonstration_model(), path)
    else:
        path.mkdir(exist_ok=True)
        if kind == "frames":
            frame = next((Path(__file__).parents[1] / "export/sample/frames").iterdir())
            shutil.copy(frame, path / "a.jpg")
        else:
            (path / "inner").mkdir()
            (path / "inner" / "data").write_text("data")
    return path


def checksums(root: Path) -> dict[str, str]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def call(name: str, inputs: dict[str, Path], output: Path) -> int:
    command = COMMANDS[name]
    arguments = [*command.arguments]
    for option, path in inputs.items():
        if option == MODEL:
            arguments.append(str(path))
        else:
            arguments += [option, str(path)]
    return command.main([*arguments, command.option, str(output)])


def inputs_of(name: str, option: str, given: Path, elsewhere: Path) -> dict[str, Path]:
    command = COMMANDS[name]
    return {
        other: given if other == option else put(kind, elsewhere / other.strip("-"))
        for other, kind in command.reads.items()
        if other == option or other not in command.alone
    }


@pytest.mark.parametrize(("name", "option", "place"), [*pairs()])
def test_an_input_where_something_would_be_written(
    name: str, option: str, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    output = tmp_path / ("out.plan" if name == "build" else "out")
    given = put(COMMANDS[name].reads[option], output / place)
    inputs = inputs_of(name, option, given, tmp_path / "elsewhere")
    before = checksums(tmp_path)
    assert call(name, inputs, output) == 2
    error = capsys.readouterr().err
    assert "choose another" in error or (name, option) == ("build", MODEL), error
    assert checksums(tmp_path) == before


@pytest.mark.parametrize("name", ["train", "data"])
@pytest.mark.parametrize("option", SETS)
@pytest.mark.parametrize("place", ["inner/data", "inner/new"])
def test_nothing_is_written_deep_into_a_data_set(
    name: str, option: str, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    root = put("tree", tmp_path / "set")
    before = checksums(tmp_path)
    assert call(name, {option: root}, root / place) == 2
    assert "choose another" in capsys.readouterr().err
    assert checksums(tmp_path) == before


def test_weights_that_no_run_left_are_not_trained_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    put("file", tmp_path / "out" / "model.safetensors")
    before = checksums(tmp_path)
    assert call("train", {"--davis": tmp_path / "nowhere"}, tmp_path / "out") == 2
    assert "no last.pth beside it" in capsys.readouterr().err
    assert checksums(tmp_path) == before


@pytest.mark.parametrize("name", ["notes.txt", "stm.plan", ".git/config", "old/manifest.json"])
def test_a_model_folder_with_more_in_it_is_not_replaced(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    folder = put("model", tmp_path / "stm")
    put("file", folder / name)
    before = checksums(tmp_path)
    assert export(["--method", "stm", "--output", str(folder)]) != 0
    assert "which is no part of the model" in capsys.readouterr().err
    assert checksums(tmp_path) == before
