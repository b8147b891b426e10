"""XMem's training against the recorded one, and its loss against its network clip by clip."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support import golden
from tests.support.golden import error, needs_golden, needs_shared
from tests.support.xmem import recorded_network
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
from vos_deploy.models.aggregate import soft_aggregate
from vos_deploy.models.anisotropic import anisotropic_similarity, top_k_weights
from vos_deploy.models.shared_keys import normalize
from vos_deploy.models.xmem import XMem
from vos_deploy.train.losses import bootstrapped_cross_entropy, dice
from vos_deploy.train.methods.xmem.stages import XMemOptions
from vos_deploy.train.methods.xmem.task import XMemTask
from vos_deploy.train.schedule import Step, bootstrap_share

OPTIONS = XMemOptions(
    backbone="resnet10", key_dim=8, value_dim=16, hidden_dim=8, decoder_width=16, crop="64",
    frames=3, objects=2, skip=("0",), deep_update=1.0,
)  # fmt: skip


@needs_golden
@pytest.mark.slow
def test_recorded_forward_pass() -> None:
    """Two clips of three frames and three slots; the second runs backwards in time."""
    recorded = np.load(golden.GOLDEN / "xmem/train_forward.npz")
    frames, mask = golden.clip()
    rows, columns = slice(100, 196), slice(200, 328)
    frames, mask = frames[:3, rows, columns], mask[rows, columns]
    clips = torch.from_numpy(np.stack([frames, frames[::-1]])).permute(0, 1, 4, 2, 3).float() / 255
    masks = torch.zeros(2, 3, 3, *mask.shape)
    masks[0, 0, :2] = torch.from_numpy(np.stack([mask == 1, mask == 2])).float()
    masks[1, 0, 0] = torch.from_numpy(mask > 0).float()
    present = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    labels = torch.zeros(2, 3, *mask.shape, dtype=torch.long)
    batch = {"frames": clips, "masks": masks, "labels": labels, "present": present}
    task = XMemTask(recorded_network(), XMemOptions(frames=3, objects=3, deep_update=0.0))
    with torch.no_grad():
        _, probabilities = task.unroll(batch, 1.0)
    for t, found in enumerate(probabilities, 1):
        # An absent object took part with a probability of 0 there, and takes none here.
        expected = torch.from_numpy(recorded[f"logits_{t}_s2"])
        expected[0, 3], expected[1, 2:] = -torch.inf, -torch.inf
        assert error(found[..., ::2, ::2], expected.softmax(1)) < 5e-4
        assert error(found[:, 1:, ::4, ::4], recorded[f"masks_{t}_s4"]) < 5e-4


@needs_golden
def test_recorded_losses() -> None:
    recorded = json.loads((golden.GOLDEN / "xmem/loss.json").read_text())["losses_by_iteration"]

    def probe(name: str, scale: float) -> Tensor:
        shape = (2, 4, 24, 32)
        drawn = golden.weights().tensor(f"probe.loss.{name}", shape)
        return torch.from_numpy(drawn * np.float32(np.prod(shape[1:]) ** 0.5 * scale))

    options = replace(OPTIONS, bootstrap=0.15, bootstrap_from=20_000, bootstrap_until=70_000)
    for iteration, values in recorded.items():
        share = bootstrap_share(options, int(iteration))
        assert share == pytest.approx(values["p"], abs=1e-6)
        total = 0.0
        for t in (1, 2):
            labels, logits = probe(f"gt{t}", 1).argmax(1), probe(f"logits{t}", 2)
            labels[0][labels[0] == 3] = 0
            truth = torch.stack([labels == k for k in (1, 2, 3)], 1).float()
            overlap = dice(logits.softmax(1)[:, 1:], truth).item()
            assert overlap == pytest.approx(values[f"dice_loss_{t}"], abs=2e-6)
            logits[0, 3] = -torch.inf
            entropy = bootstrapped_cross_entropy(logits, labels, share).item()
            assert entropy == pytest.approx(values[f"ce_loss_{t}"], abs=2e-6)
            total += overlap + entropy
        assert total == pytest.approx(values["total_loss"], abs=4e-6)


def task_and_batch(davis: Path, **changes: object) -> tuple[XMemTask, dict[str, Tensor]]:
    """Two clips, of one and of two objects."""
    options = replace(OPTIONS, davis=(davis,), **changes)  # type: ignore[arg-type]
    torch.manual_seed(0)
    task, batch = XMemTask.build(options), clips_of(options)
    alone(batch, 0)
    assert batch["present"].tolist() == [[1, 0], [1, 1]]
    return task, batch


def by_hand(model: XMem, batch: dict[str, Tensor], clip: int) -> list[Tensor]:
    """Probabilities of one clip and the objects it has, by the network's methods for test time."""
    count = int(batch["present"][clip].sum())
    frames = normalize(batch["frames"][clip]).unsqueeze(1)
    seen = [model.encode_key(frame) for frame in frames]
    masks, values, found = batch["masks"][clip, 0, :count], [], []
    hidden: Tensor | None = torch.zeros(count, 8, 4, 4)
    for t in (1, 2):
        value, hidden = model.encode_value(frames[t - 1], seen[t - 1].f16, masks, hidden, True)
        values.append(value.flatten(2).permute(2, 0, 1).flatten(1))
        query, selection = (x[0].flatten(1).T for x in (seen[t].key, seen[t].selection))
        key = torch.cat([x.key[0].flatten(1).T for x in seen[:t]])
        shrinkage = torch.cat([x.shrinkage[0].flatten(1).T for x in seen[:t]])
        scores = anisotropic_similarity(key, shrinkage, query, selection)
        read = top_k_weights(scores) @ torch.cat(values)
        readout = read.unflatten(1, (count, -1)).permute(1, 2, 0).unflatten(2, (4, 4))
        logits, hidden = model.decode(readout, hidden, seen[t])
        found.append(soft_aggregate(logits[:, 0].sigmoid()[None]).softmax(1))
        masks = found[-1][0, 1:]
    return found


