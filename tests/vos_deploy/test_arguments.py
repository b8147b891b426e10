from __future__ import annotations

import argparse
from typing import Any

import pytest

from vos_deploy import arguments


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (arguments.positive, "5", 5),
        (arguments.frame_number, "0", 0),
        (arguments.rate, "29.97", 29.97),
        (arguments.rate, "1000", 1000.0),
        (arguments.fraction, "0.02", 0.02),
        (arguments.numbers, "1,5,10", [1, 5, 10]),
        (arguments.object_ids, "1,254", [1, 254]),
        (arguments.frame_size(), "480x854", (480, 854)),
        (arguments.frame_size(16), "16x854", (16, 854)),
        (arguments.working_size, "480", 480),
        (arguments.working_size, "480x854", (480, 854)),
    ],
)
def test_values(kind: Any, text: str, value: Any) -> None:
    assert kind(text) == value


@pytest.mark.parametrize(
    ("kind", "text", "sentence"),
    [
        (arguments.positive, "0", "must be an integer of at least 1, got '0'"),
        (arguments.positive, "-1", "at least 1, got '-1'"),
        (arguments.positive, "many", "got 'many'"),
        (arguments.rate, "0", "must be a number above 0 and at most 1000, got '0'"),
        (arguments.rate, "nan", "above 0"),
        (arguments.fraction, "1.5", "must be a number from 0 to 1, got '1.5'"),
        (arguments.fraction, "nan", "from 0 to 1"),
        (arguments.rate, "fast", "got 'fast'"),
        (arguments.frame_number, "-1", "at least 0, got '-1'"),
        (arguments.numbers, "1,,2", "at least 1, got ''"),
        (arguments.object_ids, "1,255", "at most 254"),
        (arguments.frame_size(16), "8x854", "sides of at least 16, such as 480x854, got '8x854'"),
        (arguments.frame_size(), "480", "must be HEIGHTxWIDTH, such as 480x854"),
        (arguments.working_size, "480x", "must be HEIGHTxWIDTH"),
        (arguments.working_size, "0", "at least 1"),
    ],
)
def test_refusals(kind: Any, text: str, sentence: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=sentence):
        kind(text)
