"""The reference against the recorded runs of the official loop, and by itself."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.support import golden  # noqa: E402
from tests.support.stcn import EVERYWHERE, RUNS, recorded_network  # noqa: E402
from vos_deploy.models.padding import crop  # noqa: E402
from vos_deploy.models.stcn import STCN  # noqa: E402
from vos_deploy.reference.stcn import STCNReference  # noqa: E402


@pytest.fixture(scope="module")
def network() -> STCN:
    model = recorded_network()
    assert isinstance(model, STCN)
    return model


@pytest.mark.parametrize("length", golden.LENGTHS)
@pytest.mark.parametrize("name", golden.params(RUNS, {EVERYWHERE}, EVERYWHERE))
def test_recorded_run(network: STCN, name: str, length: int | None) -> None:
    run = RUNS[name]
    loop, found, values = STCNReference(network, **run.options), [], {}
    for t, (frame, mask) in enumerate(run.clip()[:length]):
        loop.step(frame, mask)
        found.append(loop.probabilities.numpy())
        values[t] = loop.memories[0][-1][1] if loop.memories[0] else None
    print(run.check(found))
    if name == "main" and length is None:
        difference = values[3][:, ::16].numpy() - golden.arrays("stcn")["f2.value_c16"]
        assert np.abs(difference).max() < 1e-2 and np.abs(difference).mean() < 1e-4


def small() -> STCN:
    torch.manual_seed(0)
    return STCN(backbone="resnet18", key_dim=8, value_dim=16, decoder_width=8)


FRAMES = np.random.default_rng(0).integers(0, 256, (9, 45, 70, 3), np.uint8)
MASK = np.zeros((45, 70), np.uint8)
MASK[5:20, 5:30], MASK[25:40, 30:60] = 3, 7


def slots(loop: STCNReference) -> list[int]:
    return [len(memory) + len(loop.last[i : i + 1]) for i, memory in enumerate(loop.memories)]


@pytest.mark.parametrize(
    ("every", "include_last", "expected"),
    [(2, False, [1, 1, 2, 2, 3]), (1, False, [1, 2, 3, 4, 5]), (3, True, [1, 2, 2, 2, 3])],
)
def test_memory_frames_of_each_read(every: int, include_last: bool, expected: list[int]) -> None:
    loop = STCNReference(small(), memory_every=every, include_last=include_last)
    loop.step(FRAMES[0], MASK)
    found = []
    for frame in FRAMES[1:6]:
        loop.step(frame)
        found += slots(loop)
    assert found == expected


def test_late_objects_have_a_memory_of_their_own() -> None:
    loop = STCNReference(small(), memory_every=2)
    loop.step(FRAMES[0], np.where(MASK == 7, 7, 0))
    found = []
    for t in range(1, 7):
        loop.step(FRAMES[t], MASK if t == 3 else None, objects=[3] if t == 3 else None)
        found.append(slots(loop))
    # The frame that marks the late object is memorised for the other as well, and counts anew.
    assert found == [[1], [1], [2, 0], [3, 1], [3, 1], [4, 2]]
    assert loop.objects == [7, 3] and loop.probabilities.shape == (3, 45, 70)
    assert torch.equal(loop.probabilities, crop(loop.padded, loop.pads, (45, 70)))


def test_limited_memory_keeps_the_first_frame() -> None:
    whole, limited = (STCNReference(small(), memory_every=1, memory_frames=n) for n in (None, 3))
    for t, frame in enumerate(FRAMES):
        for loop in (whole, limited):
            loop.step(frame, MASK if t == 0 else None)
        if t < 4:
            assert torch.equal(whole.probabilities, limited.probabilities)
    kept, every = limited.memories[0], whole.memories[0]
    assert len(kept) == 3 and torch.equal(kept[0][1], every[0][1])
    assert not torch.equal(whole.probabilities, limited.probabilities)
