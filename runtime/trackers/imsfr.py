"""IMSFR: isogenous memory sampling and frame relation mining (Dang et al., TIP 2023)."""

import random
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import DTypeLike

from vos_deploy.options import Options, option

from ..backends import Array, Backend
from ..memory.bank import MemoryBank, MemoryPolicy, MemoryState, only_columns, without_columns
from .shared_keys import Group, SharedKeys
from .top_k import top_k_option


class Sampler(Protocol):
    def __call__(self, frames: int, count: int) -> Sequence[int]:
        """`count` different numbers of range(frames), in any order; count may be 0."""


class RandomSampler:
    """Uniform, without replacement; the same draws for the same seed on every machine."""

    state: ClassVar[tuple[str, ...]] = ("drawn",)

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    @property
    def drawn(self) -> list[int]:
        """Where the generator is: the words of its state."""
        return list(self._random.getstate()[1])

    @drawn.setter
    def drawn(self, words: list[int]) -> None:
        self._random.setstate((self._random.VERSION, tuple(words), None))

    def __call__(self, frames: int, count: int) -> Sequence[int]:
        return self._random.sample(range(frames), count)


@dataclass(frozen=True)
class Sampling:
    """Which of T memory frames a query reads: all of them up to `limit`. Above, a fixed few and
    a random share, the latest frame (read apart from these) never.

    Frames are known by their position in time, 0 to T - 1. A frame that is both fixed and drawn
    is read twice, and so counts twice.

    recent: fixed frames, counted back from T.
    pinned: fixed frames, counted from 0.
    share: how many of T frames are drawn, rounded down.
    """

    limit: int
    recent: tuple[int, ...]
    pinned: tuple[int, ...]
    share: float

    def select(self, frames: int, sampler: Sampler) -> list[int]:
        """The positions to be read, of `frames` memory frames; draws once if there are too many."""
        if frames <= self.limit:
            return list(range(frames))
        drawn = sampler(frames - 1, int(self.share * frames))
        return [*(frames - back for back in self.recent), *self.pinned, *sorted(drawn)]


SAMPLINGS = {
    "davis2016": Sampling(limit=8, recent=(2,), pinned=(0,), share=0.1),
    "davis2017": Sampling(limit=10, recent=(5, 4, 3, 2), pinned=(1,), share=0.6),
    "youtube": Sampling(limit=10, recent=(5, 4, 3, 2), pinned=(0, 1), share=0.6),
}


@dataclass(frozen=True)
class IMSFROptions(Options):
    sampling: str = option(
        "davis2017",
        "which memory frames a query reads, by the data set the rule was made for; youtube: each "
        "object has a memory of its own",
        choices=tuple(SAMPLINGS),
    )
    top_k: int = top_k_option(4)
    seed: int = option(
        0, "seed of the random share of the sample, the same for every video", metavar="N"
    )


class SampledMemory:
    """The memory frames of a group, and the value that the latest of them is read with.

    bank: keys [hw, Ck] and values [hw, G * Cv] of all of them.
    latest_value: [hw, G * Cv].
    """

    state: ClassVar[tuple[str, ...]] = ("bank", "latest_value")

    def __init__(
        self, backend: Backend, bank: MemoryBank, latest_shape: tuple[int, int], dtype: DTypeLike
    ) -> None:
        self._backend = backend
        self.bank = bank
        self.latest_value = backend.empty(latest_shape, dtype)

    @property
    def frames(self) -> int:
        return self.bank.frames

    @property
    def nbytes(self) -> int:
        """Size of the buffers."""
        return self.bank.nbytes + self.latest_value.nbytes

    def drop_columns(self, start: int, stop: int) -> None:
        self.bank.drop_columns(start, stop)
        self.latest_value = without_columns(self._backend, self.latest_value, start, stop)

    def split(self, start: int, stop: int) -> Self:
        """Take the columns start..stop of all values out, into a memory of their own."""
        other = copy(self)
        other.bank = self.bank.split(start, stop)
        other.latest_value = only_columns(self._backend, self.latest_value, start, stop)
        self.latest_value = without_columns(self._backend, self.latest_value, start, stop)
        return other


