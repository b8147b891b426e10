"""The page: what is run, what is shown of it, and what is said of the rest."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vos_deploy.benchmarks.cli import main, parser
from vos_deploy.benchmarks.page import plan as plans
from vos_deploy.benchmarks.page.figures import alone
from vos_deploy.benchmarks.page.runs import Outcome, Planned, execute
from vos_deploy.benchmarks.page.sections import sections
from vos_deploy.benchmarks.page.write import as_html, as_markdown
from vos_deploy.bundle import Bundle, demonstration_model
from vos_deploy.extras import install
from vos_deploy.files import sha256

pytest.importorskip("matplotlib", reason="pip install -e '.[report]'")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model whose checkpoint lies in the folder above it."""
    (tmp_path / "weights").mkdir()
    checkpoint = tmp_path / "weights" / "small.pth"
    checkpoint.write_bytes(b"of the model")
    folder = tmp_path / "weights" / "model"
    shutil.copytree(demonstration_model(), folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["checkpoint"] = {"name": checkpoint.name, "sha256": sha256(checkpoint)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def wanted(model: Path, **more: Any) -> plans.Wanted:
    given: dict[str, Any] = {
        **{"models": {"stm": model}, "amount": plans.QUICK},
        **{"clip": None, "binary": True},
        **{
            "checkpoints": [model.parent],
            "peers": {},
            "davis": None,
            "year": 2016,
            "sequences": [],
        },
        **{"size": None, "threads": 2, "pytorch": True, "compile": False},
    }
    return plans.Wanted(**{**given, **more})


def test_every_planned_command_is_understood(tmp_path, model):
    clip = (tmp_path / "frames", tmp_path / "mask.png")
    peers = {"mine": "follow {frames} {mask} {output}"}
    full = wanted(model, davis=tmp_path, clip=clip, peers=peers, compile=True, sequences=["a", "b"])
    planned = plans.plan(full)
    run = [each for each in planned if not each.reason]
    assert {each.section for each in run} >= {
        *(
            plans.ACCURACY,
            plans.OBJECTS,
            plans.FRAMES,
            plans.SIZES,
            plans.MEMORY,
            plans.PARITY,
            plans.STEADY,
        )
    }
    names = [each.of for each in run if each.section == plans.ACCURACY]
    assert names == ["stm", "stm, PyTorch eager", "stm, torch.compile", "mine"]
    for each in run:
        parser().parse_args(list(each.words))


def test_what_is_not_run_has_a_reason(model):
    reasons = {
        (each.section, each.of): each.reason
        for each in plans.plan(wanted(model, pytorch=False, peers={"mine": "x"}))
        if each.reason
    }
    assert reasons[plans.ACCURACY, "stm"] == "there is no data set: --davis"
    assert reasons[plans.ACCURACY, "mine"] == "there is no data set: --davis"
    assert reasons[plans.PARITY, "stm"] == plans.NO_PYTORCH
    assert (plans.GPU, "all models") in reasons


def test_a_checkpoint_is_found_by_its_contents(tmp_path, model):
    bundle = Bundle.load(model)
    (tmp_path / "a.txt").write_text("no checkpoint")
    assert plans.find_checkpoint(bundle, [tmp_path]) is None
    shutil.copy(model.parent / "small.pth", tmp_path / "renamed.pth")
    assert plans.find_checkpoint(bundle, [tmp_path]) == tmp_path / "renamed.pth"


def test_a_benchmark_that_fails_is_a_reason(tmp_path):
    outcome = execute(Planned(plans.MEMORY, "x", ("memory", "--model", "nowhere")), tmp_path)
    assert not outcome.data and outcome.reason.startswith("no model at nowhere")


# What the benchmarks print, in short.
FPS = [
    {"Objects": k, "Memory": 5, "Stage": stage, "exported mean ms": ms * k, "PyTorch mean ms": ms}
    for k in (1, 3)
    for stage, ms in (("encoder", 10.0), ("decoder", 5.0), ("step", 17.0))
]
PARITY = [
    {
        **{"frame": frame, "smallest IoU": iou, "pixels differing": 0.001},
        **{"probability max": 0.1, "probability mean": 0.0},
    }
    for frame, iou in ((1, 0.99), (2, 0.97))
]
STEADY = [{"line": "a.py:1 labels", "what": "allocates", "MB at most": 2.07, "source": "x < y"}]
GRAPHS = [{"graph": "encoder", "MB written by nodes": "34.5", "grown, MB": "0.0"}]
JF = {"J&F-Mean": 0.773, "J-Mean": 0.7, "F-Mean": 0.846, "FPS": 20.0, "CPU ms": 40.0}


@pytest.fixture
def outcomes(tmp_path: Path) -> list[Outcome]:
    picture = tmp_path / "worst_00002.png"
    Image.fromarray(np.zeros((4, 12, 3), np.uint8)).save(picture)
    facts = {"size": "240x432", "data": "DAVIS", "timed": "step", "precision": "fp32"}
    memory = [{"frame": 10 * i, "resident MiB": 300.0 + i, "memory frames": 5} for i in (1, 2, 3)]
    held = {"growth after the first quarter": "+0.67%", "held": "5 frames"}
    return [
        Outcome(
            Planned(plans.ACCURACY, "a<b", ("jf", "--x")), {"scores": [JF], "conditions": facts}
        ),
        Outcome(Planned(plans.ACCURACY, "mine", reason="why not"), reason="why not"),
        *(
            Outcome(Planned(kind, "a<b", ("fps",)), {"timings": FPS, "conditions": facts})
            for kind in (plans.OBJECTS, plans.FRAMES, plans.SIZES)
        ),
        Outcome(Planned(plans.MEMORY, "a<b", ("memory",)), {"rows": memory, "conditions": held}),
        Outcome(Planned(plans.STEADY, "a<b", ("steady",)), {"rows": STEADY, "graphs": GRAPHS}),
        Outcome(Planned(plans.STEADY, "clean", ("steady",)), {"rows": [], "graphs": []}),
        Outcome(
            Planned(plans.PARITY, "a<b", ("parity",)),
            {"frames": PARITY, "passed": True, "conditions": facts},
            pictures=(picture,),
        ),
    ]


class Page(HTMLParser):
    """Tags that are open, ids, and what lies elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.elsewhere: list[str] = []
        self.counts: dict[str, int] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        if tag not in ("meta", "img"):
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(str(value))
            if name in ("src", "href") and not str(value).startswith("data:"):
                self.elsewhere.append(str(value))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag in self.open:
            self.open.remove(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_no_other_file(outcomes):
    page = Page()
    page.feed(text := as_html("Title", "About.", sections(outcomes), {"cpu": "<fast>"}))
    page.close()
    assert not page.open and not page.elsewhere
    assert len(page.ids) == len(set(page.ids))
    assert (page.counts["svg"], page.counts["img"]) == (7, 1)
    assert "a&lt;b, frame 2: IoU 0.9700" in text
    assert "<fast>" not in text
    assert "Not run: mine: why not." in text
    for command in ("jf --x", "fps", "memory", "parity"):
        assert f"<pre>python -m vos_deploy.benchmarks {command}</pre>" in text


def test_the_figures_are_those_of_the_commands(outcomes):
    text = as_markdown("Title", "About.", sections(outcomes), {"cpu": "fast"})
    assert "| a<b | 77.3 | 70.0 | 84.6 | 50.0 | 40.0 | fp32 | DAVIS | step |" in text
    assert "| a<b | 10.0 | 5.0 | 2.0 |" in text
    assert "| a<b | 3 | 51.0 | 17.0 |" in text  # of three objects
    assert "| a<b | 30 | 303 | +0.67% | 5 frames |" in text
    assert "| a<b | 2 | 0.9700 | 0.00100 | 0.10000 | yes |" in text
    assert "- mine: why not" in text
    assert "| a<b | a.py:1 labels | allocates | 2.07 |" in text
    assert "| clean | nothing of that size |" in text
    assert "| a<b | encoder | 34.5 | 0.0 |" in text


def test_a_page_of_nothing():
    text = as_html("Title", "About.", sections([]), {})
    assert "<svg" not in text and "Parity with PyTorch" in text


def here(planned: Planned, scratch: Path) -> Outcome:
    """`execute` without the seconds that a process takes to start."""
    if planned.reason:
        return Outcome(planned, reason=planned.reason)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main([*planned.words, "--json"]) in (0, 1)
    return Outcome(planned, json.loads(printed.getvalue()), seconds=1)


def test_from_the_command_line(tmp_path, model, monkeypatch, capsys):
    """With as little as is possible of the real benchmarks."""
    least = plans.Amount("1", "1", ("32x48",), 1, 8, 2, 1, 7)
    monkeypatch.setattr("vos_deploy.benchmarks.page.command.QUICK", least)
    monkeypatch.setattr("vos_deploy.benchmarks.page.command.execute", here)
    out = tmp_path / "report"
    assert main(["report", "--quick", "--no-pytorch", "--threads", "1", "--output", str(out)]) == 0
    assert "One model, 5 benchmarks; 3 were not run" in capsys.readouterr().out
    found = json.loads((out / "report.json").read_text())
    states = {(each["section"], each["of"]): each["reason"] for each in found["outcomes"]}
    shipped = demonstration_model().name
    assert states[plans.OBJECTS, shipped] == "" and states[plans.MEMORY, shipped] == ""
    assert (out / "report.html").read_text().count("<svg") == 5
    assert plans.plan(wanted(model))[-1].reason in (out / "report.html").read_text()
    command = "python -m vos_deploy.benchmarks memory --threads 1 --size 32x48 --frames 8"
    assert command in (out / "report.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nowhere"], "no model at nowhere"),
        (["--video", "frames"], "--video and --mask belong together"),
        (["--peer", "mine=follow"], "is missing in 'follow'"),
        (["--peer", "mine"], "must be NAME=COMMAND, got 'mine'"),
        (["--davis", "nowhere"], "expected a DAVIS folder"),
    ],
)
def test_refused_before_anything_runs(tmp_path, capsys, arguments, message):
    assert main(["report", "--output", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_matplotlib(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["report"]) == 2
    assert f"figures need: {install('report')}" in capsys.readouterr().err


def test_one_section_alone(outcomes):
    (section,) = sections(outcomes, [plans.ACCURACY])
    assert section.title == "Accuracy against time"
    page = Page()
    page.feed(text := alone(section.drawn[0]))
    page.close()
    assert text.startswith("<svg ") and 'xmlns="http://www.w3.org/2000/svg"' in text
    assert text.index('fill="white"') < text.index("<g")
    assert page.counts["svg"] == 1 and not page.open


def test_only_a_section_is_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("vos_deploy.benchmarks.page.command.execute", here)
    out = tmp_path / "report"
    assert main(["report", "--only", plans.ACCURACY, "--no-pytorch", "--output", str(out)]) == 0
    found = json.loads((out / "report.json").read_text())["outcomes"]
    assert {each["section"] for each in found} == {plans.ACCURACY}
    assert "Where the time goes" not in (out / "report.html").read_text()
    assert not (out / "accuracy.svg").exists()  # there is no data set
