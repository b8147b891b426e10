"""The memory bank: what is held after which writes, and that nothing moves or grows."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray

from vos_deploy.runtime.backends import Array
from vos_deploy.runtime.memory.bank import MemoryBank, MemoryPolicy, MemoryState

HW, KEY, VALUE = 3, 2, 4


class HostArrays:
    """The part of a backend that a bank uses."""

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        return np.full(shape, -1, dtype)

    def copy(self, source: Array, target: Array) -> None:
        np.copyto(np.asarray(target), np.asarray(source))


def make_bank(capacity: int | None) -> MemoryBank:
    return MemoryBank(HostArrays(), (HW, KEY), (HW, VALUE), np.float32, capacity)  # type: ignore[arg-type]


def write(bank: MemoryBank, frame: int, keep: bool) -> None:
    """Memorise frame number `frame`, whose keys and values are that number."""
    key, value = bank.write()
    assert key.shape == (1, HW, KEY)
    assert value.shape == (1, HW, VALUE)
    np.asarray(key)[:] = frame
    np.asarray(value)[:] = 10 * frame
    if keep:
        bank.commit()


def held(bank: MemoryBank) -> list[int]:
    """The frames in the bank, by their keys; the values must agree."""
    keys = np.asarray(bank.keys).reshape(bank.frames, HW * KEY)
    values = np.asarray(bank.values).reshape(bank.frames, HW * VALUE)
    assert (keys == keys[:, :1]).all()
    assert (values == 10 * keys[:, :1]).all()
    return [int(key[0]) for key in keys]


def test_empty_bank() -> None:
    bank = make_bank(4)
    assert bank.frames == 0
    assert bank.keys.shape == (0, KEY)


def test_temporary_frame_makes_room_for_the_next() -> None:
    bank = make_bank(4)
    write(bank, 0, keep=True)
    write(bank, 1, keep=False)
    assert held(bank) == [0, 1]
    write(bank, 2, keep=True)
    assert held(bank) == [0, 2]
    write(bank, 3, keep=False)
    assert held(bank) == [0, 2, 3]


def test_full_bank_evicts_the_oldest_but_never_the_first() -> None:
    bank = make_bank(3)
    contents = []
    for frame in range(6):
        write(bank, frame, keep=True)
        contents.append(sorted(held(bank)))
    assert contents == [[0], [0, 1], [0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 5]]


def test_temporary_frames_cost_a_full_bank_one_committed_frame_only() -> None:
    bank = make_bank(4)
    for frame in range(4):
        write(bank, frame, keep=True)
    for frame in (4, 5, 6):
        write(bank, frame, keep=False)
        assert sorted(held(bank)) == [0, 2, 3, frame]
    write(bank, 7, keep=True)
    assert sorted(held(bank)) == [0, 2, 3, 7]
    write(bank, 8, keep=False)
    assert sorted(held(bank)) == [0, 3, 7, 8]


def test_order_is_that_of_time() -> None:
    bank, contents = make_bank(3), []
    for frame in range(6):
        write(bank, frame, keep=True)
        contents.append([held(bank)[slot] for slot in bank.order])
    assert contents == [[0], [0, 1], [0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 5]]
    write(bank, 6, keep=False)
    write(bank, 7, keep=True)
    assert [held(bank)[slot] for slot in bank.order] == [0, 5, 7]


def test_room_for_one_frame() -> None:
    bank = make_bank(1)
    assert bank.keeps_only_first
    write(bank, 0, keep=True)
    assert held(bank) == [0]
    write(bank, 5, keep=True)  # another annotated frame takes its place
    assert held(bank) == [5]
    assert not make_bank(2).keeps_only_first


def test_room_for_two_frames_holds_the_first_and_the_last() -> None:
    bank = make_bank(2)
    for frame in range(5):
        write(bank, frame, keep=frame % 2 == 0)
        assert held(bank) == ([0, frame] if frame else [0])


def test_unlimited_bank_grows_and_keeps_everything() -> None:
    bank = make_bank(None)
    for frame in range(40):
        write(bank, frame, keep=True)
    assert held(bank) == list(range(40))
    assert not bank.keeps_only_first


def test_contents_are_views_of_buffers_that_never_move() -> None:
    bank = make_bank(3)
    write(bank, 0, keep=True)
    first, size = np.asarray(bank.keys), bank.nbytes
    for frame in range(1, 50):
        write(bank, frame, keep=True)
    last = np.asarray(bank.keys)
    assert np.shares_memory(first, last)
    assert first.ctypes.data == last.ctypes.data
    assert bank.nbytes == size == 3 * HW * (KEY + VALUE) * 4


@pytest.mark.parametrize(
    ("frames", "capacity", "text"),
    [
        (8, 8, "bank 4/16 frames · 0 MiB · evicts oldest, keeps first"),
        (None, None, "bank 4/unlimited frames · 0 MiB · evicts nothing"),
    ],
)
def test_state_sums_over_banks(frames: int | None, capacity: int | None, text: str) -> None:
    banks = [make_bank(capacity), make_bank(capacity)]
    for bank in banks:
        write(bank, 0, keep=True)
        write(bank, 1, keep=False)
    state = MemoryState.of(banks, MemoryPolicy(every=5, frames=frames))
    assert state.frames == 4
    assert state.bytes == banks[0].nbytes + banks[1].nbytes
    assert str(state) == text
