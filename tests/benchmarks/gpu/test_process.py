"""Steps in processes of their own, and the whole command as one types it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import pytest

from tests.support.models import ROOT
from vos_deploy.benchmarks.gpu import process
from vos_deploy.benchmarks.gpu.journal import Journal
from vos_deploy.benchmarks.gpu.process import in_a_process
from vos_deploy.benchmarks.gpu.steps import Step
from vos_deploy.errors import VosDeployError

SMALL = (
    "gpu", "--size", "64x96", "--objects", "1,2", "--frames", "2", "--long", "8",
    "--resume",
)  # fmt: skip
MODULES = {"cpu": "vos_deploy.benchmarks", "cuda": "tests.support.numpy_gpu"}


def start(engine: str, output: Path, minutes: float) -> subprocess.Popen[str]:
    only = [f"--only={words}" for words in ("facts", f"speed {engine}", "memory")]
    command = [sys.executable, "-m", MODULES[engine], *SMALL, *only, "--engine", engine]
    command += ["--minutes", str(minutes), "--output", str(output)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def rows(output: Path) -> dict[str, int]:
    return {n: len(a.rows) for n, a in Journal(output / "rows.jsonl").read().items()}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["cpu", "cuda"])
def test_killed_resumed_and_out_of_time(tmp_path, engine):
    expected = ["facts", f"speed {engine} shipped", f"memory {engine} shipped"]
    running = start(engine, tmp_path, 5)
    assert running.stdout is not None
    while "speed" not in running.stdout.readline():
        assert running.poll() is None
    running.kill()
    running.communicate()
    found = rows(tmp_path)
    assert list(found) == expected[:2] and found[expected[1]] in (1, 2)
    report = (tmp_path / "report.md").read_text()
    assert "## speed" in report and f"\n- {expected[2]}\n" in report

    started = monotonic()
    resumed = start(engine, tmp_path, 5)
    said, _ = resumed.communicate()
    assert monotonic() - started < 5 * 60
    assert said.count("speed") == 2 and said.count("facts") == 0
    assert list(rows(tmp_path)) == expected
    assert rows(tmp_path)[expected[1]] == 2
    report = (tmp_path / "report.md").read_text()
    assert all(f"## {name.split()[0]}" in report for name in expected)

    # Too little time for any step: it ends at once and says so.
    (tmp_path / "rows.jsonl").unlink()
    ended = start(engine, tmp_path, 0.01)
    said, _ = ended.communicate()
    assert "no time for 3 steps, the next of them: facts" in said
    assert rows(tmp_path) == {}


def python(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """What this process was started with, and what a step is started with."""
    monkeypatch.setattr(process.sys, "orig_argv", ["python", "-c", code])


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os; os.abort()", "exit code -6"),
        ("import time; time.sleep(60)", "stopped after 1 s"),
        ("raise SystemExit('error: no room on the GPU')", "^no room on the GPU"),
        ("import sys; assert sys.argv[1:] != ['--step', 'speed'], 'same'", "AssertionError: same"),
    ],
)
def test_end_of_a_process_is_not_ours(monkeypatch, code, words):
    python(monkeypatch, code)
    with pytest.raises(VosDeployError, match=words):
        in_a_process(Step("speed", lambda: iter([])), 1 if "sleep" in code else 30)


def test_what_a_step_started_ends_with_it(monkeypatch, tmp_path):
    """A compiler, say, of a step that took too long."""
    python(
        monkeypatch,
        "import subprocess, sys, pathlib, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid))\n"
        "time.sleep(60)",
    )
    with pytest.raises(VosDeployError, match="stopped after"):
        in_a_process(Step("speed", lambda: iter([])), 3)
    assert gone(int((tmp_path / "pid").read_text()))


def test_step_ends_with_the_command(tmp_path):
    """Also when the command is killed, which gives it no chance to end the step."""
    step = (
        "import os, pathlib, time\n"
        "from vos_deploy.benchmarks.gpu.process import end_with_parent\n"
        "end_with_parent()\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
        "time.sleep(60)"
    )
    command = (
        "import sys\n"
        "from vos_deploy.benchmarks.gpu.process import in_a_process\n"
        "from vos_deploy.benchmarks.gpu.steps import Step\n"
        f"sys.orig_argv = ['python', '-c', {step!r}]\n"
        "in_a_process(Step('speed', lambda: iter([])), 60)"
    )
    running = subprocess.Popen([sys.executable, "-c", command])
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert running.poll() is None
        sleep(0.05)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert gone(int((tmp_path / "pid").read_text()))


def gone(pid: int) -> bool:
    """Whether a process has ended, or does so soon."""
    end = monotonic() + 20
    while monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        sleep(0.05)
    return False
