"""The loop: it learns, it resumes exactly, two processes are one."""

from __future__ import annotations

import logging
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vos_deploy.models import create, load_checkpoint
from vos_deploy.models.imagenet import load_imagenet
from vos_deploy.models.resnet import BACKBONES, Trunk
from vos_deploy.train.cli import main
from vos_deploy.train.loop import Trainer, picture
from vos_deploy.train.methods.stm.task import STMTask
from vos_deploy.train.processes import random_state, restore_random_state
from vos_deploy.train.schedule import Step
from vos_deploy.train.task import Batch, Losses

NARROW = ["--backbone", "resnet10", "--key-dim", "8", "--value-dim", "16", "--decoder-width", "8"]
QUICK = ["--crop", "64", "--objects", "1", "--workers", "0", "--threads", "1", "--skip", "0", "1",
         "--pictures-every", "0"]  # fmt: skip


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


@pytest.fixture
def noisy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that draws from every global generator, as dropout or Gumbel noise would."""
    genuine = STMTask.forward

    def forward(self: STMTask, batch: Batch, step: Step) -> Losses:
        noise = 1 + torch.rand(()) + np.random.random() + random.random()  # noqa: NPY002
        losses = genuine(self, batch, step)
        return {**losses, "loss": losses["loss"] * noise}

    monkeypatch.setattr(STMTask, "forward", forward)


class Stop(Exception):
    pass


def stopped_after_saving(output: Path, davis: Path, iterations: int, *options: str) -> None:
    """A run that ends with its first checkpoint."""
    genuine = Trainer.save

    def stop(self: Trainer) -> None:
        genuine(self)
        raise Stop

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stop):
        patch.setattr(Trainer, "save", stop)
        train(output, davis, iterations, *options)


def test_resumed_run_ends_where_the_uninterrupted_one_does(
    davis: Path, tmp_path: Path, noisy: None
) -> None:
    options = ("--schedule", "cosine", "--average", "0.9", "--save-every", "2", "--amsgrad")
    np.random.seed(5), random.seed(5)  # noqa: NPY002
    whole = train(tmp_path / "whole", davis, 4, *options)
    np.random.seed(5), random.seed(5)  # noqa: NPY002
    stopped = tmp_path / "stopped"
    stopped_after_saving(stopped, davis, 4, *options)
    assert torch.load(stopped / "last.pth", weights_only=True)["iteration"] == 2
    np.random.seed(6), random.seed(6)  # noqa: NPY002
    # The same command goes on.
    resumed = train(stopped, davis, 4, *options)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    averaged = [
        load_checkpoint(f / "model.safetensors").state_dict for f in (tmp_path / "whole", stopped)
    ]
    assert all(torch.equal(averaged[0][key], averaged[1][key]) for key in averaged[0])


def test_random_state_of_every_generator_is_kept() -> None:
    def draw() -> tuple[float, float, float]:
        return float(torch.randn(())), float(np.random.normal()), random.gauss()  # noqa: NPY002

    draw()  # NumPy and Python keep every second normal number
    state = random_state()
    expected = [draw() for _ in range(3)]
    restore_random_state(state)
    assert [draw() for _ in range(3)] == expected


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
    state = torch.load(tmp_path / "two/last.pth", weights_only=True)
    assert len(state["random"]) == 2  # of each process
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
    run = ["--iterations", "2", "--output", str(tmp_path / "run")]
    wide = ["--davis", str(davis), *QUICK, "--backbone", "resnet18", "--key-dim", "16"]
    assert main([*wide, *run]) == 2
    assert "belongs to another run (its network differs)" in capsys.readouterr().err
    assert main([*NARROW, *QUICK, "--stage", "main", "--davis", str(davis), *run]) == 2
    assert "belongs to another run (it is from stm, stage mixed)" in capsys.readouterr().err
    (tmp_path / "run/last.pth").write_bytes(b"cut short")
    assert main([*NARROW, *QUICK, "--davis", str(davis), *run]) == 2
    assert "belongs to another run" in capsys.readouterr().err


def test_a_run_that_goes_on_with_other_options_says_so(
    davis: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "run", davis, 1)
    train(tmp_path / "run", davis, 2, "--learning-rate", "1e-4", "--save-every", "7")
    printed = capsys.readouterr().err
    assert "resumes with different options: iterations was 1; learning_rate was 0.001" in printed
    assert "save_every" not in printed


def test_output_of_a_run(
    davis: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log has scalars and pictures, the line says how long still, the options are kept."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr("vos_deploy.train.loop.LINE_EVERY", 2)
    output = tmp_path / "run"
    train(output, davis, 3, "--pictures-every", "2", "--accumulate", "2", "--half")
    log = EventAccumulator(str(output), size_guidance={"images": 0})
    log.Reload()
    assert {"loss", "rate"} <= set(log.Tags()["scalars"])
    assert [event.step for event in log.Images("clip")] == [1, 3]
    assert (log.Images("clip")[0].width, log.Images("clip")[0].height) == (3 * 64, 64)
    line = next(x for x in capsys.readouterr().err.splitlines() if "2/3 loss" in x)
    assert "clips/s" in line and "0 h 00 min left" in line
    assert "davis = " in (output / "options.toml").read_text()
    # The configuration that is kept starts the same run, here already at its end.
    assert main(["--config", str(output / "options.toml")]) == 0
    checkpoint = load_checkpoint(output / "model.safetensors")
    assert checkpoint.metadata["iteration"] == 3 and checkpoint.metadata["stage"] == "mixed"
    half = (output / "model.safetensors").stat().st_size
    train(tmp_path / "full", davis, 0)
    assert half < 0.6 * (tmp_path / "full/model.safetensors").stat().st_size


def test_epochs_become_iterations(
    davis: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two videos, three times each, twice: 12 clips, two a step."""
    train(tmp_path / "run", davis, 99, "--epochs", "2", "--repeat", "davis=3", "--batch", "4")
    assert torch.load(tmp_path / "run/last.pth", weights_only=True)["iteration"] == 3
    assert "3 iterations, 2.0 epochs of 6 clips" in capsys.readouterr().err


