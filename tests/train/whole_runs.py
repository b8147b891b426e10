"""Checks of whole runs, for every method: the loss falls, a run resumes, two processes are one."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.train.test_training import losses
from vos_deploy.models import load_checkpoint
from vos_deploy.train.cli import main
from vos_deploy.train.loop import Trainer


def run(arguments: list[str], output: Path) -> dict[str, Tensor]:
    assert main([*arguments, "--output", str(output)]) == 0
    return load_checkpoint(output / "last.pth").state_dict


def falls(arguments: list[str], output: Path, fewest: float) -> None:
    """The mean loss of the last steps lies below `fewest` times that of the first: of a quarter of
    the steps, and no less than three."""
    run(arguments, output)
    trace = losses(output)
    assert all(math.isfinite(value) for value in trace)
    part = max(3, len(trace) // 4)
    assert sum(trace[-part:]) < fewest * sum(trace[:part]), trace


class Stop(Exception):
    pass


def resumes(arguments: list[str], folder: Path) -> None:
    """A run of three steps ends with the weights of one that was stopped after the second."""
    arguments = [*arguments, "--iterations", "3", "--save-every", "2"]
    whole = run(arguments, folder / "whole")
    genuine = Trainer.save

    def stop(self: Trainer) -> None:
        genuine(self)
        raise Stop

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(Trainer, "save", stop)
        run(arguments, folder / "stopped")
    assert torch.load(folder / "stopped/last.pth", weights_only=True)["iteration"] == 2
    resumed = run(arguments, folder / "stopped")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def first_gradients(output: Path) -> list[Tensor]:
    """Those of a run's first step: what Adam's first moments hold, up to a factor."""
    state = torch.load(output / "last.pth", weights_only=True)["optimizer"]["state"]
    return [state[index]["exp_avg"] for index in sorted(state)]


def two_processes_are_one(arguments: list[str], folder: Path) -> None:
    """Two processes of one clip each have the gradients of one with both."""
    arguments = [*arguments, "--iterations", "1"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    two = ["--batch", "1", "--output", str(folder / "two")]
    command = [*torchrun, "-m", "vos_deploy.train", *arguments, *two]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300)
    run([*arguments, "--batch", "2"], folder / "one")
    pairs = [first_gradients(folder / name) for name in ("one", "two")]
    assert len(pairs[0]) == len(pairs[1]) > 0
    largest = max(gradient.abs().max() for gradient in pairs[0])
    for one, other in zip(*pairs, strict=True):
        assert (one - other).abs().max() < 1e-3 * one.abs().max() + 1e-6 * largest
