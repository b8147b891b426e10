"""The examples of docs/serving.md do what they say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vos_deploy.masks import read_mask
from vos_deploy.runtime.serving.limits import Limits

from .conftest import Served, labels_of

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "demo").symlink_to(ROOT / "demo")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_curl(serve: Callable[..., Served], folder: Path) -> None:
    served = serve()
    lines = [line for line in block("sh").splitlines() if line and not line.startswith("#")]
    lines[0] = f"URL=http://127.0.0.1:{served.port}"
    script = "\n".join(line.replace("curl -s", "curl -s --fail-with-body") for line in lines)
    subprocess.run(["sh", "-ec", script], check=True, timeout=60)
    np.testing.assert_array_equal(labels_of((folder / "00000.png").read_bytes()),
                                  read_mask(ROOT / "demo" / "masks" / "00000.png"))  # fmt: skip
    followed = labels_of((folder / "00001.png").read_bytes())
    found = json.loads((folder / "00001.json").read_text())
    assert (found["index"], found["size"]) == (1, list(followed.shape))
    assert [one["area"] for one in found["objects"]] == [int((followed == 1).sum())]
    assert (labels_of((folder / "marked.png").read_bytes()) == 2).any()
    assert json.loads((folder / "session.json").read_text())["objects"] == [1]


def test_python(
    serve: Callable[..., Served], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served = serve()
    exec(block("python").replace(":8766", f":{served.port}"), {})
    assert capsys.readouterr().out == "[1]\n"


def test_the_limits_are_those_of_the_command() -> None:
    told = dict(re.findall(r"^\| `--([a-z-]+)` \| ([\d.]+)", TEXT, re.MULTILINE))
    for name, value in vars(Limits()).items():
        assert float(told.pop(name.replace("_", "-"))) == value
    assert not told


def test_the_metrics_are_those_that_there_are(client: object) -> None:
    from starlette.testclient import TestClient

    assert isinstance(client, TestClient)
    told = set(re.findall(r"`(vos_deploy_\w+)", TEXT))
    there = set(re.findall(r"^# TYPE (vos_deploy_\w+)", client.get("/metrics").text, re.MULTILINE))
    assert told == {name for name in there if not name.endswith("_created")}
