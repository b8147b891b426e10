"""A training run that is stopped by Ctrl-C saves, says so, and goes on where it was."""

from __future__ import annotations

import shlex
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.test_training import NARROW, QUICK, train
from vos_deploy.export.cli import parser as export_parser
from vos_deploy.train.cli import main
from vos_deploy.train.interruption import Interruption
from vos_deploy.train.loop import Trainer


def press_at(monkeypatch: pytest.MonkeyPatch, iteration: int) -> None:
    """Ctrl-C within the step after this many."""
    genuine = Trainer.step

    def step(self: Trainer, *arguments: Any) -> dict[str, float]:
        if self.iteration == iteration:
            signal.raise_signal(signal.SIGINT)
        return genuine(self, *arguments)

    monkeypatch.setattr(Trainer, "step", step)


@pytest.mark.parametrize("iteration", [0, 2])
def test_what_is_done_is_saved(
    davis: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    iteration: int,
) -> None:
    whole = train(tmp_path / "whole", davis, 4)
    arguments = [*NARROW, *QUICK, "--davis", str(davis), "--learning-rate", "1e-3", "--output",
                 str(tmp_path / "run"), "--iterations", "4", "--batch", "2"]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        press_at(patch, iteration)
        assert main(arguments) == 130
    printed = capsys.readouterr().err
    assert f"saved at {iteration + 1}; the same command goes on from there" in printed
    assert main(arguments) == 0
    assert f"resumed at iteration {iteration + 1}" in capsys.readouterr().err
    again = torch.load(tmp_path / "run" / "last.pth", weights_only=True)["state_dict"]
    assert all(torch.equal(again[key], value) for key, value in whole.items())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_stops_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), Interruption() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.asked
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), Interruption(enabled=False):
        signal.raise_signal(signal.SIGINT)


def test_what_a_run_says(
    davis: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it does, a line by the tenth step, and at the end how to export it."""
    monkeypatch.setattr("vos_deploy.train.loop.FIRST_LINE", 2)
    output = tmp_path / "my run"
    train(output, davis, 3)
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert [line for line in lines if "looking through the data" in line]
    assert [line for line in lines if "2/3 loss" in line]
    *_, last = printed.out.splitlines()
    command = last.partition("export it with: vos-deploy-export ")[2]
    arguments = export_parser().parse_args(shlex.split(command))
    assert (arguments.method, arguments.checkpoint) == ("stm", output / "model.safetensors")
