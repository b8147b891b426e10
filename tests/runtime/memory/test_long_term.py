"""Long-term memory: what is condensed, what is thrown out, and that nothing grows."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray

from vos_deploy.runtime.backends import Array
from vos_deploy.runtime.memory.long_term import Budget, LongTermMemory

HW, ROW, SELECTION, VALUE = 4, 3, 2, 6
BUDGET = Budget(working_frames=4, min_frames=2, prototypes=3, tokens=8)


class HostArrays:
    """The part of a backend that a memory uses."""

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        return np.full(shape, -1, dtype)

    def copy(self, source: Array, target: Array) -> None:
        np.copyto(np.asarray(target), np.asarray(source))

    def upload(self, source: NDArray[Any], target: Array) -> None:
        assert source.shape == target.shape
        np.copyto(np.asarray(target), source)

    def download(self, source: Array) -> NDArray[Any]:
        return np.asarray(source).copy()


def choose(*arrays: Array) -> None:
    """Prototypes that are the chosen tokens themselves; a selection is that of its token."""
    rows, selections, values, chosen, key, made = map(np.asarray, arrays)
    assert (selections[:, 0] == rows[:, 0]).all()
    key[:], made[:] = rows[chosen], values[chosen]


def make_memory(budget: Budget = BUDGET) -> LongTermMemory:
    channels = ROW, SELECTION, VALUE
    return LongTermMemory(HostArrays(), budget, HW, channels, choose)  # type: ignore[arg-type]


def memorize(memory: LongTermMemory, frame: int) -> None:
    """Memorise a frame whose tokens are 10 * frame, 10 * frame + 1, ..."""
    numbers = 10 * frame + np.arange(HW)
    for view in memory.write():
        np.asarray(view)[:] = numbers[:, None]
    memory.commit()


def read(memory: LongTermMemory, counts: bool = True, **amounts: float) -> None:
    """Read tokens by given amounts, others by none: t12=1.0 is the third of frame 1."""
    tokens = held(memory)
    np.asarray(memory.next_usage)[:] = np.asarray(memory.usage)
    for name, amount in amounts.items():
        np.asarray(memory.next_usage)[tokens.index(int(name[1:]))] += amount
    if counts:
        memory.count()


def held(memory: LongTermMemory) -> list[int]:
    """The tokens in the order of the block; keys and values must agree."""
    keys, values = np.asarray(memory.keys), np.asarray(memory.values)
    assert keys.shape[1] == ROW and values.shape[1] == VALUE
    assert (keys == keys[:, :1]).all() and (values == keys[:, :1]).all()
    return [int(token) for token in keys[:, 0]]


def frame(number: int) -> list[int]:
    return [10 * number + i for i in range(HW)]


def fill(memory: LongTermMemory, *frames: int) -> None:
    for number in frames:
        memorize(memory, number)


def test_frames_are_held_in_order() -> None:
    memory = make_memory()
    fill(memory, 0, 1, 2)
    assert held(memory) == [*frame(0), *frame(1), *frame(2)] and not memory.full
    assert np.asarray(memory.usage).tolist() == [0] * 3 * HW


def test_tokens_that_were_read_most_become_prototypes() -> None:
    memory = make_memory()
    fill(memory, 0, 1, 2, 3)
    read(memory, t2=9, t11=2, t20=4, t22=3, t31=9)
    assert memory.full and memory.old_frames == 2
    memory.condense()
    # The newest first: that is the one that was read least. The first and the newest frame stay.
    assert held(memory) == [11, 22, 20, *frame(0), *frame(3)]
    assert (memory.prototypes, memory.frames, memory.full) == (3, 2, False)
    assert np.asarray(memory.usage).tolist() == [0, 0, 0, 0, 0, 9, 0, 0, 9, 0, 0]
    assert np.asarray(memory.selections)[:, 0].tolist() == [*frame(0), *frame(3)]


def test_use_is_counted_per_read_since_a_token_came() -> None:
    memory = make_memory()
    fill(memory, 0, 1)
    read(memory, t10=3)
    read(memory)
    memorize(memory, 2)
    read(memory, t20=2, t10=1)
    memorize(memory, 3)
    memory.condense()
    # 2 in one read is more than 4 in three.
    assert held(memory)[:3] == [11, 10, 20]


def test_a_read_that_does_not_count_leaves_no_trace() -> None:
    memory = make_memory()
    fill(memory, 0, 1, 2, 3)
    read(memory, counts=False, t11=5)
    read(memory, t12=1, t13=2, t20=3)
    memory.condense()
    assert held(memory)[:3] == [12, 13, 20]


def test_fewer_tokens_than_prototypes_are_all_taken() -> None:
    memory = make_memory(Budget(working_frames=3, min_frames=2, prototypes=6, tokens=12))
    fill(memory, 0, 1, 2)
    memory.condense()
    assert sorted(held(memory)[:4]) == frame(1) and memory.prototypes == HW


def test_only_the_first_frame_may_stay() -> None:
    memory = make_memory(Budget(working_frames=2, min_frames=1, prototypes=3, tokens=8))
    fill(memory, 0, 1)
    memory.condense()
    assert held(memory) == [12, 11, 10, *frame(0)]


def test_prototypes_that_were_read_least_make_room() -> None:
    memory = make_memory()
    fill(memory, 0, 1, 2, 3)
    memory.condense()
    fill(memory, 4, 5)
    memory.condense()
    before = held(memory)[:6]
    fill(memory, 6, 7)
    read(memory, **{f"t{token}": 5 - i for i, token in enumerate(before)})
    memory.condense()
    # The newest of those that stay is where the one that went was, the oldest.
    assert held(memory)[3:8] == [*before[1:5], before[0]]
    assert memory.prototypes == 8


@pytest.mark.parametrize(("spare", "left"), [(0, 5), (2, 3), (5, 0)])
def test_spare_room_is_made(spare: int, left: int) -> None:
    memory = make_memory(Budget(4, 2, 3, 8, spare=spare))
    fill(memory, 0, 1, 2, 3)
    memory.condense()
    fill(memory, 4, 5)
    memory.condense()
    before = held(memory)[:6]
    read(memory, **{f"t{token}": i for i, token in enumerate(before)})
    memory.make_room()
    assert sorted(held(memory)[: memory.prototypes]) == sorted(before[6 - left :])


@pytest.mark.parametrize(("ties_go", "left"), [(False, 5), (True, 2)])
def test_ties_with_the_last_one_to_go(ties_go: bool, left: int) -> None:
    memory = make_memory(Budget(4, 2, 3, 8, ties_go=ties_go))
    fill(memory, 0, 1, 2, 3)
    memory.condense()
    fill(memory, 4, 5)
    memory.condense()
    before = held(memory)
    read(memory, **{f"t{before[1]}": 1, f"t{before[4]}": 2})
    memory.make_room()
    assert memory.prototypes == left
    assert {before[1], before[4]} <= set(held(memory)[:left])


def test_nothing_is_thrown_out_where_there_is_just_enough_room() -> None:
    memory = make_memory(Budget(4, 2, 3, 6))
    fill(memory, 0, 1, 2, 3)
    memory.condense()
    fill(memory, 4, 5)
    memory.condense()
    assert memory.prototypes == 6


def test_nothing_grows() -> None:
    memory = make_memory()
    size, rng = memory.nbytes, np.random.default_rng(0)
    for number in range(200):
        memorize(memory, number)
        np.asarray(memory.next_usage)[:] = np.asarray(memory.usage) + rng.random(memory.usage.shape)
        memory.count()
        if memory.full:
            memory.condense()
        assert memory.prototypes <= 8 and memory.frames <= 4 and memory.nbytes == size
    assert held(memory)[memory.prototypes :][:HW] == frame(0)
    assert len(set(held(memory))) == len(held(memory))


def test_columns_of_an_object_go() -> None:
    memory = make_memory()
    fill(memory, 0, 1)
    memory.drop_columns(0, 2)
    assert memory.values.shape == (2 * HW, VALUE - 2)
