"""IMSFR's loss against its network clip by clip, as it is used at test time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.support.golden import needs_shared
from tests.train.methods.shared_keys import (
    QUICK,
    STAGES,
    TRUNKS,
    alone,
    clips_of,
    falls_in_small,
    falls_on_real_data,
    narrow,
    resumes,
    run,
    two_processes_are_one,
)
from vos_deploy.errors import InputError
from vos_deploy.models import load_model
from vos_deploy.models.aggregate import soft_aggregate
from vos_deploy.models.imsfr import IMSFR, full_size
from vos_deploy.models.shared_keys import memory_read, normalize, others_of
from vos_deploy.train.methods.imsfr.stages import IMSFROptions
from vos_deploy.train.methods.imsfr.task import IMSFRTask
from vos_deploy.train.schedule import Step

OPTIONS = IMSFROptions(
    backbone="resnet10", dim=16, decoder_width=8, crop="64", frames=3, objects=2, skip=("0",)
)


def task_and_batch(davis: Path, **changes: object) -> tuple[IMSFRTask, dict[str, Tensor]]:
    """Two clips, of one and of two objects."""
    options = replace(OPTIONS, davis=(davis,), **changes)  # type: ignore[arg-type]
    torch.manual_seed(0)
    task, batch = IMSFRTask.build(options), clips_of(options)
    alone(batch, 0)
    assert batch["present"].tolist() == [[1, 0], [1, 1]]
    return task, batch


def by_hand(model: IMSFR, batch: dict[str, Tensor], clip: int) -> tuple[list[float], list[Tensor]]:
    """Losses and probabilities of one clip and the objects it has, by the network's methods for
    test time."""
    count = int(batch["present"][clip].sum())
    frames = normalize(batch["frames"][clip]).unsqueeze(1)
    labels = batch["labels"][clip]
    seen = [model.encode(frame) for frame in frames]

    def tokens(x: Tensor) -> Tensor:
        """[K, C, h, w] -> [hw, K*C]."""
        return x.flatten(2).permute(2, 0, 1).flatten(1)

    def memorize(t: int, masks: Tensor) -> tuple[Tensor, Tensor]:
        masks = masks[None]
        found = model.memorize(frames[t], frames[t + 1], seen[t].f16, masks, others_of(masks))
        return found[0][0], found[1][0]

    def look(t: int, memory: list[int], values: list[Tensor]) -> Tensor:
        keys = torch.cat([tokens(seen[m].key) for m in memory])
        found = memory_read(tokens(seen[t].key), keys, torch.cat([tokens(v) for v in values]))
        return found.unflatten(1, (count, -1)).permute(1, 2, 0).unflatten(2, (4, 4))

    def segment(t: int, reads: list[Tensor]) -> Tensor:
        return soft_aggregate(full_size(model.decode(*reads, seen[t]))[:, 0].sigmoid()[None])

    v0, latest0 = memorize(0, batch["masks"][clip, 0, :count])
    first = segment(1, [look(1, [0], [v0]), look(1, [0], [v0]), look(1, [0], [latest0])])
    v1, latest1 = memorize(1, first.softmax(1)[0, 1:])
    second = segment(2, [look(2, [0, 1], [v0, v1]), look(2, [0], [v0]), look(2, [1], [latest1])])
    losses = [float(F.cross_entropy(x, labels[t : t + 1])) for t, x in ((1, first), (2, second))]
    return losses, [first.softmax(1), second.softmax(1)]


@pytest.mark.parametrize("second_mask", [False, True])
def test_losses_are_those_of_each_clip_alone(davis: Path, second_mask: bool) -> None:
    """Their mean; an absent object takes no part. A second gate that is equal to the first one
    changes nothing."""
    task, batch = task_and_batch(davis, second_mask=second_mask)
    task.model.mask2.load_state_dict(task.model.mask.state_dict())
    with torch.no_grad():
        found = task(batch, Step(0, 10))["loss"]
        _, probabilities = task.unroll(batch, 1.0)
        clips = [by_hand(task.model, batch, clip) for clip in (0, 1)]
    assert found.item() == pytest.approx(sum(sum(losses) for losses, _ in clips) / 2, rel=1e-4)
    for number, (_, own) in enumerate(clips):
        for t, expected in enumerate(own):
            count = expected.shape[1]
            assert (probabilities[t][number, :count] - expected[0]).abs().max() < 1e-4
            assert not probabilities[t][number, count:].any()


def test_the_second_object_has_a_gate_of_its_own_if_asked(davis: Path) -> None:
    task, batch = task_and_batch(davis, second_mask=True)
    assert task.unused_parameters and not task.frozen("mask2.weight")
    task(batch, Step(0, 10))["loss"].backward()
    assert task.model.mask2.weight.grad.abs().max() > 0
    reads = [torch.randn(2, 2, 16, 4, 4) for _ in range(3)]
    found = task.relate(*reads)
    model = task.model
    for slot, gate in enumerate((model.mask, model.mask2)):
        expected = model.relate(*(x[:, slot] for x in reads), gate=gate)
        assert torch.allclose(found[:, slot], expected, atol=1e-6)
    assert not torch.allclose(found[:, 1], model.relate(*(x[:, 1] for x in reads)), atol=1e-3)
    single = [x[:, :1] for x in reads]
    assert torch.allclose(task.relate(*single)[:, 0], found[:, 0], atol=1e-6)


def test_the_second_gate_stays_as_it_is_by_default(davis: Path) -> None:
    task, batch = task_and_batch(davis)
    assert not task.unused_parameters
    assert task.frozen("mask2.weight") and not task.frozen("mask.weight")
    task(batch, Step(0, 10))["loss"].backward()
    without = {name for name, p in task.model.named_parameters() if p.grad is None}
    assert without == {"mask2.weight", "mask2.bias"}


def test_soft_masks_and_the_next_frame_are_memorised(
    davis: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of the last frame reaches the masks that frame 1 was memorised with; the gate of
    the value is of the next frame."""
    task, batch = task_and_batch(davis)
    batch["labels"][:, 1] = 255
    given = []
    genuine = task.model.value_encoder.forward

    def forward(frame: Tensor, after: Tensor, f16: Tensor, masks: Tensor, others: Tensor) -> Tensor:
        if masks.requires_grad:
            masks.retain_grad()
        given.append((frame, after, masks))
        return genuine(frame, after, f16, masks, others)

    monkeypatch.setattr(task.model.value_encoder, "forward", forward)
    task(batch, Step(0, 10))["loss"].backward()
    frames = normalize(batch["frames"].flatten(0, 1)).unflatten(0, (2, 3))
    assert len(given) == 2
    for t, (frame, after, _) in enumerate(given):
        assert torch.equal(frame, frames[:, t]) and torch.equal(after, frames[:, t + 1])
    assert torch.equal(given[0][2], batch["masks"][:, 0])
    assert given[1][2].grad is not None and given[1][2].grad.abs().max() > 0


