from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.golden import SHARED, needs_shared
from tests.train.whole_runs import falls, resumes, run, two_processes_are_one
from vos_deploy.errors import InputError
from vos_deploy.models import load_checkpoint
from vos_deploy.models.rmnet.network import normalize
from vos_deploy.models.rmnet.regions import flow_warp
from vos_deploy.reference.rmnet import RMNetReference
from vos_deploy.train.data.files import BadFiles
from vos_deploy.train.data.mixture import build_clips, collate
from vos_deploy.train.keys import align_keys
from vos_deploy.train.losses import bootstrapped_cross_entropy, lovasz_softmax
from vos_deploy.train.methods.rmnet import task as rmnet
from vos_deploy.train.methods.rmnet.stages import RMNetOptions
from vos_deploy.train.methods.rmnet.task import OnesGradient, RMNetTask
from vos_deploy.train.schedule import Step

OPTIONS = RMNetOptions(
    backbone="resnet10", key_dim=8, value_dim=16, decoder_width=8, flow_width=4, crop="64",
    objects=2, skip=("1",), reverse=0.0, flow="dis",
)  # fmt: skip
NARROW = ["--method", "rmnet", "--backbone", "resnet10", "--key-dim", "8", "--value-dim", "16",
          "--decoder-width", "8", "--flow-width", "8", "--objects", "1", "--workers", "0",
          "--threads", "1", "--epochs", "0", "--pictures-every", "0", "--skip", "1"]  # fmt: skip
SMALL = [*NARROW, "--crop", "64", "--batch", "2", "--learning-rate", "1e-3"]


def task_and_batch(davis: Path, **changes: Any) -> tuple[RMNetTask, dict[str, Tensor]]:
    options = replace(OPTIONS, davis=(davis,), **changes)
    torch.manual_seed(0)
    task = RMNetTask.build(options)
    clips = build_clips(options, BadFiles())
    clips.total = 10
    return task, collate([clips[0], clips[1]]).tensors


@pytest.mark.parametrize("crop", ["64", "100x76"])
def test_clips_are_segmented_as_by_the_official_loop(crop: str, davis: Path) -> None:
    """A small object, whose region is part of the frame; sizes with and without padding."""
    task, batch = task_and_batch(davis, crop=crop, frames=4)
    batch["masks"][0, 0], batch["labels"][0, 0] = 0, 0
    batch["masks"][0, 0, 0, :5, :6] = 1
    with torch.no_grad():
        found = [logits.softmax(1) for logits in task.unroll(batch)]
    for clip in (0, 1):
        count = int(batch["present"][clip].sum())
        flows = batch["flows"][clip].permute(0, 2, 3, 1).numpy()
        masks = batch["masks"][clip, 0, :count]
        drawn = (masks * torch.arange(1, 1 + count).view(-1, 1, 1)).sum(0).byte().numpy()
        reference = RMNetReference(
            task.model, memory_every=1, flow=lambda t, *images, flows=flows: flows[t]
        )
        for t, frame in enumerate(batch["frames"][clip]):
            pixels = (frame.permute(1, 2, 0) * 255).round().byte().numpy()
            reference.step(pixels, None if t else drawn)
            if t:
                off = found[t - 1][clip, : 1 + count] - reference.probabilities
                assert off.abs().max() < 1e-3


def test_loss_is_of_all_frames_and_clips_together(davis: Path) -> None:
    task, batch = task_and_batch(davis, lovasz=0.5, cross_entropy=2.0)
    with torch.no_grad():
        losses = task(batch, Step(0, 10))
        logits = task.unroll(batch)
    labels = torch.cat([batch["labels"][:, 1], batch["labels"][:, 2]])
    lovasz = lovasz_softmax(torch.cat(logits).softmax(1), labels)
    entropy = bootstrapped_cross_entropy(torch.cat(logits), labels)
    assert losses["lovasz"].item() == pytest.approx(lovasz.item(), rel=1e-5)
    assert losses["cross_entropy"].item() == pytest.approx(entropy.item(), rel=1e-5)
    assert losses["loss"].item() == pytest.approx((0.5 * lovasz + 2 * entropy).item(), rel=1e-5)


