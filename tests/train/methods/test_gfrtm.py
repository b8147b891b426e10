from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.support.golden import SHARED, needs_shared
from tests.train.whole_runs import falls, resumes, run, two_processes_are_one
from vos_deploy.errors import InputError, ModelError
from vos_deploy.models.gfrtm.network import GFRTM
from vos_deploy.reference.gfrtm import GFRTMReference
from vos_deploy.runtime.trackers.gfrtm.target import initial_weights
from vos_deploy.runtime.trackers.gfrtm.target.augment import augment
from vos_deploy.train.data.files import BadFiles
from vos_deploy.train.data.mixture import build_clips, collate
from vos_deploy.train.losses import margin_mse, mask_bce
from vos_deploy.train.methods.gfrtm.stages import GFRTMOptions
from vos_deploy.train.methods.gfrtm.task import GFRTMTask
from vos_deploy.train.schedule import Step

OPTIONS = GFRTMOptions(
    crop="64x96", objects=1, frames=4, per_object=True, order="random", reverse=0.0,
    video_augmentation="whole", target_channels=4, target_iterations=(3, 3), target_update=(2,),
    target_memory=3, target_augment=2,
)  # fmt: skip
START = Step(0, 10)


def task_and_batch(
    davis: Path, imagenet: Path, **changes: Any
) -> tuple[GFRTMTask, dict[str, Tensor]]:
    options = replace(OPTIONS, davis=(davis,), imagenet=imagenet, **changes)
    torch.manual_seed(0)
    task = GFRTMTask.build(options)
    for name, parameter in task.model.named_parameters():
        parameter.requires_grad = not task.frozen(name)
    clips = build_clips(options, BadFiles())
    clips.total = 10
    return task, collate([clips[0], clips[1]]).tensors


class ScriptedGate:
    """Chooses for all objects what is asked for, frame by frame; the rest is the network's."""

    def __init__(self, model: GFRTM, script: str) -> None:
        self.genuine, self.script, self.frame = partial(GFRTM.gate, model), script, 0

    def __call__(self, match: Tensor, score: Tensor, template: Tensor) -> tuple[Tensor, Tensor]:
        logits, change = self.genuine(match, score, template)
        towards = torch.tensor([5.0, -5.0] if self.script[self.frame] == "r" else [-5.0, 5.0])
        self.frame += 1
        return logits * 0.01 + towards, change


def scripted(monkeypatch: pytest.MonkeyPatch, task: GFRTMTask, script: str) -> None:
    monkeypatch.setattr(task.model, "gate", ScriptedGate(task.model, script), raising=False)


