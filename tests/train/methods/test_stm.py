from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support import golden
from tests.support.golden import SHARED, error, needs_golden, needs_shared
from tests.support.stm import network
from tests.train.whole_runs import falls
from vos_deploy.errors import InputError
from vos_deploy.reference.stm import STMReference
from vos_deploy.train.cli import parse
from vos_deploy.train.data.files import BadFiles
from vos_deploy.train.data.mixture import build_clips, collate
from vos_deploy.train.losses import clip_loss
from vos_deploy.train.methods.stm.stages import STMOptions
from vos_deploy.train.methods.stm.task import STMTask
from vos_deploy.train.schedule import Step

OPTIONS = STMOptions(
    backbone="resnet10", key_dim=8, value_dim=16, decoder_width=8, crop="64", objects=2,
    skip=("1",), learning_rate=1e-3,
)  # fmt: skip


def task_and_batch(davis: Path, **changes: object) -> tuple[STMTask, dict[str, Tensor]]:
    options = replace(OPTIONS, davis=(davis,), **changes)  # type: ignore[arg-type]
    torch.manual_seed(0)
    task = STMTask.build(options)
    clips = build_clips(options, BadFiles())
    clips.total = 10
    return task, collate([clips[0], clips[1]]).tensors


@needs_golden
@pytest.mark.slow
def test_losses_are_those_of_the_public_retraining() -> None:
    """Its correction of a mask by gradient: three losses of the first frame, read from frame 2
    alone, each after a step of the mask against the gradient."""
    recorded = golden.arrays("stm")
    model = network("stm_training_resnet18")
    frames, mask = golden.clip()
    images = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    masks = torch.stack([torch.from_numpy(mask == i) for i in (1, 2)]).float()[None]
    labels = torch.from_numpy(mask.astype("int64"))[None]

    reference = STMReference(model, memory_every=2)
    for t, frame in enumerate(frames[:3]):
        reference.step(frame, None if t else mask)
    current = reference.probabilities[None, 1:].clone()
    losses = []
    for _ in range(3):
        current.requires_grad_(True)
        key, value = model.memorize(images[2:3], current)
        _, logits = model.segment(images[:1], key.unsqueeze(3), value.unsqueeze(3))
        loss = clip_loss(logits, labels, masks, "both", 0.4)
        (gradient,) = torch.autograd.grad(loss, current)
        losses.append(loss.item())
        current = (current - 180 * gradient).detach()
    assert error(losses, recorded["stan_resnet18/corr_loss2"]) < 1e-3
    assert error(losses, [2.8688, 2.7341, 2.2892]) < 1e-3


def test_cycle_is_the_first_frame_from_each_later_one(davis: Path) -> None:
    task, batch = task_and_batch(davis, cycle=True, loss="both", bootstrap=0.4)
    batch["masks"][1, 2, :] = 0  # the objects of the second clip have left its last frame
    with torch.no_grad():
        losses = task(batch, Step(0, 10))
        _, probabilities, _, _ = task.unroll(batch, 0.4)
        expected = 0.0
        for t, kept in ((1, [0, 1]), (2, [0])):
            for clip in kept:
                assert batch["masks"][clip, t, int(batch["present"][clip].sum()) - 1].any()
            masks = probabilities[t - 1][kept, 1:]
            key, value = task.model.memorize(batch["frames"][kept, t], masks)
            _, logits = task.model.segment(
                batch["frames"][kept, 0], key.unsqueeze(3), value.unsqueeze(3)
            )
            loss = clip_loss(logits, batch["labels"][kept, 0], batch["masks"][kept, 0], "both", 0.4)
            expected += loss.item() * len(kept) / 2
    assert losses["cycle"].item() == pytest.approx(expected / 2, rel=1e-4)
    total = losses["forward"] + losses["cycle"]
    assert losses["loss"].item() == pytest.approx(total.item(), rel=1e-5)


def test_gradients_reach_back_through_the_memory(davis: Path) -> None:
    """The loss of the last frame alone moves the mask stem that saw the one before."""
    task, batch = task_and_batch(davis)
    task.train()
    loss = task(batch, Step(0, 10))["loss"]
    loss.backward()
    assert task.model.Encoder_M.conv1_m.weight.grad.abs().max() > 0
    assert not task.model.Encoder_M.bn1.training