def test_slots_beyond_the_objects_are_never_predicted(davis: Path) -> None:
    """As in the release, where a permutation may put an object there."""
    task, batch = task_and_batch(davis)
    batch["present"][0] = torch.tensor([0.0, 1.0])  # one object, in the second of two slots
    batch["masks"][0, :, 0] = 0
    with torch.no_grad():
        logits = task.unroll(batch)[0]
    assert logits[0, 2].max() < -16 < logits[0, 1].max()
    assert logits[1, 2].max() > -16


def gradients(task: RMNetTask, batch: dict[str, Tensor]) -> list[Tensor]:
    task.train()
    for name, parameter in task.model.named_parameters():
        parameter.requires_grad = not task.frozen(name)
    task(batch, Step(0, 10))["loss"].backward()
    return [p.grad for p in task.model.parameters() if p.requires_grad and p.grad is not None]


def test_gradients_reach_back_through_the_memory_and_stay_in_one_network(davis: Path) -> None:
    task, batch = task_and_batch(davis)
    found = gradients(task, batch)
    assert len(found) == len(list(task.model.rmnet.parameters()))
    assert all(p.grad is None for p in task.model.tflownet.parameters())
    batch["labels"][:, 1] = 255  # the loss of the last frame alone
    task.zero_grad()
    task(batch, Step(0, 10))["loss"].backward()
    # The first frame's mask has no gradient: this comes from the second's, which was predicted.
    stem = task.model.rmnet.encoder_memory.conv1_o.weight.grad
    assert stem is not None and stem.abs().max() > 0
    assert not task.model.rmnet.encoder_memory.bn1.training


def test_gradient_of_ones_is_cancelled_by_the_softmax(davis: Path) -> None:
    slots = torch.rand(1, 3, 32, 32, requires_grad=True)
    region = OnesGradient.apply(slots, torch.ones(1, 2, 2, 2))
    (7 * region).sum().backward()
    assert torch.equal(slots.grad, torch.ones_like(slots))
    right, released = (
        gradients(*task_and_batch(davis, region_gradient=kind, backbone="resnet18"))
        for kind in ("none", "ones")
    )
    scale = max(g.abs().max() for g in right)
    for one, other in zip(right, released, strict=True):
        assert (one - other).abs().max() < 1e-4 * scale


def test_flow_is_taught_to_tinyflownet(davis: Path) -> None:
    task, batch = task_and_batch(davis, network="tinyflownet")
    assert gradients(task, batch)
    assert all(p.grad is None for p in task.model.rmnet.parameters())
    with torch.no_grad():
        first = batch["flows"][:, 1:].abs().mean()
        for name, parameter in task.model.tflownet.named_parameters():
            if "predict_flow2" in name:
                parameter.zero_()
        # A flow of zero is off by the length of the true one.
        assert task(batch, Step(0, 10))["loss"].item() == pytest.approx(first.item(), rel=1e-5)


def test_pictures(davis: Path) -> None:
    for network in ("rmnet", "tinyflownet"):
        task, batch = task_and_batch(davis, network=network)
        frames, labels = task.pictures(batch)
        assert frames.shape == (3, 3, 64, 64) and labels.shape == (3, 64, 64)
        assert torch.equal(labels[0], batch["labels"][0, 0])
    # TinyFlowNet's: the true masks, moved.
    moved = flow_warp(batch["masks"][:1, 0], task.flows(batch)[:1])
    assert torch.equal(labels[1] > 0, moved[0].amax(0) > 0.5)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"flow": "none"}, "give files or dis"),
        ({"crop": "32"}, "--crop must have sides of at least 64, got 32"),
        ({"frames": 1}, "--frames must be at least 2, got 1"),
    ],
)
def test_options_that_do_not_go_together(changes: dict[str, Any], sentence: str) -> None:
    RMNetTask.check(OPTIONS)
    with pytest.raises(InputError, match=sentence):
        RMNetTask.check(replace(OPTIONS, **changes))


def stage_arguments(stage: str, stills: list[Path], davis: Path) -> list[str]:
    """Of still images the flow is that of their own motion; videos have no files here."""
    if stage == "pretrain":
        return ["--stage", stage, "--stills", *map(str, stills)]
    arguments = ["--stage", stage, "--davis", str(davis), "--flow", "dis"]
    # The mean of the flow should not change more from clip to clip than by learning.
    return [*arguments, *(["--video-augmentation", "whole"] if stage == "flow" else [])]