def test_bad_files_are_listed_beside_the_checkpoints(
    stills: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "set"
    shutil.copytree(stills, root)
    for number in range(4):
        (root / f"image/{number}.jpg").write_bytes(b"no picture")
    Image.fromarray(np.full((96, 128), 255, np.uint8)).save(root / "mask/alone.png")
    arguments = ["--stills", str(root), "--output", str(tmp_path / "run"), "--iterations", "2"]
    with caplog.at_level(logging.WARNING):
        assert main([*NARROW, *QUICK, "--batch", "2", "--workers", "1", *arguments]) == 0
    lines = (tmp_path / "run/bad_files.txt").read_text().splitlines()
    assert f"mask without a picture\t{root / 'mask/alone.png'}" in lines
    broken = [line for line in lines if line.startswith("image missing or damaged\t")]
    assert 1 <= len(broken) <= 4


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_set_where_everything_is_bad_ends_with_a_sentence(
    workers: str, stills: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "set"
    shutil.copytree(stills, root)
    for path in (root / "image").iterdir():
        path.write_bytes(b"no picture")
    arguments = ["--stills", str(root), "--output", str(tmp_path / "run"), "--iterations", "2"]
    assert main([*NARROW, *QUICK, *arguments, "--workers", workers]) == 2
    printed = capsys.readouterr().err
    assert f"error: {root}: 100 draws gave no clip" in printed and "Traceback" not in printed


def test_weight_decay_of_a_group_and_frozen_parameters(
    davis: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task says which parameters decay: here only the decoder's last layer does not."""

    def groups(self: STMTask) -> list[dict[str, object]]:
        last = list(self.model.Decoder.pred2.parameters())
        rest = [p for p in self.model.parameters() if all(p is not q for q in last)]
        return [{"params": rest}, {"params": last, "weight_decay": 0.0}]

    monkeypatch.setattr(STMTask, "parameter_groups", groups)
    train(tmp_path / "run", davis, 1, "--weight-decay", "0.1")
    state = torch.load(tmp_path / "run/last.pth", weights_only=True)["optimizer"]
    assert [group["weight_decay"] for group in state["param_groups"]] == [0.1, 0.0]


def test_mixed_precision(davis: Path, tmp_path: Path) -> None:
    """The first loss is that of single precision; the scaler of fp16 is kept for going on."""
    for amp in ("none", "bf16", "fp16"):
        train(tmp_path / amp, davis, 2, "--amp", amp)
    first = [losses(tmp_path / amp)[0] for amp in ("none", "bf16", "fp16")]
    assert first[1] == pytest.approx(first[0], rel=0.02)
    assert first[2] == pytest.approx(first[0], rel=0.005)
    scalers = [torch.load(tmp_path / f"{amp}/last.pth", weights_only=True)["scaler"]
               for amp in ("none", "fp16")]  # fmt: skip
    assert scalers[0] == {} and scalers[1]["scale"] > 0


def test_picture_of_a_clip() -> None:
    labels = torch.zeros(2, 4, 5, dtype=torch.int64)
    labels[1] = 1
    image = picture(torch.ones(2, 3, 4, 5), labels)
    assert image.shape == (4, 10, 3) and image.dtype == np.uint8
    assert (image[:, :5] == 255).all() and (image[:, 5:] != 255).any()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--crop", "100"], "must be a multiple of 16"),
        (
            ["--batch", "3", "--accumulate", "2", "--davis", "nowhere"],
            "--batch must be a multiple of --accumulate 2, got 3",
        ),
        ([], "no training data"),
        (["--davis", "nowhere"], "no JPEGImages and Annotations"),
        (["--stills", "nowhere"], "no folder at nowhere"),
        (["--davis", "nowhere", "--reverse", "2"], "reverse must be at most 1, got 2.0"),
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
