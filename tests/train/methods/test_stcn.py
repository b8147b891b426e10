"""STCN's training against the recorded one, and its loss against its network clip by clip."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.support import golden
from tests.support.golden import error, needs_golden, needs_shared
from tests.support.stcn import state
from tests.train.methods.shared_keys import (
    STAGES,
    alone,
    clips_of,
    falls_in_small,
    falls_on_real_data,
    resumes,
    two_processes_are_one,
)
from vos_deploy.errors import InputError
from vos_deploy.models import load_weights
from vos_deploy.models.aggregate import soft_aggregate
from vos_deploy.models.shared_keys import memory_read, normalize
from vos_deploy.models.stcn import STCN
from vos_deploy.train.losses import bootstrapped_cross_entropy
from vos_deploy.train.methods.stcn.stages import STCNOptions
from vos_deploy.train.methods.stcn.task import STCNTask
from vos_deploy.train.schedule import Step, bootstrap_share

OPTIONS = STCNOptions(
    backbone="resnet10", key_dim=8, value_dim=16, decoder_width=8, crop="64", frames=3, objects=2,
    skip=("0",),
)  # fmt: skip


@needs_golden
@pytest.mark.slow
def test_recorded_forward_pass() -> None:
    """Two clips of three frames; the second has one object, and runs backwards in time."""
    recorded = np.load(golden.GOLDEN / "stcn/train_forward.npz")
    frames, mask = golden.clip()
    rows, columns = slice(100, 196), slice(200, 328)
    frames, mask = frames[:3, rows, columns], mask[rows, columns]
    clips = torch.from_numpy(np.stack([frames, frames[::-1]])).permute(0, 1, 4, 2, 3).float() / 255
    masks = torch.zeros(2, 3, 2, *mask.shape)
    masks[0, 0] = torch.from_numpy(np.stack([mask == 1, mask == 2])).float()
    masks[1, 0, 0] = torch.from_numpy(mask > 0).float()
    labels = torch.zeros(2, 3, *mask.shape, dtype=torch.long)
    present = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    batch = {"frames": clips, "masks": masks, "labels": labels, "present": present}
    task = STCNTask(STCN(), STCNOptions(frames=3, objects=2, crop="64"))
    load_weights(task.model, state(), "the recorded state")
    with torch.no_grad():
        _, probabilities = task.unroll(batch, 1.0)
    for t, found in enumerate(probabilities, 1):
        # An absent object took part with a probability of 0 there, and takes none here.
        expected = torch.from_numpy(recorded[f"logits_{t}_s2"])
        expected[1, 2] = -torch.inf
        assert error(found[..., ::2, ::2], expected.softmax(1)) < 5e-5
        assert error(found[:, 1:, ::4, ::4], recorded[f"masks_{t}_s4"]) < 5e-5


@needs_golden
def test_recorded_losses() -> None:
    recorded = json.loads((golden.GOLDEN / "stcn/loss.json").read_text())["losses_by_iteration"]

    def probe(name: str, scale: float) -> Tensor:
        shape = (2, 3, 24, 32)
        drawn = golden.weights().tensor(f"probe.loss.{name}", shape)
        return torch.from_numpy(drawn * np.float32(np.prod(shape[1:]) ** 0.5 * scale))

    options = replace(OPTIONS, bootstrap=0.15, bootstrap_from=20_000, bootstrap_until=70_000)
    for iteration, values in recorded.items():
        share = bootstrap_share(options, int(iteration))
        assert share == pytest.approx(values["p"], abs=1e-6)
        total = 0.0
        for t in (1, 2):
            labels, logits = probe(f"gt{t}", 1).argmax(1), probe(f"logits{t}", 2)
            labels[0][labels[0] == 2] = 0
            logits[0, 2] = -torch.inf
            loss = bootstrapped_cross_entropy(logits, labels, share).item()
            assert loss == pytest.approx(values[f"loss_{t}"], abs=2e-6)
            total += loss
        assert total == pytest.approx(values["total_loss"], abs=2e-6)


def task_and_batch(davis: Path, **changes: object) -> tuple[STCNTask, dict[str, Tensor]]:
    """Two clips, of one and of two objects."""
    options = replace(OPTIONS, davis=(davis,), **changes)  # type: ignore[arg-type]
    torch.manual_seed(0)
    task, batch = STCNTask.build(options), clips_of(options)
    alone(batch, 0)
    assert batch["present"].tolist() == [[1, 0], [1, 1]]
    return task, batch


def by_hand(model: STCN, batch: dict[str, Tensor], clip: int) -> tuple[float, list[Tensor]]:
    """Loss and probabilities of one clip and the objects it has, by the network's methods for test
    time."""
    count = int(batch["present"][clip].sum())
    frames = normalize(batch["frames"][clip]).unsqueeze(1)
    seen = [model.encode_key(frame) for frame in frames]
    masks, keys, values, found, loss = batch["masks"][clip, 0, :count], [], [], [], 0.0
    for t in (1, 2):
        value = model.encode_value(frames[t - 1], seen[t - 1].f16, masks)
        keys.append(seen[t - 1].key[0].flatten(1).T)
        values.append(value.flatten(2).permute(2, 0, 1).flatten(1))
        query = seen[t].key[0].flatten(1).T
        read = memory_read(query, torch.cat(keys), torch.cat(values))
        readout = read.unflatten(1, (count, -1)).permute(1, 2, 0).unflatten(2, (4, 4))
        logits = soft_aggregate(model.decode(readout, seen[t])[:, 0].sigmoid()[None])
        loss += float(F.cross_entropy(logits, batch["labels"][clip, t : t + 1]))
        found.append(logits.softmax(1))
        masks = found[-1][0, 1:]
    return loss, found


def test_losses_are_those_of_each_clip_alone(davis: Path) -> None:
    task, batch = task_and_batch(davis)
    with torch.no_grad():
        found = task(batch, Step(0, 10))["loss"]
        _, probabilities = task.unroll(batch, 1.0)
        clips = [by_hand(task.model, batch, clip) for clip in (0, 1)]
    assert found.item() == pytest.approx(sum(loss for loss, _ in clips) / 2, rel=1e-4)
    for number, (_, own) in enumerate(clips):
        for t, expected in enumerate(own):
            count = expected.shape[1]
            assert (probabilities[t][number, :count] - expected[0]).abs().max() < 1e-4
            assert not probabilities[t][number, count:].any()


def test_gradients_reach_back_through_the_memory(davis: Path) -> None:
    """The loss of the last frame alone reaches what frame 1 was estimated with."""
    task, batch = task_and_batch(davis)
    batch["labels"][:, 1] = 255
    given = []
    genuine = task.model.value_encoder.features

    def features(frame: Tensor, masks: Tensor, others: Tensor) -> Tensor:
        if masks.requires_grad:
            masks.retain_grad()
            given.append(masks)
        return genuine(frame, masks, others)

    task.model.value_encoder.features = features  # type: ignore[method-assign]
    task(batch, Step(0, 10))["loss"].backward()
    (masks,) = given
    assert masks.grad is not None and masks.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"crop": "100"}, "--crop must be a multiple of 16, got 100"),
        ({"frames": 1}, "--frames must be at least 2, got 1"),
        ({"value_dim": 40}, "a multiple of 16"),
        ({"imagenet": Path(__file__), "backbone": "resnet50"}, "give the value encoder its"),
    ],
)
def test_options_that_do_not_go_together(changes: dict[str, object], sentence: str) -> None:
    STCNTask.check(OPTIONS)
    with pytest.raises(InputError, match=sentence):
        STCNTask.check(replace(OPTIONS, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_lowers_the_loss(stage: str, stills: Path, davis: Path, tmp_path: Path) -> None:
    falls_in_small("stcn", stage, stills, davis, tmp_path / "run")


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_lowers_the_loss_on_real_data(stage: str, tmp_path: Path) -> None:
    falls_on_real_data("stcn", stage, tmp_path / "run")


@pytest.mark.slow
def test_resumed_run_ends_where_the_uninterrupted_one_does(
    stills: Path, davis: Path, tmp_path: Path
) -> None:
    resumes("stcn", "3", stills, davis, tmp_path)


@pytest.mark.slow
def test_two_processes_give_the_gradients_of_one(davis: Path, tmp_path: Path) -> None:
    two_processes_are_one("stcn", "3", davis, tmp_path)