def test_each_clip_is_segmented_as_at_test_time(davis: Path) -> None:
    task, batch = task_and_batch(davis)
    with torch.no_grad():
        _, probabilities = task.unroll(batch, 1.0)
        clips = [by_hand(task.model, batch, clip) for clip in (0, 1)]
    for number, own in enumerate(clips):
        for t, expected in enumerate(own):
            count = expected.shape[1]
            assert (probabilities[t][number, :count] - expected[0]).abs().max() < 1e-4
            assert not probabilities[t][number, count:].any()


def test_references_are_the_first_frame_and_others_before(davis: Path) -> None:
    task, _ = task_and_batch(davis, references=3)
    cpu = torch.device("cpu")
    assert task.references(2, 2, cpu).tolist() == [[0, 1], [0, 1]]
    drawn = [task.references(7, 2, cpu) for _ in range(20)]
    for frames in drawn:
        assert frames.shape == (2, 3) and not frames[:, 0].any()
        assert all(len(set(row.tolist())) == 3 and row.max() < 7 for row in frames)
    assert len({tuple(row.tolist()) for frames in drawn for row in frames}) > 5


def test_loss_is_cross_entropy_and_dice(davis: Path) -> None:
    task, batch = task_and_batch(davis)
    with torch.no_grad():
        found = task(batch, Step(0, 10))
        without = XMemTask(task.model, replace(task.options, dice=0.0))(batch, Step(0, 10))
    assert found["loss"].item() == pytest.approx((found["cross_entropy"] + found["dice"]).item())
    assert without["loss"].item() == pytest.approx(found["cross_entropy"].item())


def test_loss_of_a_clip_does_not_depend_on_the_others(davis: Path) -> None:
    """Slots that no clip of a batch fills are dropped, and count in the mean all the same."""
    task, batch = task_and_batch(davis)
    first = {name: tensor[:1] for name, tensor in batch.items()}
    short = {**first, "present": first["present"][:, :1], "masks": first["masks"][:, :, :1]}
    with torch.no_grad():
        one, other = (task(clips, Step(0, 10))["dice"].item() for clips in (first, short))
    assert one == pytest.approx(other, rel=1e-5) and one > 0.1


def test_sensory_memory_learns_from_both_updates(davis: Path) -> None:
    task, batch = task_and_batch(davis)
    task(batch, Step(0, 10))["loss"].backward()
    model = task.model
    for update in (model.decoder.hidden_update, model.value_encoder.hidden_reinforce):
        assert update is not None and update.transform.weight.grad.abs().max() > 0  # type: ignore


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"crop": "100"}, "--crop must be a multiple of 16, got 100"),
        ({"frames": 1}, "--frames must be at least 2, got 1"),
        ({"references": 0}, "references must be at least 1, got 0"),
        ({"value_dim": 40}, "--value-dim must be a multiple of 16, got 40"),
        ({"decoder_width": 8}, "--decoder-width must be a multiple of 16, got 8"),
    ],
)
def test_options_that_do_not_go_together(changes: dict[str, object], sentence: str) -> None:
    XMemTask.check(OPTIONS)
    with pytest.raises(InputError, match=sentence):
        XMemTask.check(replace(OPTIONS, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_lowers_the_loss(stage: str, stills: Path, davis: Path, tmp_path: Path) -> None:
    falls_in_small("xmem", stage, stills, davis, tmp_path / "run")


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_lowers_the_loss_on_real_data(stage: str, tmp_path: Path) -> None:
    falls_on_real_data("xmem", stage, tmp_path / "run")


@pytest.mark.slow
def test_resumed_run_ends_where_the_uninterrupted_one_does(
    stills: Path, davis: Path, tmp_path: Path
) -> None:
    resumes("xmem", "3", stills, davis, tmp_path)
    (last, *_) = tmp_path.rglob("last.pth")
    groups = torch.load(last, weights_only=True)["optimizer"]["param_groups"]
    assert all(group["decoupled_weight_decay"] for group in groups)


@pytest.mark.slow
def test_two_processes_give_the_gradients_of_one(davis: Path, tmp_path: Path) -> None:
    two_processes_are_one("xmem", "3", davis, tmp_path, "--deep-update", "0")