STAGES = [pytest.param("pretrain", marks=pytest.mark.slow), "finetune", "flow"]


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_lowers_the_loss(stage: str, stills: Path, davis: Path, tmp_path: Path) -> None:
    arguments = [*SMALL, *stage_arguments(stage, [stills], davis), "--iterations", "14"]
    falls(arguments, tmp_path / "run", 0.95)


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_lowers_the_loss_on_real_data(stage: str, tmp_path: Path) -> None:
    """Twenty steps from ImageNet weights, at half the published size."""
    data = SHARED / "data"
    stills = [data / "static" / name for name in ("ECSSD", "HumanSeg")]
    arguments = stage_arguments(stage, stills, data / "davis2016/train")
    imagenet = data / "weights/resnet18_imagenet_bnfolded.safetensors"
    short = ["--key-dim", "64", "--value-dim", "128", "--decoder-width", "64", "--flow-width", "16",
             "--imagenet", str(imagenet), "--crop", "240", "--iterations", "20", "--learning-rate",
             "3e-4", "--batch", "2", "--accumulate", "2", "--pictures-every", "10"]  # fmt: skip
    if stage == "flow":
        # One video that moves evenly: else the clips differ more than twenty steps teach.
        for kind in ("JPEGImages", "Annotations"):
            (tmp_path / "davis" / kind).mkdir(parents=True)
            (source,) = (data / "davis2016/train" / kind).glob("**/bear")
            (tmp_path / "davis" / kind / "bear").symlink_to(source)
        arguments = stage_arguments(stage, [], tmp_path / "davis")
        short += ["--learning-rate", "1e-3", "--skip", "0", "--crop", "240x426"]
    falls([*NARROW, *arguments, *short], tmp_path / "run", 0.95)


@pytest.mark.slow
def test_resumed_run_ends_where_the_uninterrupted_one_does(davis: Path, tmp_path: Path) -> None:
    resumes([*SMALL, *stage_arguments("finetune", [], davis)], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["finetune", "flow"])
def test_two_processes_give_the_gradients_of_one(stage: str, davis: Path, tmp_path: Path) -> None:
    # Lovász-softmax is of the pixels of a process together: it is no mean over clips.
    arguments = [*SMALL, *stage_arguments(stage, [], davis), "--lovasz", "0"]
    two_processes_are_one(arguments, tmp_path)


def test_stages_follow_each_other(stills: Path, davis: Path, tmp_path: Path) -> None:
    """Each starts from the checkpoint before and leaves the other network as it is."""
    arguments = [*SMALL, "--iterations", "1"]
    before = run([*arguments, *stage_arguments("pretrain", [stills], davis)], tmp_path / "a")
    initial = ["--initial", str(tmp_path / "a/model.safetensors")]
    after = run([*arguments, *stage_arguments("flow", [], davis), *initial], tmp_path / "b")
    for key in before:
        if key.startswith("rmnet."):
            assert torch.equal(before[key], after[key])
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    assert changed and all(key.startswith("tflownet.") for key in changed)


def test_keys_are_aligned(davis: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rmnet, "align_keys", partial(align_keys, samples=30))
    task, batch = task_and_batch(davis, align_keys=True)
    clips = build_clips(task.options, BadFiles())
    clips.total = 30
    task.prepare(clips)
    frames, parts = normalize(batch["frames"][:1, 0]), task.model.rmnet
    with torch.inference_mode():
        query = parts.encode_query(frames).key[0].flatten(1)
        memory = parts.memorize(frames, batch["masks"][:1, 0])[0][0, 0].flatten(1)
    found = (query.T @ memory).argmax(1) == torch.arange(query.shape[1])
    assert found.float().mean() > 0.5  # of 16


@pytest.mark.slow
def test_trained_network_exports_and_runs(stills: Path, davis: Path, tmp_path: Path) -> None:
    run([*SMALL, *stage_arguments("finetune", [], davis), "--iterations", "1"], tmp_path / "run")
    checkpoint = tmp_path / "run/model.safetensors"
    assert load_checkpoint(checkpoint).config["flow_width"] == 8
    command = [sys.executable, "-m", "vos_deploy.export", "--method", "rmnet"]
    subprocess.run([*command, "--checkpoint", checkpoint, "--output", tmp_path / "model"],
                   check=True)  # fmt: skip
    assert (tmp_path / "model/manifest.json").is_file()
