"""What GPUs should carry, worked out by hand for one of them."""

from __future__ import annotations

import argparse

import pytest

from vos_deploy.benchmarks.sheets import SHEETS, Measured, Work, estimates, parse_measured

L4 = next(sheet for sheet in SHEETS if sheet.name == "L4")
# 121 TFLOP/s and 300 GB/s: 2 ms of operations, 1 ms of bytes.
WORK = Work(macs=121e9, moved=3e8, held=1e8)


def test_the_slower_of_operations_and_bytes_is_the_bound() -> None:
    assert WORK.milliseconds(L4) == pytest.approx((2.0, 1.0))
    assert WORK.bound(L4) == pytest.approx(500)
    assert Work(121e9, 3e9, 1e8).bound(L4) == pytest.approx(100)
    assert WORK.in_fp16.milliseconds(L4) == pytest.approx((2.0, 0.5))


def test_a_measurement_is_a_share_of_the_bound() -> None:
    rows = {row["GPU"]: row for row in estimates(WORK, Measured(L4, 125))}
    assert rows["L4"]["frames/s at most"] == "500"
    assert rows["L4"]["frames/s at the share measured"] == "125"
    assert rows["L4"]["streams of 25/s"] == "5.0"
    assert rows["L4"]["streams in its memory"] == "240"
    h200 = rows["H200"]  # bound by 989 TFLOP/s
    assert h200["frames/s at most"] == f"{500 * 989 / 121:.0f}"
    assert h200["frames/s at the share measured"] == f"{125 * 989 / 121:.0f}"
    assert "streams of 25/s" not in estimates(WORK, None)[0]


def test_a_measurement_on_the_command_line() -> None:
    assert parse_measured("L4=12.5") == Measured(L4, 12.5)
    for wrong, message in {
        "H20=1": "did you mean",
        "abacus=1": "must be one of Jetson",
        "L4=-1": "must be GPU=",
        "L4=fast": "must be GPU=",
        "L4": "there is no data sheet of ''",
    }.items():
        with pytest.raises(argparse.ArgumentTypeError, match=message):
            parse_measured(wrong)
