"""The README's examples do what it says."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import vos_deploy

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    lines = [
        line.split("  #")[0].strip()
        for page in PAGES
        for block in blocks(page, "")
        for line in block.replace("\\\n", " ").splitlines()
    ]
    return [line for line in lines if line.startswith(("vos-deploy-", "python -m vos_deploy."))]


def test_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    mask = vos_deploy.read_mask(ROOT / "demo" / "masks" / "00000.png")
    vos_deploy.write_mask("first.png", mask)
    with (
        vos_deploy.open_source(ROOT / "demo" / "frames") as frames,
        vos_deploy.VideoWriter("in.mp4", 25) as writer,
    ):
        for frame in itertools.islice(frames, 3):
            writer.write(frame)
    (example,) = blocks(ROOT / "README.md", "python")
    exec(example, {})
    written = sorted(Path("out/masks").iterdir())
    assert [path.name for path in written] == ["00000.png", "00001.png", "00002.png"]
    # The first labels are the mask itself.
    np.testing.assert_array_equal(vos_deploy.read_mask(written[0]), mask)
    # The horse of the third frame is of the same size, some pixels on.
    last = vos_deploy.read_mask(written[2]) > 0
    assert 0.75 < last.sum() / (mask > 0).sum() < 1.25
    moved = np.argwhere(last).mean(0) - np.argwhere(mask).mean(0)
    assert np.abs(moved).max() < 40


def test_example_of_a_live_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    vos_deploy.write_mask("first.png", vos_deploy.read_mask(ROOT / "demo" / "masks" / "00000.png"))
    with (
        vos_deploy.open_source(ROOT / "demo" / "frames") as frames,
        vos_deploy.VideoWriter("in.mp4", 25) as writer,
    ):
        for frame in itertools.islice(frames, 2):
            writer.write(frame)
    (example,) = blocks(ROOT / "docs" / "live.md", "python")
    exec(example, names := {})
    live = names["follower"].live
    assert live.captured == live.followed + live.dropped == 2


@pytest.mark.parametrize("command", commands())
def test_command_lines_are_understood(command: str) -> None:
    program, *arguments = shlex.split(command)
    if program == "python":
        program = arguments[1].removeprefix("vos_deploy.")
        arguments = arguments[2:]
    if program in ("export", "train", "train.data"):
        pytest.importorskip("torch")
    if program == "vos-deploy-run":
        from vos_deploy.runtime.run.command import parser
    elif program == "vos-deploy-convert":
        from vos_deploy.formats.command import parser
    elif program == "vos-deploy-serve":
        from vos_deploy.runtime.serving.command import parser
    elif program == "vos-deploy-build":
        from vos_deploy.runtime.build import parser
    elif program == "export":
        from vos_deploy.export.cli import parser
    elif program == "train":
        # The options there are depend on the method.
        from vos_deploy.train.cli import parser

        parser(arguments).parse_args([a for a in arguments if a != "..."])
        return
    elif program == "train.data":
        from vos_deploy.train.data.check import parser
    else:
        assert program == "benchmarks", command
        from vos_deploy.benchmarks.cli import parser
    parser().parse_args([a for a in arguments if a != "..."])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_exist(page: Path) -> None:
    """Files and folders of this repository that a page names in backticks."""
    tops = "vos_deploy|export|runtime|train|benchmarks|tests|docs|demo"
    for name in re.findall(rf"`((?:{tops})/[\w./]*)`", page.read_text()):
        # "..." and NAME stand for any.
        assert (ROOT / name.split("NAME")[0].split("...")[0]).exists(), name
