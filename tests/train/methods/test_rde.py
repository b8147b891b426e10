"""RDE-VOS's losses against its network clip by clip, as it is used at test time."""

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
from vos_deploy.models import load_checkpoint, load_model
from vos_deploy.models.aggregate import soft_aggregate
from vos_deploy.models.rde import RDE
from vos_deploy.models.rde.network import Features
from vos_deploy.models.shared_keys import normalize
from vos_deploy.train.methods.rde.stages import RDEOptions
from vos_deploy.train.methods.rde.task import RDETask
from vos_deploy.train.schedule import Step

OPTIONS = RDEOptions(
    backbone="resnet10", key_dim=8, value_dim=16, decoder_width=8, crop="64", frames=5, objects=2,
    skip=("0",), perturb=(0.7, 0.8), value_kl=2.0, decoder_f2_kl=3.0, decoder_f4_kl=5.0,
)  # fmt: skip
ALL = 10_000  # more positions than there are


def task_and_batch(davis: Path, **changes: object) -> tuple[RDETask, dict[str, Tensor]]:
    options = replace(OPTIONS, davis=(davis,), **changes)  # type: ignore[arg-type]
    torch.manual_seed(0)
    return RDETask.build(options), clips_of(options)


def kl(student: Tensor, teacher: Tensor, temperature: float) -> float:
    """Of maps [K, C, h, w]: the sum over objects of the mean over channels and positions."""
    s, t = ((x / temperature).softmax(1) for x in (student, teacher))
    return float((t * (t.log() - s.log())).mean((1, 2, 3)).sum())


def by_hand(
    model: RDE, batch: dict[str, Tensor], clip: int, temperature: float
) -> dict[str, Tensor | list[float]]:
    """One clip and the objects it has, by the network's methods for test time."""
    count = int(batch["present"][clip].sum())
    frames = normalize(batch["frames"][clip])
    labels = batch["labels"][clip]
    seen = [model.encode_key(frame[None]) for frame in frames]

    def encode(t: int, masks: Tensor) -> Tensor:
        return model.encode_value(frames[t : t + 1], seen[t].f16, masks)

    def readout(t: int, keys: list[Tensor], values: list[Tensor]) -> Tensor:
        return model.read(seen[t], torch.stack(keys, 1), torch.stack(values, 2), ALL)

    def logits(features: Features, readout: Tensor) -> Tensor:
        return soft_aggregate(model.decode(readout, features)[:, 0].sigmoid()[None])

    def joined(t: int, readout: Tensor) -> Tensor:
        return torch.cat([readout, seen[t].value.expand_as(readout)], 1)

    entropy, probabilities = [], []

    def score(t: int, found: Tensor) -> Tensor:
        entropy.append(float(F.cross_entropy(found, labels[t : t + 1])))
        probabilities.append(found.softmax(1))
        return found.softmax(1)[0, 1:]

    k = [features.key[0] for features in seen]
    v0 = encode(0, batch["perturbed"][clip, :count])
    clean = encode(0, batch["masks"][clip, 0, :count])
    v1 = encode(1, score(1, logits(seen[1], readout(1, k[:1], [v0]))))

    compress = model.mem_compress
    assert compress is not None

    def update(old: tuple[Tensor, Tensor], t: int, value: Tensor) -> tuple[Tensor, Tensor]:
        return compress.keys(old[0][None], k[t][None])[0], compress.values(old[1], value)

    rde1 = update((k[0], v0), 1, v1)
    student2, teacher2 = readout(2, [rde1[0]], [rde1[1]]), readout(2, k[:2], [v0, v1])
    score(2, logits(seen[2], student2))
    # What is memorised of frame 2 is what the teacher sees.
    v2 = encode(2, logits(seen[2], teacher2).softmax(1)[0, 1:])
    v3 = encode(3, score(3, logits(seen[3], readout(3, k[:3], [v0, v1, v2]))))
    rde3 = update(update(rde1, 2, v2), 3, v3)
    student4, teacher4 = readout(4, [rde3[0]], [rde3[1]]), readout(4, k[:4], [v0, v1, v2, v3])
    score(4, logits(seen[4], student4))
    return {
        "entropy": entropy,
        "probabilities": torch.cat(probabilities),
        "value_kl": [kl(v0, clean, temperature)],
        "decoder_f2_kl": [kl(joined(2, student2), joined(2, teacher2), temperature)],
        "decoder_f4_kl": [kl(joined(4, student4), joined(4, teacher4), temperature)],
    }


