"""Commands in messages work when pasted: they are parsed as a shell and the command would."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from vos_deploy.bundle import Bundle, bundled_weights, check_replaceable, demonstration_model
from vos_deploy.errors import VosDeployError
from vos_deploy.export.cli import main as export_main
from vos_deploy.export.cli import parser as export_parser
from vos_deploy.manifest import export_command
from vos_deploy.methods import METHODS
from vos_deploy.runtime.build import build
from vos_deploy.runtime.build import main as build_main
from vos_deploy.runtime.build import parser as build_parser
from vos_deploy.runtime.run.command import main as run_main
from vos_deploy.runtime.run.command import parser as run_parser

PARSERS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    "python -m vos_deploy.export": export_parser,
    "vos-deploy-export": export_parser,
    "vos-deploy-build": build_parser,
    "vos-deploy-run": run_parser,
}


def commands(message: str) -> list[argparse.Namespace]:
    """The commands at the end of a message, parsed."""
    names = "|".join(map(re.escape, PARSERS))
    start = re.search(rf"(?<=: )({names}) ", message)
    assert start, message
    found = []
    for part in message[start.start() :].split(" && "):
        name = next(name for name in PARSERS if part.startswith(name))
        words = shlex.split(part.removeprefix(name))
        found.append(PARSERS[name]().parse_args(words))
    return found


def message_of(path: Path) -> str:
    with pytest.raises(VosDeployError) as caught:
        Bundle.load(path)
    return str(caught.value)


@pytest.fixture(params=["stm", "a model", "it's $HOME"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_no_model(tmp_path: Path, name: str) -> None:
    (export,) = commands(message_of(tmp_path / name))
    assert export.output == tmp_path / name


def test_a_folder_of_something_else(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "holiday.jpg").write_bytes(b"")
    (export,) = commands(message_of(tmp_path / name))
    check_replaceable(export.output)  # or the command would be refused


@pytest.mark.parametrize("manifest", ["{", '{"format": "vos_deploy model"'])
def test_a_damaged_model(tmp_path: Path, name: str, manifest: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "manifest.json").write_text(manifest)
    (export,) = commands(message_of(tmp_path / name))
    check_replaceable(export.output)


def test_no_plan(tmp_path: Path, name: str) -> None:
    plan = tmp_path / f"{name}.plan"
    export, built = commands(message_of(plan))
    assert (built.model, built.output) == (export.output, plan)
    assert built.size  # what is exported without --size takes any, and a plan is for one
    shutil.copytree(demonstration_model(), tmp_path / name)
    (built,) = commands(message_of(plan))
    assert built.size
    plan.write_bytes(b"junk")
    (built,) = commands(message_of(plan))
    assert (built.model, built.output) == (tmp_path / name, plan)


def test_a_plan_of_another_precision_or_size(tmp_path: Path) -> None:
    bundle = Bundle.load(demonstration_model())
    for fixed, arguments in (
        (bundle, {"precision": "fp16"}),
        (replace(bundle, size=(64, 64)), {"size": (480, 854)}),
    ):
        with pytest.raises(VosDeployError) as caught:
            build(fixed, tmp_path / "x.plan", **arguments)  # type: ignore[arg-type]
        assert commands(str(caught.value))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_exported_by_one_command(method: str) -> None:
    arguments = export_parser().parse_args(
        shlex.split(export_command(Path("out"), method).removeprefix("python -m vos_deploy.export"))
    )
    assert (arguments.method, arguments.output) == (method, Path("out"))
    assert arguments.checkpoint or bundled_weights(method).is_file()


@pytest.mark.slow
def test_the_commands_for_a_missing_plan_are_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From nothing to masks by pasting what each message says."""
    pytest.importorskip("torch")
    pytest.importorskip("tensorrt_rtx")
    message = message_of(tmp_path / "model.plan")
    export, build = message.partition("with: ")[2].split(" && ")
    assert export_main(shlex.split(export.removeprefix("python -m vos_deploy.export"))) == 0
    run = re.search(r"vos-deploy-run .*", capsys.readouterr().out)
    assert run
    assert build_main(shlex.split(build.removeprefix("vos-deploy-build"))) == 0
    assert (tmp_path / "model.plan").is_file()
    sample = Path(__file__).parents[1] / "export" / "sample"
    frames, mask = str(sample / "frames"), str(next(sample.glob("*.png")))
    words = [{"VIDEO": frames, "MASK": mask}.get(word, word) for word in shlex.split(run[0])[1:]]
    assert run_main([*words, "--output", str(tmp_path / "out")]) == 0