def test_pixels_count_by_the_schedule(davis: Path) -> None:
    task, batch = task_and_batch(davis, bootstrap=0.15, bootstrap_from=4, bootstrap_until=8)
    with torch.no_grad():
        found = [task(batch, Step(i, 10))["loss"].item() for i in (0, 3, 6, 8, 9)]
    assert found[0] == found[1] < found[2] < found[3] == found[4]


@pytest.mark.slow
def test_mixed_precision_leaves_sums_and_waves_alone(
    davis: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, batch = task_and_batch(davis)
    seen = []
    genuine = task.model.conv_fusion1v.forward

    def forward(waves: Tensor) -> Tensor:
        result = genuine(waves)
        seen.append((waves.dtype, result.dtype))
        return result

    monkeypatch.setattr(task.model.conv_fusion1v, "forward", forward)
    with torch.no_grad():
        full = task(batch, Step(0, 10))["loss"]
        with torch.autocast("cpu", torch.bfloat16):
            mixed = task(batch, Step(0, 10))["loss"]
    assert set(seen) == {(torch.float32, torch.float32)}
    assert mixed.dtype == torch.float32
    assert mixed.item() == pytest.approx(full.item(), rel=0.05)


def test_pictures_have_the_first_mask_and_predictions(davis: Path) -> None:
    task, batch = task_and_batch(davis)
    frames, labels = task.pictures(batch)
    assert frames.shape == (3, 3, 64, 64) and labels.shape == (3, 64, 64)
    assert torch.equal(labels[0], batch["labels"][0, 0])
    assert labels[1:].max() <= 2


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"crop": "100"}, "--crop must be a multiple of 16, got 100"),
        ({"frames": 1}, "--frames must be at least 2, got 1"),
        ({"dim": 40}, "a multiple of 16"),
        ({"imagenet": Path(__file__), "backbone": "resnet101"}, "give the value encoder its"),
    ],
)
def test_options_that_do_not_go_together(changes: dict[str, object], sentence: str) -> None:
    IMSFRTask.check(OPTIONS)
    with pytest.raises(InputError, match=sentence):
        IMSFRTask.check(replace(OPTIONS, **changes))  # type: ignore[arg-type]


def test_stages_from_one_object_to_several(stills: Path, davis: Path, tmp_path: Path) -> None:
    """What the first stage leaves behind has no weights for other objects; the next one starts
    from all it has."""
    method = ["--method", "imsfr", *narrow("imsfr"), *QUICK, *TRUNKS]
    first = run(tmp_path / "0", *method, "--stage", "0", "--stills", str(stills), "--iterations",
                "1")  # fmt: skip
    stem = "value_encoder.conv1.weight"
    assert not first[stem][:, 4].any()
    assert load_model(tmp_path / "0/model.safetensors").config["dim"] == 16
    # As the official code writes it: four inputs of the value encoder.
    torch.save({**first, stem: first[stem][:, :4]}, tmp_path / "released.pth")
    for number, name in enumerate(("0/model.safetensors", "released.pth")):
        initial = ["--initial", str(tmp_path / name), "--davis", str(davis)]
        state = run(tmp_path / f"next{number}", *method, "--stage", "3", *initial, "--iterations",
                    "0")  # fmt: skip
        assert all(torch.equal(state[key], value) for key, value in first.items())


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_lowers_the_loss(stage: str, stills: Path, davis: Path, tmp_path: Path) -> None:
    falls_in_small("imsfr", stage, stills, davis, tmp_path / "run")


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_lowers_the_loss_on_real_data(stage: str, tmp_path: Path) -> None:
    falls_on_real_data("imsfr", stage, tmp_path / "run")


@pytest.mark.slow
def test_resumed_run_ends_where_the_uninterrupted_one_does(
    stills: Path, davis: Path, tmp_path: Path
) -> None:
    resumes("imsfr", "3", stills, davis, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--second-mask"]])
def test_two_processes_give_the_gradients_of_one(
    more: list[str], davis: Path, tmp_path: Path
) -> None:
    two_processes_are_one("imsfr", "3", davis, tmp_path, *more)