def test_losses_are_those_of_each_clip_alone(davis: Path) -> None:
    """Two clips, one with an object less: their mean, and an absent object takes no part."""
    temperature = 0.2
    task, batch = task_and_batch(davis, temperature=temperature)
    assert batch["present"].tolist() == [[1, 0], [1, 1]]
    with torch.no_grad():
        found, probabilities = task.unroll(batch, 1.0)
        clips = [by_hand(task.model, batch, clip, temperature) for clip in (0, 1)]
    expected = sum(sum(clip["entropy"]) for clip in clips) / 2
    assert found["cross_entropy"].item() == pytest.approx(expected, rel=1e-4)
    for name, weight in (("value_kl", 2.0), ("decoder_f2_kl", 3.0), ("decoder_f4_kl", 5.0)):
        expected = weight * sum(clip[name][0] for clip in clips) / 2
        # The one-hot KLs of a network without training are small numbers.
        assert found[name].item() == pytest.approx(expected, rel=2e-3, abs=1e-7), name
        assert found[name] > 0
    for number, clip in enumerate(clips):
        own = torch.stack([p[number] for p in probabilities])
        count = clip["probabilities"].shape[1]
        assert (own[:, :count] - clip["probabilities"]).abs().max() < 1e-4
        assert not own[:, count:].any()
    total = task(batch, Step(0, 10))
    assert total["loss"].item() == pytest.approx(sum(x.item() for x in found.values()), rel=1e-5)


