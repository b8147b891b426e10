"""What every reference does with frames, masks and ids, on a method that only copies."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from vos_deploy.benchmarks.scene import scene  # noqa: E402
from vos_deploy.errors import InputError  # noqa: E402
from vos_deploy.methods import METHODS, find_part  # noqa: E402
from vos_deploy.models import Network, create  # noqa: E402
from vos_deploy.reference.base import Reference, append_limited  # noqa: E402


class Still(Reference[Network]):
    """Predicts what there was in the frame before."""

    every = 3

    def segment(self, image: torch.Tensor) -> torch.Tensor:
        assert image.shape == (1, 3, 4, 6) and image.min() >= 0 and image.max() <= 1
        with self.timed("encoder"), self.timed("encoder"):
            pass
        return self.probabilities

    def annotate(
        self,
        image: torch.Tensor,
        drawn: torch.Tensor,
        slots: list[int],
    ) -> torch.Tensor:
        before = len(self.probabilities)
        assert slots == list(range(before, before + len(drawn)))
        return self.overwritten(drawn)


@pytest.fixture
def still() -> Still:
    return Still(create("stm", backbone="resnet18", key_dim=8, value_dim=8, decoder_width=8))


FRAME = np.full((4, 6, 3), 255, np.uint8)


def mask(**boxes: int) -> np.ndarray:
    """Ids in the four corners: top_left, ..., of a mask that is void in its first pixel."""
    ids = np.zeros((4, 6), np.uint8)
    ids[:2, :3], ids[:2, 3:] = boxes.get("left", 0), boxes.get("right", 0)
    ids[3, 5] = 255
    return ids


def test_ids_are_kept_and_may_be_added(still: Still) -> None:
    first = still.step(FRAME, mask(left=7, right=3))
    assert still.objects == [3, 7]
    assert np.array_equal(first, mask(left=7, right=3) % 255)  # void is nobody's
    with pytest.raises(InputError, match="3 is followed"):
        still.step(FRAME, mask(left=1, right=3))
    labels = still.step(FRAME, mask(left=1, right=3), objects=[1])
    assert np.array_equal(labels, mask(left=1, right=3) % 255)
    assert still.objects == [3, 7, 1]
    assert still.probabilities.shape == (4, 4, 6)
    assert still.frame == 1


def test_stages_are_timed_and_add_up(still: Still) -> None:
    still.step(FRAME, mask(left=1))
    assert list(still.timings) == ["prepare", "finish"]
    still.step(FRAME)
    assert list(still.timings) == ["prepare", "encoder", "finish"]
    assert all(seconds >= 0 for seconds in still.timings.values())


def test_memory_is_memorised_as_published_or_as_asked(still: Still) -> None:
    assert (still.memory_every, still.memory_frames) == (3, None)
    asked = Still(still.network, memory_every=1, memory_frames=4)
    assert (asked.memory_every, asked.memory_frames) == (1, 4)


def test_first_frame_needs_a_mask(still: Still) -> None:
    with pytest.raises(InputError, match="the first frame needs a mask"):
        still.step(FRAME)
    with pytest.raises(InputError, match="frame's size"):
        still.step(FRAME, mask(left=1)[:3])
    assert still.frame == -1


@pytest.mark.parametrize(
    ("limit", "expected"), [(None, [0, 1, 2, 3]), (3, [0, 2, 3]), (2, [0, 3]), (1, [3])]
)
def test_first_memory_frame_stays(limit: int | None, expected: list[int]) -> None:
    held: list[int] = []
    for frame in range(4):
        append_limited(held, frame, limit)
    assert held == expected


@pytest.mark.gpu
@pytest.mark.parametrize("method", METHODS)
def test_a_gpu_gives_the_numbers_of_the_cpu(method: str) -> None:
    torch.manual_seed(0)
    network = create(method, backbone="resnet18")
    kind = find_part(method, "REFERENCE")
    found = []
    for device in ("cpu", "cuda"):
        reference = kind(network.to(device), memory_every=1)
        for t, (frame, mask) in enumerate(islice(scene((96, 160), 2), 3)):
            reference.step(frame, None if t else mask)
        found.append(reference.probabilities.cpu())
    assert (found[0] - found[1]).abs().mean() < 1e-3
