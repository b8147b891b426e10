"""The clip that a precision is tried on."""

from __future__ import annotations

from dataclasses import replace

from vos_deploy.bundle import Bundle, demonstration_model
from vos_deploy.export.mixed.calibration import Calibration


def test_the_clip_comes_at_the_size_that_the_model_works_at() -> None:
    shipped = replace(Bundle.load(demonstration_model()), short_side=None)
    assert Calibration().read(shipped).size == (243, 432)  # the sample's own
    assert Calibration().read(replace(shipped, short_side=120)).size == (120, 213)
    assert Calibration().read(replace(shipped, size=(96, 160))).size == (96, 160)