def test_an_absent_object_changes_no_gradient(davis: Path) -> None:
    """A batch that leaves the second slot empty is one of single objects."""
    task, batch = task_and_batch(davis)
    alone(batch, 0)
    alone(batch, 1)
    narrow_batch = {
        name: (x[:, :, :1] if name == "masks" else x[:, :1] if name in ("present", "perturbed")
               else x)
        for name, x in batch.items()
    }  # fmt: skip
    gradients = []
    for content in (batch, narrow_batch):
        task.zero_grad()
        task(content, Step(0, 10))["loss"].backward()
        gradients.append({n: p.grad.clone() for n, p in task.model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient.isfinite().all()
        assert (gradient - gradients[1][name]).abs().max() <= 1e-4 * gradient.abs().max() + 1e-7


def test_halved_losses_weigh_late_frames_more(davis: Path) -> None:
    task, _ = task_and_batch(davis)
    parts = [torch.tensor(x) for x in (1.0, 10.0, 100.0, 1000.0)]
    assert task.total(parts).item() == 1111
    halved, _ = task_and_batch(davis, halve_losses=True)
    assert halved.total(parts).item() == pytest.approx(1 / 16 + 10 / 8 + 100 / 4 + 1000 / 2)
    assert halved.total(parts[:2]).item() == pytest.approx(1 / 4 + 10 / 2)


@pytest.mark.parametrize(("part", "name"), [("value_kl", "fuser"), ("decoder_f2_kl", "key_comp")])
def test_gradient_to_the_teacher_is_a_choice(davis: Path, part: str, name: str) -> None:
    """The loss is one, what it moves is not."""
    losses, gradients = [], []
    for detach in (True, False):
        task, batch = task_and_batch(davis, detach_teacher=detach, temperature=0.1)
        loss = task.unroll(batch, 1.0)[0][part]
        loss.backward()
        losses.append(loss.item())
        grads = [p.grad for n, p in task.model.named_parameters() if name in n]
        gradients.append(torch.cat([g.flatten() for g in grads if g is not None]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert (gradients[0] - gradients[1]).norm() > 0.05 * gradients[1].norm()


def test_soft_masks_are_fed_back_with_their_gradient(
    davis: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of the last frame reaches the masks that frames 1 to 3 were memorised with."""
    task, batch = task_and_batch(davis, value_kl=0.0, decoder_f2_kl=0.0, decoder_f4_kl=0.0)
    batch["labels"][:, :-1] = 255
    masks: dict[int, Tensor] = {}
    genuine = task.value

    def value(clip: object, t: int, given: Tensor) -> Tensor:
        if t:
            given.retain_grad()
        masks[t] = given
        return genuine(clip, t, given)  # type: ignore[arg-type]

    monkeypatch.setattr(task, "value", value)
    task(batch, Step(0, 10))["loss"].backward()
    assert sorted(masks) == [0, 1, 2, 3]
    assert torch.equal(masks[0], batch["perturbed"])
    for t in (1, 2, 3):
        assert masks[t].grad is not None and masks[t].grad.abs().max() > 0
        there = masks[t][batch["present"] > 0]
        assert there.min() > 0 and there.max() < 1


def test_without_perturbed_masks_there_is_no_teacher_of_values(davis: Path) -> None:
    task, batch = task_and_batch(davis, perturb=())
    assert "perturbed" not in batch
    assert set(task(batch, Step(0, 10))) == {
        "loss", "cross_entropy", "decoder_f2_kl", "decoder_f4_kl",
    }  # fmt: skip


def test_pixels_count_by_the_schedule(davis: Path) -> None:
    task, batch = task_and_batch(davis, bootstrap=0.15, bootstrap_from=4, bootstrap_until=8)
    with torch.no_grad():
        found = [task(batch, Step(i, 10))["cross_entropy"].item() for i in (0, 3, 6, 8, 9)]
    assert found[0] == found[1] < found[2] < found[3] == found[4]


@pytest.mark.slow
def test_mixed_precision_leaves_sums_alone(davis: Path) -> None:
    task, batch = task_and_batch(davis)
    with torch.no_grad():
        full = task(batch, Step(0, 10))
        with torch.autocast("cpu", torch.bfloat16):
            mixed = task(batch, Step(0, 10))
    assert mixed["loss"].dtype == torch.float32
    assert mixed["cross_entropy"].item() == pytest.approx(full["cross_entropy"].item(), rel=0.05)


def test_pictures_have_the_first_mask_and_predictions(davis: Path) -> None:
    task, batch = task_and_batch(davis)
    frames, labels = task.pictures(batch)
    assert frames.shape == (5, 3, 64, 64) and labels.shape == (5, 64, 64)
    assert torch.equal(labels[0], batch["labels"][0, 0])
    assert labels[1:].max() <= 2


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"crop": "100"}, "--crop must be a multiple of 16, got 100"),
        ({"frames": 6}, "must be from 3 to 5"),
        ({"frames": 2}, "must be from 3 to 5"),
        ({"frames": 1, "compress": False}, "must be at least 2"),
        ({"temperature": 0.0}, "more than 0"),
        ({"key_dim": 6}, "--key-dim must be a multiple of 4, got 6"),
        ({"value_dim": 8}, "--value-dim must be a multiple of 16, got 8"),
        ({"imagenet_value": Path("nowhere.pth")}, "no ImageNet weights at nowhere"),
        ({"imagenet": Path(__file__), "backbone": "resnet50"}, "give the value encoder its ResNet"),
    ],
)
def test_options_that_do_not_go_together(changes: dict[str, object], sentence: str) -> None:
    RDETask.check(OPTIONS)
    with pytest.raises(InputError, match=sentence):
        RDETask.check(replace(OPTIONS, **changes))  # type: ignore[arg-type]


def test_stages_from_one_object_to_several(stills: Path, davis: Path, tmp_path: Path) -> None:
    """What the first stage leaves behind has no compression and no weights for other objects;
    the next one starts from all it has."""
    method = ["--method", "rde", *narrow("rde"), *QUICK, *TRUNKS]
    first = run(tmp_path / "0", *method, "--stage", "0", "--stills", str(stills), "--iterations",
                "1")  # fmt: skip
    assert not any(key.startswith("mem_compress") for key in first)
    assert not first["value_encoder.conv1.weight"][:, 4].any()
    model = load_model(tmp_path / "0/model.safetensors")
    assert model.config["compress"] is False
    initial = ["--initial", str(tmp_path / "0/model.safetensors"), "--davis", str(davis)]
    second = run(tmp_path / "3", *method, "--stage", "3", *initial, "--iterations", "0")
    assert all(torch.equal(second[key], value) for key, value in first.items())
    assert any(key.startswith("mem_compress") for key in second)
    # As the official code writes it: four inputs of the value encoder.
    released = {**first, "value_encoder.conv1.weight": first["value_encoder.conv1.weight"][:, :4]}
    torch.save(released, tmp_path / "released.pth")
    initial = ["--initial", str(tmp_path / "released.pth"), "--davis", str(davis)]
    again = run(tmp_path / "again", *method, "--stage", "3", *initial, "--iterations", "1",
                "--objects", "2")  # fmt: skip
    assert again["value_encoder.conv1.weight"][:, 4].any()
    assert load_checkpoint(tmp_path / "again/model.safetensors").config["compress"] is True


def test_compression_may_start_as_the_mean(davis: Path) -> None:
    task, _ = task_and_batch(davis, compression_start="mean")
    with torch.no_grad():
        keys, values = torch.randn(2, 2, 8, 4, 4), torch.randn(2, 2, 2, 16, 4, 4)
        key, value = task.compress((keys[0], values[0]), (keys[1], values[1]))
        for found, pair in ((key, keys), (value, values)):
            assert (found - pair.mean(0)).norm() < 0.3 * pair.mean(0).norm()


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_lowers_the_loss(stage: str, stills: Path, davis: Path, tmp_path: Path) -> None:
    falls_in_small("rde", stage, stills, davis, tmp_path / "run")


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_lowers_the_loss_on_real_data(stage: str, tmp_path: Path) -> None:
    falls_on_real_data("rde", stage, tmp_path / "run")


@pytest.mark.slow
def test_resumed_run_ends_where_the_uninterrupted_one_does(
    stills: Path, davis: Path, tmp_path: Path
) -> None:
    resumes("rde", "3", stills, davis, tmp_path)


@pytest.mark.slow
def test_two_processes_give_the_gradients_of_one(davis: Path, tmp_path: Path) -> None:
    two_processes_are_one("rde", "3", davis, tmp_path)