@pytest.mark.parametrize("script", ["ccc", "rcr", "crr"])
def test_clips_are_segmented_as_by_the_runtime(
    script: str, davis: Path, imagenet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clip by clip, with the same target models; without updates, which training has none of."""
    task, batch = task_and_batch(davis, imagenet)
    scripted(monkeypatch, task, script)
    with torch.no_grad():
        found = [predicted.logits for predicted, _ in task.unroll(batch)]
    for clip in (0, 1):
        scripted(monkeypatch, task, script)
        reference = GFRTMReference(task.model, reuse_threshold=0.5, update_every=1000)
        reference._schedule = task.targets.schedule
        reference.draw_weights = lambda i, c, m: initial_weights(i, c, OPTIONS.target_channels)
        reference.augment = partial(augment, painted=OPTIONS.target_augment - 1)
        for t, frame in enumerate(batch["frames"][clip]):
            image = (frame.permute(1, 2, 0) * 255).round().byte().numpy()
            mask = batch["masks"][clip, 0, 0].byte().numpy() if t == 0 else None
            reference.step(image, mask)
            if t:
                assert (found[t - 1][clip, 0] - reference.logits[0]).abs().max() < 1e-4
        assert len(found) == t == 3


@pytest.mark.parametrize("match_test", [True, False])
def test_what_is_kept_of_a_frame(
    match_test: bool, davis: Path, imagenet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The release keeps the old deep half where it computes, and starts from smooth masks."""
    task, batch = task_and_batch(davis, imagenet, match_test=match_test)
    scripted(monkeypatch, task, "crr")
    mask = batch["masks"][:, 0]
    with torch.no_grad():
        states = [state for _, state in task.unroll(batch)]
        first, computed, reused = states
        nearest = F.interpolate(mask, (4, 6), mode="nearest")
        smooth = F.interpolate(mask, (4, 6), mode="bilinear")
        assert torch.equal(first.reference, nearest if match_test else smooth)
        decoded = task.decode_deep(computed.score, computed.layer4, computed.layer5)
    assert torch.equal(computed.reference, computed.score)
    assert not torch.equal(computed.score, first.score)
    assert (computed.deep - (decoded if match_test else first.deep)).abs().max() < 1e-5
    # Nothing was computed since, so the deep half is that of the frame before.
    assert torch.equal(reused.layer4, computed.layer4)
    assert torch.equal(reused.mask, batch["masks"][:, 1])
    assert (reused.deep - decoded).abs().max() < 1e-5


def test_losses_are_those_of_every_frame(davis: Path, imagenet: Path) -> None:
    task, batch = task_and_batch(davis, imagenet, gate_m2=0.1)
    batch["labels"][:, 2, :10] = 255
    with torch.no_grad():
        losses = task(batch, START)
        mask = change = gate = 0.0
        for t, (predicted, before) in enumerate(task.unroll(batch), start=1):
            truth, rows = batch["masks"][:, t], slice(10 if t == 2 else 0, None)
            mask += mask_bce(predicted.logits[:, :, rows], truth[:, :, rows]).item() / 3
            small = F.interpolate(truth, (4, 6), mode="bilinear")
            change += (predicted.change - (small - before.reference)).square().mean().item() / 3
            likeness = task.taught(before.mask, truth, START)
            target = torch.stack([likeness, 1 - likeness], 1)
            gate += margin_mse(predicted.gate, target, 0.1).item() / 3
    found = [losses[name].item() for name in ("mask", "change", "gate")]
    assert found == pytest.approx([mask, change, gate], rel=1e-5)
    assert losses["loss"].item() == pytest.approx(mask + change + gate, rel=1e-5)


def test_gate_is_taught_the_likeness_of_the_masks(davis: Path, imagenet: Path) -> None:
    task, _ = task_and_batch(davis, imagenet)
    before, now = torch.zeros(2, 3, 1, 4, 4)
    before[0, :, :2], now[0, :, 1:2] = 1, 1  # 4 of 8 pixels
    before[1, :, :2] = 1
    middle = Step(30, 100, 200.0)  # epoch 60 of the 120 over which the clamp rises
    assert task.taught(before, now, middle).tolist() == [0.5, 0, 0]
    task, _ = task_and_batch(davis, imagenet, clamp_gate=True, gate_m1=0.8)
    assert task.taught(before, now, middle).tolist() == pytest.approx([0.5, 0.4, 0.4])
    late = Step(90, 100, 200.0)
    assert task.taught(before, now, late).tolist() == pytest.approx([0.8, 0.8, 0.8])


@pytest.mark.parametrize("script", ["ccc", "rrr"])
def test_gradients(
    script: str, davis: Path, imagenet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mask's loss alone reaches the gate through the choice that it did not make, and the deep
    half through that which it made; trunk and norms stay."""
    task, batch = task_and_batch(davis, imagenet)
    task.train()
    scripted(monkeypatch, task, script)
    sum(mask_bce(p.logits, batch["masks"][:, 1]) for p, _ in task.unroll(batch)).backward()
    model = task.model
    assert all(p.grad is None for p in model.trunk.parameters())
    assert not model.convGS[2].training
    assert model.convGS[4].weight.grad.abs().max() > 0
    deep = model.refiner.TSE["layer5"].reduce[0].weight.grad
    translator = model.refiner.Diff_process.conv_multi.conv1.weight.grad
    # Reusing starts from the first frame's deep half.
    assert deep.abs().max() > 0
    assert (translator.abs().max() > 0) == (script == "rrr")


def test_gate_does_not_decay_and_the_trunk_stays(davis: Path, imagenet: Path) -> None:
    task, _ = task_and_batch(davis, imagenet)
    rest, gate = task.parameter_groups()
    assert gate["weight_decay"] == 0 and "weight_decay" not in rest
    assert len(gate["params"]) == len(list(task.model.convGS.parameters()))
    names = {name for name, _ in task.model.named_parameters() if task.frozen(name)}
    assert names == {f"trunk.{name}" for name, _ in task.model.trunk.named_parameters()}
    task, _ = task_and_batch(davis, imagenet, learn_deepest=True)
    assert task.frozen("trunk.res4.0.conv1.weight")
    assert not task.frozen("trunk.res5.0.conv1.weight")


def test_imagenet_without_its_last_stage(davis: Path, imagenet: Path, tmp_path: Path) -> None:
    short = {k: v for k, v in load_file(imagenet).items() if not k.startswith("layer4.")}
    save_file(short, tmp_path / "short.safetensors")
    with pytest.raises(ModelError, match=r"does not fit the trunk at res5"):
        task_and_batch(davis, tmp_path / "short.safetensors")
    task, _ = task_and_batch(davis, tmp_path / "short.safetensors", learn_deepest=True)
    assert torch.equal(task.model.trunk.res4[0].conv1.weight, short["layer3.0.conv1.weight"])


def test_released_checkpoint_takes_the_trunk_of_imagenet(
    davis: Path, imagenet: Path, tmp_path: Path
) -> None:
    task, _ = task_and_batch(davis, imagenet)
    state = {k: v for k, v in task.model.state_dict().items() if not k.startswith("trunk.")}
    torch.save({"epoch": 1, "model": state}, tmp_path / "released.pth")
    options = replace(OPTIONS, initial=tmp_path / "released.pth")
    other = GFRTMTask.build(replace(options, imagenet=imagenet, seed=1))
    pairs = zip(task.model.parameters(), other.model.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)
    with pytest.raises(InputError, match="has no trunk"):
        GFRTMTask.build(options)


def test_target_model_scores_the_object(davis: Path, imagenet: Path) -> None:
    options = {"target_channels": 16, "target_iterations": (5, 10, 10), "crop": "128"}
    task, batch = task_and_batch(davis, imagenet, **options)
    with torch.no_grad():
        _, state = task.start(batch["frames"][:, 0], batch["masks"][:, 0])
    for score, mask in zip(state.score, state.reference, strict=True):
        assert score[mask > 0.5].mean() > score[mask < 0.5].mean() + 0.3


def test_pictures(davis: Path, imagenet: Path) -> None:
    task, batch = task_and_batch(davis, imagenet)
    frames, labels = task.pictures(batch)
    assert frames.shape == (4, 3, 64, 96) and labels.shape == (4, 64, 96)
    assert torch.equal(labels[0], batch["labels"][0, 0])
    assert set(np.unique(labels)) <= {0, 1}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"objects": 2}, "one object per clip"),
        ({"crop": "32"}, "--crop must have sides of at least 64, got 32"),
        ({"frames": 1}, "--frames must be at least 2, got 1"),
        ({"imagenet": None}, "with --imagenet"),
        ({"target_memory": 1}, "has no room"),
    ],
)
def test_options_that_do_not_go_together(
    changes: dict[str, Any], sentence: str, imagenet: Path
) -> None:
    options = replace(OPTIONS, imagenet=imagenet)
    GFRTMTask.check(options)
    with pytest.raises(InputError, match=sentence):
        GFRTMTask.check(replace(options, **changes))


def small(davis: Path, imagenet: Path) -> list[str]:
    return ["--method", "gfrtm", "--davis", str(davis), "--imagenet", str(imagenet), "--crop",
            "64x96", "--frames", "3", "--workers", "0", "--threads", "1", "--epochs", "0",
            "--pictures-every", "0", "--batch", "2", "--target-channels", "4",
            "--target-iterations", "3", "3", "--target-update", "2", "--target-memory", "3",
            "--target-augment", "2"]  # fmt: skip


def test_stage_lowers_the_loss(davis: Path, imagenet: Path, tmp_path: Path) -> None:
    cache = ["--target-cache", str(tmp_path / "targets")]
    arguments = [*small(davis, imagenet), *cache, "--iterations", "6", "--learning-rate", "2e-3"]
    falls(arguments, tmp_path / "run", 0.9)
    assert list((tmp_path / "targets").iterdir())


@needs_shared
@pytest.mark.slow
def test_stage_lowers_the_loss_on_real_data(tmp_path: Path) -> None:
    """Twenty steps at half the published size; the ImageNet file here ends at stride 16."""
    data = SHARED / "data"
    arguments = ["--method", "gfrtm", "--davis", str(data / "davis2016/train"), "--imagenet",
                 str(data / "weights/resnet18_imagenet_bnfolded.safetensors"), "--learn-deepest",
                 "--crop", "240x427", "--frames", "3", "--workers", "0", "--threads", "1",
                 "--epochs", "0", "--iterations", "20", "--batch", "2", "--accumulate", "2",
                 "--target-augment", "5", "--pictures-every", "10"]  # fmt: skip
    falls(arguments, tmp_path / "run", 0.95)


@pytest.mark.slow
def test_resumed_run_ends_where_the_uninterrupted_one_does(
    davis: Path, imagenet: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        resumes(small(davis, imagenet), tmp_path)
    assert "different options" not in caplog.text


@pytest.mark.slow
def test_two_processes_give_the_gradients_of_one(
    davis: Path, imagenet: Path, tmp_path: Path
) -> None:
    two_processes_are_one(small(davis, imagenet), tmp_path)


@pytest.mark.slow
def test_trained_network_exports(davis: Path, imagenet: Path, tmp_path: Path) -> None:
    run([*small(davis, imagenet), "--iterations", "1"], tmp_path / "run")
    checkpoint = str(tmp_path / "run/model.safetensors")
    command = [sys.executable, "-m", "vos_deploy.export", "--method", "gfrtm", "--checkpoint",
               checkpoint, "--output", str(tmp_path / "model")]  # fmt: skip
    subprocess.run(command, check=True)
    assert (tmp_path / "model/manifest.json").is_file()
