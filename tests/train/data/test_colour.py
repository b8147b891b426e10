from __future__ import annotations

import numpy as np
import pytest

from vos_deploy.train.data.colour import Colours, Jitter, recolour

IMAGE = np.random.default_rng(0).integers(40, 200, (10, 12, 3), np.uint8)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (("brightness", 1.1), IMAGE * 1.1),
        (("offset", 5.0), IMAGE + 5.0),
        (("saturation", 0.0), np.repeat(IMAGE @ np.array([[0.299], [0.587], [0.114]]), 3, 2)),
    ],
)
def test_steps_by_hand(step: tuple[str, float], expected: np.ndarray) -> None:
    found = Colours((step,))(IMAGE)
    assert np.abs(found - expected.clip(0, 255)).max() <= 0.51


def test_contrast_keeps_the_mean_luma() -> None:
    found = Colours((("contrast", 0.5),))(IMAGE).astype(float)
    luma = IMAGE @ np.array([0.299, 0.587, 0.114])
    assert np.abs(found - (luma.mean() + (IMAGE - luma.mean()) * 0.5)).max() < 0.6


def test_hue_turns_red_into_green_in_a_third_of_the_circle() -> None:
    red = np.full((2, 2, 3), (200, 0, 0), np.uint8)
    assert Colours((("hue", 1 / 3),))(red)[0, 0].tolist() == [0, 200, 0]


def test_draws_stay_in_their_ranges() -> None:
    rng = np.random.default_rng(0)
    jitter = Jitter(0.1, 0.03, 0.03, 0.05, 5)
    for _ in range(50):
        steps = dict(Colours.draw(rng, jitter).steps)
        assert abs(steps["brightness"] - 1) <= 0.1
        assert abs(steps["contrast"] - 1) <= 0.03
        assert abs(steps["hue"]) <= 0.05
        assert abs(steps["offset"]) <= 5
    assert Colours.draw(rng, Jitter()).steps == ()
    greys = [Colours.draw(rng, Jitter(), 0.3).grey for _ in range(300)]
    assert 60 < sum(greys) < 120


def test_grey_pictures_have_one_colour() -> None:
    grey = Colours((), grey=True)(IMAGE)
    assert np.array_equal(grey[..., 0], grey[..., 1]) and np.array_equal(grey[..., 1], grey[..., 2])
    assert recolour(np.random.default_rng(0), IMAGE, 0.3).dtype == np.uint8
