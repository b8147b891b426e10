"""Target models of training clips: as the release learns them, and each only once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vos_deploy.errors import InputError
from vos_deploy.models.gfrtm.network import FullTrunk
from vos_deploy.models.imagenet import load_imagenet
from vos_deploy.models.resnet import BACKBONES
from vos_deploy.runtime.trackers.gfrtm.target import (
    FAST,
    Schedule,
    TargetModel,
    initial_weights,
)
from vos_deploy.train.methods.gfrtm.stages import GFRTMOptions
from vos_deploy.train.methods.gfrtm.targets import Targets

OPTIONS = GFRTMOptions(
    target_channels=4, target_iterations=(3, 3), target_update=(2,), target_memory=3,
    target_augment=2,
)  # fmt: skip


def targets(imagenet: Path, **changes: Any) -> Targets:
    trunk = FullTrunk(BACKBONES["resnet18"]).eval()
    load_imagenet(trunk, imagenet)
    return Targets(trunk, replace(OPTIONS, **changes))


def frame_and_mask() -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.zeros(64, 96)
    mask[16:48, 32:64] = 1
    frame = torch.from_numpy(np.random.default_rng(0).integers(0, 90, (3, 64, 96))) / 255
    frame[0] += 0.6 * mask
    return frame.float(), mask


def test_settings_are_those_of_the_released_training(imagenet: Path) -> None:
    """Not those of its evaluation."""
    schedule = Targets(targets(imagenet).trunk, GFRTMOptions()).schedule
    assert (schedule.first, schedule.update) == ((5, 10, 10, 10, 10), (10,))
    assert (schedule.project_scale, schedule.kernel_scale) == (1e-5, 1e-4)
    assert schedule.forget == 0.9**75 and not schedule.weigh_pixels
    assert (FAST.project_scale, FAST.kernel_scale, FAST.forget) == (1e-4, 1e-2, 0.9**750)
    assert FAST.weigh_pixels


def test_pixels_weigh_the_same_where_asked_for() -> None:
    mask = np.zeros((64, 96), bool)
    mask[20:30, 30:40] = True
    features = np.random.default_rng(0).normal(size=(24, 5))
    learned = []
    for weigh in (True, False):
        schedule = Schedule((3,), (2,), weigh_pixels=weigh)
        target = TargetModel(initial_weights(1, 5, 4), (4, 6), 3, schedule)
        target.learn([features], [mask])
        learned.append(target.samples.maps[0])
    # The maps sum to the weights of all pixels, which are as many either way.
    assert learned[1].sum() == pytest.approx(mask.size)
    assert learned[0].max() > 1.5 * learned[1].max()


def test_learned_once(imagenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, (frame, mask) = tmp_path / "targets", frame_and_mask()
    first = targets(imagenet, target_cache=folder)
    learned = first(frame, mask)
    assert [tuple(x.shape) for x in learned] == [(4, 256), (9, 4)]
    (path,) = folder.iterdir()

    def fail(*_: object) -> None:
        raise AssertionError("learned again")

    with monkeypatch.context() as patch:
        patch.setattr(Targets, "learn", fail)
        again = targets(imagenet, target_cache=folder)(frame, mask)
    assert all(torch.equal(one, two) for one, two in zip(learned, again, strict=True))
    path.write_bytes(b"cut")
    assert torch.equal(first(frame, mask)[0], learned[0])


def test_what_makes_it_another(imagenet: Path, tmp_path: Path) -> None:
    """Another mask, other settings, another trunk; not the stage that it does not look at."""
    frame, mask = frame_and_mask()

    def path(given: Targets, moved: int = 0) -> Path:
        image = (frame.permute(1, 2, 0) * 255).byte().numpy()
        found = given.path(image, mask.roll(moved, 0).numpy() > 0)
        assert found is not None
        return found

    first = targets(imagenet, target_cache=tmp_path)
    others = [
        path(first, moved=8),
        path(targets(imagenet, target_cache=tmp_path, target_augment=3)),
    ]
    deeper = targets(imagenet, target_cache=tmp_path)
    with torch.no_grad():
        deeper.trunk.res5[0].conv1.weight.mul_(2)
    assert path(deeper) == path(first)
    other = targets(imagenet, target_cache=tmp_path)
    with torch.no_grad():
        other.trunk.res2[0].conv1.weight.mul_(2)
    assert len({path(first), path(other), *others}) == 4
    assert not list(tmp_path.iterdir())


def test_views_that_cannot_be_had() -> None:
    with pytest.raises(InputError, match="must be from 1 to 20 views"):
        Targets.check(replace(OPTIONS, target_augment=21, target_memory=30))