class IMSFR(SharedKeys[SampledMemory]):
    """Memory: the annotated frame and every `policy.every`-th frame after it.

    A query reads three times: the `top_k` most similar tokens of a sample of all memory frames,
    the first memory frame, and the latest, which has a value of its own. The value of frame t sees
    frame t + 1 too, and is computed when that has arrived, just before it is needed.

    When a bank is full, one of its frames but the first and the newest is overwritten, and the
    sample is drawn from those that are held: position 1, which some rules fix, is then the oldest
    but the first.

    sampler: draws the random share of the sample. May be replaced after the first step; it is
        called once per query and group with more memory frames than the rule's limit, in the
        order of the groups.
    """

    graphs = ("encoder", "memorize", "memory_read", "frame_read", "decoder")
    state = (*SharedKeys.state, "sampler")
    option_type = IMSFROptions
    options: IMSFROptions
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "davis2016": {"memory_every": 6, "sampling": "davis2016", "top_k": 12},
        "davis2017": {"memory_every": 6, "sampling": "davis2017", "top_k": 4},
        "youtube": {"memory_every": 3, "sampling": "youtube", "top_k": 20},
    }

    def __init__(
        self, backend: Backend, size: tuple[int, int], policy: MemoryPolicy, options: IMSFROptions
    ) -> None:
        super().__init__(backend, size, policy, options)
        self.sampling = SAMPLINGS[options.sampling]
        self.sampler: Sampler = RandomSampler(options.seed)
        self._top_k = backend.empty((1,), np.int64)
        backend.upload(np.array([options.top_k]), self._top_k)
        self._frames = backend.empty((0,), np.int64)

    @property
    def separate(self) -> bool:
        return self.options.sampling == "youtube"

    @property
    def memory(self) -> MemoryState:
        banks = [group.memory.bank for group in self.groups for _ in range(group.objects)]
        state = MemoryState.of(banks, self.policy)
        held = sum(group.memory.nbytes for group in self.groups)
        return MemoryState(state.frames, state.capacity, held, state.evicts)

    def new_memory(self, objects: int) -> SampledMemory:
        dtype = self.features["query_key"].dtype
        key, value = ((self.hw, c) for c in (self.key_channels, objects * self.value_channels))
        bank = MemoryBank(self.backend, key, value, dtype, self.policy.frames, self.policy.evict)
        return SampledMemory(self.backend, bank, value, dtype)

    def allocate(self) -> None:
        super().allocate()
        shape = self.num_objects, self.hw, self.value_channels
        dtype = self.features["query_key"].dtype
        self.readout, self.first, self.latest = (self.backend.empty(shape, dtype) for _ in range(3))

    def remember(self, group: Group[SampledMemory]) -> None:
        bank = group.memory.bank
        # A bank with room for the annotated frame alone takes no other.
        if bank.keeps_only_first and not any(self.annotated[group.slots]):
            return
        key, value = bank.write()
        bank.commit()
        self.backend.copy(self.features["query_key"], key[0])
        shape = self.hw, group.objects, self.value_channels
        self.backend.run(
            "memorize",
            {
                "image": self.image,
                "next_image": self.next_image,
                "f16": self.features["f16"],
                "masks": self.probabilities[1:],
                "objects": group.indices,
            },
            {
                "memory_value": value.reshape(shape),
                "latest_value": group.memory.latest_value.reshape(shape),
            },
        )

    def read(self, group: Group[SampledMemory]) -> None:
        bank = group.memory.bank
        keys, slots = bank.keys, group.slots
        values: Array = bank.values.reshape((keys.shape[0], group.objects, self.value_channels))
        self.backend.run(
            "memory_read",
            {
                "query_key": self.features["query_key"],
                "memory_key": keys,
                "memory_value": values,
                "frames": self._select(bank),
                "top_k": self._top_k,
            },
            {"readout": self.readout[slots]},
        )
        first, newest = (
            slice(entry * self.hw, (entry + 1) * self.hw)
            for entry in (bank.order[0], bank.order[-1])
        )
        latest_value = group.memory.latest_value.reshape(values[newest].shape)
        self._read_frame(keys[first], values[first], self.first[slots])
        self._read_frame(keys[newest], latest_value, self.latest[slots])

    def _select(self, bank: MemoryBank) -> Array:
        """The entries of the memory frames to be read, int64 [S]."""
        positions = self.sampling.select(bank.frames, self.sampler)
        chosen = np.array([bank.order[position] for position in positions], np.int64)
        if len(chosen) > self._frames.shape[0]:
            self._frames = self.backend.empty(chosen.shape, np.int64)
        frames: Array = self._frames[: len(chosen)]
        self.backend.upload(chosen, frames)
        return frames

    def _read_frame(self, key: Array, value: Array, readout: Array) -> None:
        self.backend.run(
            "frame_read",
            {"query_key": self.features["query_key"], "memory_key": key, "memory_value": value},
            {"readout": readout},
        )

    def decode(self) -> None:
        reads = {"readout": self.readout, "first": self.first, "latest": self.latest}
        shape = self.num_objects, *self.grid, self.value_channels
        shared = {name: self.features[name] for name in ("shared16", "skip8", "skip4")}
        self.backend.run(
            "decoder",
            # The image tells the decoder the size to cut the padding down to.
            {**{n: r.reshape(shape) for n, r in reads.items()}, **shared, "image": self.image},
            {"probabilities": self.probabilities, "labels": self.labels},
        )


TRACKER = IMSFR
