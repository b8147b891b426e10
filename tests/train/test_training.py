"""The loop: it learns, it resumes exactly, two processes are one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vos_deploy.models import create, load_checkpoint
from vos_deploy.models.imagenet import load_imagenet
from vos_deploy.models.resnet import BACKBONES, Trunk
from vos_deploy.train.cli import main

NARROW = ["--backbone", "resnet18", "--key-dim", "8", "--value-dim", "16", "--decoder-width", "8"]
QUICK = ["--crop", "64", "--objects", "1", "--workers", "0", "--threads", "1", "--skip", "0", "1"]


def train(output: Path, davis: Path, iterations: int, *more: str) -> dict[str, torch.Tensor]:
    arguments = [*NARROW, *QUICK, "--davis", str(davis), "--learning-rate", "1e-3", "--output",
                 str(output), "--iterations", str(iterations), "--batch", "2", *more]  # fmt: skip
    assert main(arguments) == 0
    return load_checkpoint(output / "last.pth").state_dict


def losses(output: Path) -> list[float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(output))
    log.Reload()
    return [event.value for event in log.Scalars("loss")]


def test_loss_falls(davis: Path, tmp_path: Path) -> None:
    train(tmp_path / "run", davis, 30, "--loss", "both")
    trace = losses(tmp_path / "run")
    assert len(trace) == 30
    assert sum(trace[-5:]) < 0.8 * sum(trace[:5])


def test_resumed_run_ends_where_the_uninterrupted_one_does(davis: Path, tmp_path: Path) -> None:
    options = ("--schedule", "cosine", "--average", "0.9", "--save-every", "3")
    whole = train(tmp_path / "whole", davis, 6, *options)
    # Stopped after three of six: the same command goes on.
    stopped = tmp_path / "stopped"
    import vos_deploy.train.loop as loop

    class Stop(Exception):
        pass

    genuine = loop.Trainer.save

    def stop_after_saving(self: loop.Trainer) -> None:
        genuine(self)
        raise Stop

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(loop.Trainer, "save", stop_after_saving)
        train(stopped, davis, 6, *options)
    assert torch.load(stopped / "last.pth", weights_only=True)["iteration"] == 3
    resumed = train(stopped, davis, 6, *options)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    averaged = [
        load_checkpoint(f / "model.safetensors").state_dict for f in (tmp_path / "whole", stopped)
    ]
    assert all(torch.equal(averaged[0][key], averaged[1][key]) for key in averaged[0])


def test_accumulated_pieces_are_one_batch(davis: Path, tmp_path: Path) -> None:
    one = train(tmp_path / "one", davis, 1)
    pieces = train(tmp_path / "pieces", davis, 1, "--accumulate", "2")
    name = "Decoder.pred2.weight"
    # Adam's first step is its learning rate whatever the gradient: signs tell.
    assert (one[name] - pieces[name]).abs().max() < 1e-4


@pytest.mark.slow
def test_two_processes_give_the_gradients_of_one(davis: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    options = ["--davis", str(davis), "--learning-rate", "1e-3", "--iterations", "2"]
    output = ["--batch", "1", "--output", str(tmp_path / "two")]
    command = [*torchrun, "-m", "vos_deploy.train", *NARROW, *QUICK, *options, *output]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300)
    two = load_checkpoint(tmp_path / "two/last.pth").state_dict
    one = train(tmp_path / "one", davis, 2)
    for key in one:
        assert (one[key] - two[key]).abs().max() < 2e-4, key


def test_frozen_parameters_stay(davis: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = train(tmp_path / "run", davis, 2, "--freeze", "Encoder_Q.conv1,Encoder_Q.res2")
    again = train(tmp_path / "none", davis, 0, "--freeze", "Encoder_Q.conv1,Encoder_Q.res2")
    frozen = ("Encoder_Q.conv1", "Encoder_Q.res2")
    for key, value in state.items():
        if key.startswith(frozen):
            assert torch.equal(value, again[key])
    assert not torch.equal(
        state["Encoder_Q.res4.0.conv1.weight"], again["Encoder_Q.res4.0.conv1.weight"]
    )


def test_other_options_do_not_continue_a_run(
    davis: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "run", davis, 1)
    wide = ["--davis", str(davis), *QUICK, "--backbone", "resnet18", "--key-dim", "16"]
    assert main([*wide, "--iterations", "2", "--output", str(tmp_path / "run")]) == 2
    assert "does not continue this run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--crop", "100"], "multiple of 16"),
        (["--batch", "3", "--accumulate", "2"], "cannot be taken in"),
        ([], "no training data"),
        (["--davis", "nowhere"], "no JPEGImages and Annotations"),
    ],
)
def test_wrong_usage_is_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*NARROW, *arguments]) == 2
    assert sentence in capsys.readouterr().err


def test_folded_imagenet_weights_compute_the_same(tmp_path: Path) -> None:
    """A torchvision state dict and its folded form give one and the same trunk."""
    from safetensors.torch import save_file

    torch.manual_seed(0)
    source = Trunk(BACKBONES["resnet18"]).eval()
    for module in source.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 2)
            module.bias.data.normal_()
    names = {"res2": "layer1", "res3": "layer2", "res4": "layer3"}
    plain, folded = {}, {}
    for key, value in source.state_dict().items():
        first, _, rest = key.partition(".")
        plain[f"{names.get(first, first)}.{rest}"] = value.contiguous()
    for key, value in plain.items():
        if key.endswith(("conv1.weight", "conv2.weight", "downsample.0.weight")):
            conv = key.removesuffix(".weight")
            norm = conv[:-1] + "1" if conv.endswith("downsample.0") else conv.replace("conv", "bn")
            scale = plain[f"{norm}.weight"] / (plain[f"{norm}.running_var"] + 1e-5).sqrt()
            folded[key] = (value * scale[:, None, None, None]).contiguous()
            folded[f"{conv}.bias"] = plain[f"{norm}.bias"] - plain[f"{norm}.running_mean"] * scale
    image = torch.rand(1, 3, 64, 64)
    expected = source.stages(source.conv1(image))
    for name, state in (("plain", plain), ("folded", folded)):
        save_file(state, tmp_path / f"{name}.safetensors")
        trunk = Trunk(BACKBONES["resnet18"]).eval()
        load_imagenet(trunk, tmp_path / f"{name}.safetensors")
        for found, wanted in zip(trunk.stages(trunk.conv1(image)), expected, strict=True):
            assert (found - wanted).abs().max() < 1e-4 * wanted.abs().max(), name


def test_create_starts_in_eval_mode() -> None:
    assert not create("stm", backbone="resnet18").training
