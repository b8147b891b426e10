"""A saved segmenter goes on as the one that was not interrupted, whatever the method."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

pytest.importorskip("torch")

from tests.support.modules import modules
from vos_deploy import Model, Segmenter
from vos_deploy.benchmarks.scene import scene
from vos_deploy.methods import METHODS

SIZE = (48, 80)
FRAMES = 14
# After how many steps the state is saved: after a mask; with all in use; after an object went; at
# the end.
MOMENTS = (1, 5, 11, FRAMES)
TOKENS: dict[str, Any] = {"prototypes": 8, "long_term_tokens": 20}
FEW_FRAMES: dict[str, Any] = {"working_frames": 3, "min_frames": 2, "buffer_tokens": 4}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("stm", {"memory_every": 2, "memory_frames": 3}),
    ("stm", {"memory_every": 1, "memory_frames": "unlimited", "size": 32}),
    ("rmnet", {"memory_every": 2, "read": "sparse"}),
    ("rmnet", {"flip": True, "expected_objects": 5, "memory_frames": "unlimited"}),
    ("stcn", {"memory_every": 3, "include_last": True}),
    ("stcn", {"memory_every": 1, "memory_frames": 4, "memory_policy": "stride"}),
    ("rde", {"memory_every": 3}),
    ("rde", {"memory_every": 3, "mode": "gt-compress"}),
    ("rde", {"memory_every": 2, "memory_frames": 3, "mode": "all-frames"}),
    ("imsfr", {"memory_every": 1, "sampling": "davis2016", "seed": 3}),
    ("imsfr", {"memory_every": 1, "sampling": "youtube"}),
    ("xmem", {"memory_every": 1, "memory_frames": 3, **TOKENS}),
    ("xmem", {"memory_every": 2, "long_term": False}),
    (
        "xmem",
        {
            "memory_every": 1,
            "long_term": False,
            "memory_frames": 4,
            "memory_policy": "least-used",
            "memory_mib": 9.5,
        },
    ),
    ("cutie", {"memory_every": 1, "long_term": True, **FEW_FRAMES, **TOKENS}),
    ("cutie", {"memory_every": 3, "stagger": 2, "chunk": 1}),
    ("gfrtm", {"update_every": 2, "reuse_threshold": 0.5}),
]


@cache
def shared(method: str) -> Model:
    return Model(**modules(method), threads=1)


def clip() -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Objects 1 and 2, then 3, then a correction of 2."""
    given = {0: (1, 2), 3: (3,), 8: (2,)}
    for t, (frame, mask) in enumerate(itertools.islice(scene(SIZE, 3), FRAMES)):
        yield frame, np.where(np.isin(mask, given[t]), mask, 0) if t in given else None


def follow(
    segmenter: Segmenter, start: int, save: Path | None = None, end: int = FRAMES
) -> list[np.ndarray]:
    """Labels and probabilities of the frames from `start` to `end`; at MOMENTS the state is
    saved."""
    found = []
    for t, (frame, mask) in itertools.islice(enumerate(clip()), start, end):
        found += [segmenter.step(frame, mask), segmenter.probabilities.copy()]
        if t == 9:
            segmenter.remove(1)
        if save is not None and t + 1 in MOMENTS:
            segmenter.save(save / f"{t + 1}.safetensors")
    return found


def assert_same_state(found: Path, expected: Path) -> None:
    with safe_open(found, "numpy") as one, safe_open(expected, "numpy") as other:
        assert one.metadata() == other.metadata()
        assert one.keys() == other.keys()
        for name in one.keys():  # noqa: SIM118 -- not a mapping
            np.testing.assert_array_equal(one.get_tensor(name), other.get_tensor(name), name)


def test_all_methods_are_here() -> None:
    assert {method for method, _ in CASES} == set(METHODS)


