from __future__ import annotations

import numpy as np
import pytest

from vos_deploy.train.data.perturb import ROUNDS, iou, perturb_mask


def disc(size: int = 96) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    return ((y - 48) ** 2 + (x - 48) ** 2 < 30**2).astype(np.uint8)


def test_iou() -> None:
    a, b = np.array([[1, 1, 0]], np.uint8), np.array([[0, 1, 1]], np.uint8)
    assert iou(a, b) == pytest.approx(1 / 3)
    assert iou(a * 0, b * 0) == 1


@pytest.mark.parametrize("target", [0.85, 0.95])
def test_stops_just_below_the_target(target: float) -> None:
    for seed in range(8):
        mask = disc()
        found = perturb_mask(np.random.default_rng(seed), mask, target)
        assert np.array_equal(mask, disc())  # the clean one is left alone
        assert set(np.unique(found)) <= {0, 1}
        assert target - 0.25 < iou(found, mask) < target


def test_the_same_seed_makes_the_same_mistakes() -> None:
    one, two = (perturb_mask(np.random.default_rng(3), disc(), 0.9) for _ in range(2))
    assert np.array_equal(one, two)


def test_it_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mask that can grow no further, and an IoU that is never below 0."""
    calls = []
    import vos_deploy.train.data.perturb as module

    monkeypatch.setattr(module, "_change", lambda rng, mask: calls.append(1))
    perturb_mask(np.random.default_rng(0), disc(), 0.9)
    assert len(calls) == 4 * ROUNDS


def test_an_empty_mask_stays_empty() -> None:
    assert not perturb_mask(np.random.default_rng(0), np.zeros((8, 8), np.uint8), 0.9).any()
