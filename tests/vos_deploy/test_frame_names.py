"""Files are matched with frames by their names, as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vos_deploy.frame_names import FrameNames, by_number


@given(
    numbers=st.lists(st.integers(0, 99_999), unique=True, min_size=1, max_size=20),
    prefix=st.sampled_from(["", "f", "frame_", "Clip-"]),
    widths=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    other=st.sampled_from(["", "mask_", "F", "frame_"]),
)
def test_whatever_the_padding_and_the_words(
    numbers: list[int], prefix: str, widths: tuple[int, int], other: str
) -> None:
    frames, masks = (
        [f"{words}{number:0{width}d}" for number in sorted(numbers)]
        for words, width in zip((prefix, other), widths, strict=True)
    )
    names = FrameNames(frames)
    assert [names.find(name) for name in frames] == [*range(len(numbers))]
    assert [names.find(name) for name in masks] == [*range(len(numbers))]


@pytest.mark.parametrize(
    ("frames", "name", "index"),
    [
        (["0.25", "0.5", "1.0"], "0.50", 1),
        (["0.25", "0.5", "1.0"], "5", None),  # not the last number of 0.5
        (["0.25", "0.5", "1.0"], "1", 2),
        (["a1", "b1"], "1", None),  # of either
        (["a1", "b1"], "B1", 1),
        (["f1", "f2"], "take2_f1", None),  # two numbers: of another clip
        (["f1", "f2"], "f3", None),
        (["f1", "f2"], "notes", None),
    ],
)
def test_what_is_of_two_frames_is_of_none(frames: list[str], name: str, index: int | None) -> None:
    assert FrameNames(frames).find(name) == index


def test_the_last_number_of_a_name() -> None:
    assert [by_number(name) for name in ("00012", "take2_0007", "mask")] == [12, 7, None]