@pytest.mark.parametrize(
    ("method", "options"), CASES, ids=[f"{m}-{'-'.join(map(str, o.values()))}" for m, o in CASES]
)
def test_goes_on_as_if_nothing_had_happened(
    method: str, options: dict[str, Any], tmp_path: Path
) -> None:
    """From each moment to the next, where it is saved again: as the same state."""
    model, again = shared(method), tmp_path / "again"
    again.mkdir()
    with model.segmenter(**options) as segmenter:
        expected = follow(segmenter, 0, tmp_path)
        held, counted = segmenter.memory, segmenter.statistics
    for moment, end in itertools.pairwise(MOMENTS):
        with model.load(tmp_path / f"{moment}.safetensors") as segmenter:
            assert segmenter.objects == (
                [2, 3] if moment > 9 else [1, 2, 3] if moment > 3 else [1, 2]
            )
            found = follow(segmenter, moment, again, end)
            if end == FRAMES:
                assert segmenter.memory == held
                assert segmenter.statistics == counted
        for one, other in zip(found, expected[2 * moment : 2 * end], strict=True):
            np.testing.assert_array_equal(one, other)
        assert_same_state(again / f"{end}.safetensors", tmp_path / f"{end}.safetensors")


def test_probabilities_of_the_last_frame_are_there(tmp_path: Path) -> None:
    for steps in (1, 2):
        with shared("stm").segmenter(size=32) as segmenter:
            for frame, mask in itertools.islice(clip(), steps):
                segmenter.step(frame, mask)
            segmenter.save(tmp_path / "state")
            expected = segmenter.probabilities
        with shared("stm").load(tmp_path / "state") as segmenter:
            np.testing.assert_array_equal(segmenter.probabilities, expected)


def test_what_is_no_plain_value_is_given_again(tmp_path: Path) -> None:
    def still(index: int, image: Any, previous: Any) -> np.ndarray:
        return np.zeros((*SIZE, 2), np.float32)

    with shared("rmnet").segmenter(flow=still) as segmenter:
        expected = follow(segmenter, 0, tmp_path)
    path = tmp_path / "5.safetensors"
    with pytest.raises(Exception, match=r"cannot hold flow: give the same again"):
        shared("rmnet").load(path)
    with shared("rmnet").load(path, flow=still) as segmenter:
        for one, other in zip(follow(segmenter, 5), expected[10:], strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_sampler_of_ones_own_is_no_state(tmp_path: Path) -> None:
    with shared("imsfr").segmenter() as segmenter:
        segmenter.step(*next(clip()))
        segmenter._tracker.sampler = lambda frames, count: range(count)  # type: ignore[union-attr]
        with pytest.raises(Exception, match="sampler is function, which cannot be saved"):
            segmenter.save(tmp_path / "state")
    assert not list(tmp_path.iterdir())


def test_objects_that_are_paused(tmp_path: Path) -> None:
    with shared("stcn").segmenter() as segmenter:
        frames = [frame for frame, _ in clip()]
        segmenter.step(*next(clip()))
        segmenter.pause(2)
        for _ in range(2):
            with pytest.raises(Exception, match="object 2 is paused, which a state does not hold"):
                segmenter.save(tmp_path / "state")
            segmenter.step(frames[1])
        segmenter.resume(2)
        with pytest.raises(Exception, match="object 2 is paused"):
            segmenter.save(tmp_path / "state")
        segmenter.step(frames[2])
        segmenter.save(tmp_path / "state")
        expected = [segmenter.step(frame) for frame in frames[3:]]
    with shared("stcn").load(tmp_path / "state") as segmenter:
        for frame, labels in zip(frames[3:], expected, strict=True):
            np.testing.assert_array_equal(segmenter.step(frame), labels)


def test_limit_of_the_model_holds_for_what_is_loaded(tmp_path: Path) -> None:
    with shared("stm").segmenter() as segmenter:
        segmenter.step(*next(clip()))
        segmenter.save(tmp_path / "state")
    with (
        Model(**modules("stm"), threads=1, memory_limit=1000) as model,
        pytest.raises(Exception, match="2 objects at 48x80 needs"),
    ):
        model.load(tmp_path / "state")