def test_pixels_count_by_the_schedule(davis: Path) -> None:
    task, batch = task_and_batch(davis, bootstrap=0.1, bootstrap_from=4, bootstrap_until=8)
    with torch.no_grad():
        found = [task(batch, Step(i, 10))["loss"].item() for i in (0, 3, 6, 8)]
    assert found[0] == found[1] < found[2] < found[3]


def test_pictures_have_the_first_mask_and_predictions(davis: Path) -> None:
    task, batch = task_and_batch(davis)
    frames, labels = task.pictures(batch)
    assert frames.shape == (3, 3, 64, 64) and labels.shape == (3, 64, 64)
    assert torch.equal(labels[0], batch["labels"][0, 0])
    assert labels[1:].max() <= batch["masks"].shape[2]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"crop": "100"}, "--crop must be a multiple of 16, got 100"),
        ({"crop": "32"}, "--crop must have sides of at least 64, got 32"),
        ({"frames": 1}, "--frames must be at least 2, got 1"),
        ({"initial": Path("nowhere.pth")}, "no checkpoint at nowhere"),
        ({"imagenet": Path("nowhere.pth")}, "no ImageNet weights at nowhere"),
    ],
)
def test_options_that_do_not_go_together(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        STMTask.check(replace(OPTIONS, **changes))  # type: ignore[arg-type]
    STMTask.check(replace(OPTIONS, crop="100", stem="background"))


STAGES = [
    "mixed",
    *(pytest.param(stage, marks=pytest.mark.slow) for stage in ("pretrain", "main", "retrain")),
]


def arguments_of(stage: str, stills: list[Path], davis: Path) -> list[str]:
    roots = [["--stills", *map(str, stills)], ["--davis", str(davis)], ["--youtube", str(davis)]]
    given = {"mixed": roots[:2], "pretrain": roots[:1]}.get(stage, roots[1:])
    return ["--method", "stm", "--stage", stage, *(word for root in given for word in root)]


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_lowers_the_loss(stage: str, stills: Path, davis: Path, tmp_path: Path) -> None:
    """In small, on synthetic data: the stage's own task and losses, a rate for short runs."""
    small = ["--backbone", "resnet10", "--key-dim", "8", "--value-dim", "16", "--decoder-width",
             "8", "--crop", "64", "--objects", "1", "--workers", "0", "--threads", "1", "--batch",
             "2", "--accumulate", "1", "--epochs", "0", "--iterations", "8", "--skip", "1",
             "--learning-rate", "3e-4", "--clip-gradient", "5", "--pictures-every",
             "0"]  # fmt: skip
    if stage == "retrain":
        small += ["--youtube-skip", "1"]
    falls([*arguments_of(stage, [stills], davis), *small], tmp_path / "run", 0.9)


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_lowers_the_loss_on_real_data(stage: str, tmp_path: Path) -> None:
    """Twenty steps from ImageNet weights, clips of 240 rows, the stage's own of the rest."""
    data = SHARED / "data"
    stills = [data / "static" / name for name in ("ECSSD", "HumanSeg")]
    arguments = arguments_of(stage, stills, data / "davis2016/train")
    imagenet = data / "weights/resnet18_imagenet_bnfolded.safetensors"
    short = ["--backbone", "resnet18", "--value-dim", "128", "--key-dim", "64", "--decoder-width",
             "64", "--imagenet", str(imagenet), "--workers", "0", "--threads", "1", "--epochs",
             "0", "--iterations", "20", "--learning-rate", "3e-4", "--clip-gradient", "5",
             "--batch", "2", "--accumulate", "2", "--pictures-every", "10"]  # fmt: skip
    if stage != "retrain":
        short += ["--crop", "240"]
    falls([*arguments, *short], tmp_path / "run", 0.9)


def test_stage_options_reach_the_network() -> None:
    options = parse(["--stage", "retrain", "--davis", "D", "--key-dim", "32"]).options
    model = STMTask.network(options)
    assert model.config["stem"] == "background" and model.config["stride"] == 1
    assert model.config["key_dim"] == 32
