"""RMNet: Efficient Regional Memory Network for VOS (Xie et al., CVPR 2021)."""

import os
from collections.abc import Iterable, Sequence
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vos_deploy.errors import InputError

from ...backends import Array, Backend
from ...estimate import most_likely
from ...memory import MemoryPolicy, MemoryState
from ..base import Option, Tracker
from . import flow as flows
from .bank import RegionalBank, is_regional_cheaper
from .flow import DIS, TINY
from .tokens import leading_padding, places, tokens_inside


class FlowOption(Option):
    """A name, a folder, or, in Python, a source of flow (see `flow.py`)."""

    def check(self, value: Any) -> None:
        if callable(value) or value in (TINY, DIS):
            return
        if not isinstance(value, str | os.PathLike) or not Path(value).is_dir():
            raise InputError(
                f"option {self.name!r} should be {TINY}, {DIS} or a folder of .flo files, and is "
                f"{value!r}"
            )


class RMNet(Tracker):
    """Memory: the annotated frame, every `policy.every`-th frame, every frame in which a mask was
    given, and the previous frame, with its soft probabilities. Each object has its own bank.

    In every frame an object has a box: of its mask in memory frames, of the previous mask moved by
    the flow in the frame that is segmented. Tokens outside are zeros to the read, and stay in its
    softmax. The read is done over all tokens (dense) or over those inside the boxes, the others
    together being one more (sparse); both give the same numbers.

    A mask that is drawn later is certain, here as in all methods. The released code differs for a
    new object: what owned its pixels before keeps its odds, which comes to half the probability
    where it was certain and to next to nothing elsewhere.

    Below, h x w is the feature grid at stride 16 and hw = h * w. A row is an object, or one that is
    expected and has not appeared: rows of the latter come last, and their planes of
    `probabilities` are (almost) zero.
    """

    graphs = (
        "encoder",
        "flow",
        "region",
        "memorize",
        "memory_read",
        "memory_read_regional",
        "decoder",
    )
    options = (
        FlowOption(
            "flow",
            str,
            TINY,
            "optical flow that moves the regions: tiny for the model's own network, dis for "
            "OpenCV's, or a folder of 00001.flo, 00002.flo, ...",
        ),
        Option(
            "read",
            str,
            "auto",
            "memory read over all tokens, over those inside the regions, or whichever is cheaper",
            ("auto", "dense", "sparse"),
        ),
        Option(
            "flip", bool, False, "follow the mirrored video as well and average: twice the work"
        ),
        Option(
            "expected_objects",
            int,
            0,
            "objects in the whole video; those that have not appeared yet are memorised with an "
            "empty mask, as in the published evaluation. Needs unlimited memory",
        ),
    )

    def __init__(
        self,
        backend: Backend,
        size: tuple[int, int],
        policy: MemoryPolicy,
        flow: str | os.PathLike[str] | flows.FlowSource = TINY,
        read: Literal["auto", "dense", "sparse"] = "auto",
        flip: bool = False,
        expected_objects: int = 0,
    ) -> None:
        if expected_objects and policy.frames is not None:
            raise InputError(
                "expected_objects goes with unlimited memory: a limited one would give up the "
                "frame in which an object appears"
            )
        super().__init__(backend, size, policy)
        self.read = read
        self.expected, self.seen = expected_objects, 0
        self.source = flows.find(flow)
        self.grid = ceil(size[0] / 16), ceil(size[1] / 16)
        self.hw = self.grid[0] * self.grid[1]
        at_8, at_4 = (tuple(factor * side for side in self.grid) for factor in (2, 4))
        self.query_key = self._output("encoder", "query_key", (self.hw, None))
        self.query_value = self._output("encoder", "query_value", (1, None, *self.grid))
        self.skip8 = self._output("encoder", "skip8", (1, None, *at_8))
        self.skip4 = self._output("encoder", "skip4", (1, None, *at_4))
        self.flow = self._output("flow", "flow", (2, *size))
        self.query_tokens = backend.empty((self.hw,), np.int32)
        self.places = backend.empty((self.hw,), np.int32)
        self.memory_tokens = backend.empty((self.hw,), np.int32)
        self.outside = backend.empty((1,), np.float32)
        self.banks: list[RegionalBank] = []
        self.mirror: RMNet | None = None
        if flip:
            self.mirror = RMNet(
                backend, size, policy, self._mirrored_flow, read, False, expected_objects
            )

    @property
    def memory(self) -> MemoryState:
        mirrored = self.mirror.banks if self.mirror else []
        return MemoryState.of([*self.banks, *mirrored], self.policy)

    def add(self) -> None:
        self.seen += 1
        hw, key_channels = self.query_key.shape
        # The first row of the expected ones, if there are any, becomes that of the new object.
        while len(self.banks) < self.num_objects + max(0, self.expected - self.seen):
            self.banks.append(
                RegionalBank(
                    self.backend,
                    (hw, key_channels),
                    (hw, self.query_value.shape[1]),
                    self.query_key.dtype,
                    self.policy.frames,
                )
            )

    def drop(self, slot: int) -> None:
        del self.banks[slot - 1]

    def allocate(self) -> None:
        rows, channels = len(self.banks), self.query_value.shape[1]
        self.probabilities = self.backend.empty((1 + rows, *self.size), np.float32)
        self.present = self.backend.empty((rows,), np.float32)
        self.readout = self.backend.empty((rows, self.hw, channels), self.query_value.dtype)
        self.query_region = self._output("region", "query_region", (rows, *self.grid))
        self.query_boxes = self._output("region", "query_boxes", (rows, 4))
        self.memory_boxes = self._output("memorize", "memory_boxes", (rows, 4))
        # Where the memory encoder writes for several objects at once, before the rows go to
        # their banks. A single object's bank is written directly.
        several = 0 if rows == 1 else rows
        self.memory_key = self._output("memorize", "memory_key", (several, self.hw, None))
        self.memory_value = self._output("memorize", "memory_value", (several, self.hw, None))

    def step(self, image: NDArray[np.uint8]) -> None:
        super().step(image)
        if self.mirror:
            self.mirror.step(np.ascontiguousarray(image[:, ::-1]))

    def estimate(self) -> NDArray[np.float32]:
        own = self.backend.download(self.probabilities[: 1 + self.num_objects])
        if self.mirror:
            own = (own + self.mirror.estimate()[..., ::-1]) / 2
        return own

    def label_map(self) -> NDArray[np.uint8]:
        return most_likely(self.estimate()) if self.mirror else super().label_map()

    def annotate(self, probabilities: NDArray[np.float32], slots: Iterable[int]) -> None:
        drawn = list(slots)
        super().annotate(probabilities, drawn)
        if self.mirror:
            self.mirror.annotate(np.ascontiguousarray(probabilities[..., ::-1]), drawn)

    def remove(self, slots: Sequence[int]) -> None:
        super().remove(slots)
        if self.mirror:
            self.mirror.remove(slots)

    def _replace(self, probabilities: NDArray[np.float32]) -> None:
        absent = len(self.banks) - self.num_objects
        super()._replace(np.pad(probabilities, ((0, absent), (0, 0), (0, 0))))
        present = np.arange(len(self.banks)) < self.num_objects
        self.backend.upload(present.astype(np.float32), self.present)

    def memorize(self) -> None:
        # A bank with room for the annotated frame alone takes no other.
        annotated = self.annotated + [False] * (len(self.banks) - self.num_objects)
        writing = [
            (row, bank)
            for row, bank in enumerate(self.banks)
            if annotated[row] or not bank.keeps_only_first
        ]
        if not writing:
            return
        slots = [bank.write() for _, bank in writing]
        if len(self.banks) == 1:
            self._run_memorize(*slots[0])
        else:
            self._run_memorize(self.memory_key, self.memory_value)
            for (row, _), (key, value) in zip(writing, slots, strict=True):
                self.backend.copy(self.memory_key[row : row + 1], key)
                self.backend.copy(self.memory_value[row : row + 1], value)
        if self.read != "dense":
            boxes = self.backend.download(self.memory_boxes)
            for row, bank in writing:
                bank.mark(tokens_inside(boxes[row], self.grid))
        if any(annotated) or self.frame % self.policy.every == 0:
            for _, bank in writing:
                bank.commit()

    def _run_memorize(self, key: Array, value: Array) -> None:
        # The masks of the objects are all planes but the background's.
        inputs = {"image": self.image, "masks": self.probabilities[1:]}
        outputs = {"memory_key": key, "memory_value": value, "memory_boxes": self.memory_boxes}
        self.backend.run("memorize", inputs, outputs)

    def segment(self) -> None:
        self._find_flow()
        self.backend.run(
            "region",
            # The probabilities are those of the previous frame still.
            {"masks": self.probabilities[1:], "flow": self.flow},
            {"query_region": self.query_region, "query_boxes": self.query_boxes},
        )
        query_value, skips = self.query_value, {"skip8": self.skip8, "skip4": self.skip4}
        self.backend.run(
            "encoder",
            {"image": self.image},
            {"query_key": self.query_key, "query_value": query_value, **skips},
        )
        self._read_memory()
        rows = len(self.banks)
        self.backend.run(
            "decoder",
            {
                "readout": self.readout.reshape((rows, *self.grid, query_value.shape[1])),
                "query_region": self.query_region,
                "query_value": query_value,
                **skips,
                "present": self.present,
                "image": self.image,  # its size: what the padding is cut down to
            },
            {"probabilities": self.probabilities, "labels": self.labels},
        )

    def _find_flow(self) -> None:
        """Fill `flow`, float32 [2, H, W], from `image` into `previous_image`."""
        if self.source is None:
            images = {"image": self.image, "previous": self.previous_image}
            self.backend.run("flow", images, {"flow": self.flow})
            return
        started = perf_counter()
        image, previous = map(self.backend.download, (self.image, self.previous_image))
        found = flows.check(self.source(self.frame, image, previous), self.size)
        self.backend.upload(np.ascontiguousarray(found.transpose(2, 0, 1)), self.flow)
        timings = self.backend.timings
        timings["flow"] = timings.get("flow", 0.0) + perf_counter() - started

    def _mirrored_flow(self, index: int, *images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The flow of the mirrored video, [H, W, 2]: the mirror image of this one's."""
        mirrored = self.backend.download(self.flow)[..., ::-1].transpose(1, 2, 0)
        return np.asarray(mirrored * np.array([-1, 1], np.float32))

    def _read_memory(self) -> None:
        """Fill `readout` object by object."""
        boxes = None if self.read == "dense" else self.backend.download(self.query_boxes)
        regions = self.query_region.reshape((len(self.banks), self.hw))
        for row, bank in enumerate(self.banks):
            memory = {"memory_key": bank.keys, "memory_value": bank.values}
            outputs = {"readout": self.readout[row]}
            lists = None if boxes is None else self._lists(boxes[row], bank)
            if lists is None:
                query = {"query_key": self.query_key, "query_region": regions[row]}
                self.backend.run("memory_read", {**query, **memory}, outputs)
            else:
                query = {"query_key": self.query_key, **lists}
                self.backend.run("memory_read_regional", {**query, **memory}, outputs)

    def _lists(self, box: NDArray[np.int32], bank: RegionalBank) -> dict[str, Array] | None:
        """Which tokens the regional read needs, on the device; None if the dense one is cheaper."""
        query = tokens_inside(box, self.grid, leading_padding(self.size))
        memory, held = bank.inside, bank.frames * self.hw
        if self.read == "auto" and not is_regional_cheaper(len(query), len(memory), self.hw, held):
            return None
        if len(memory) > self.memory_tokens.shape[0]:
            self.memory_tokens = self.backend.empty((2 * held,), np.int32)
        lists = {
            "query_tokens": self.query_tokens[: len(query)],
            "places": self.places,
            "memory_tokens": self.memory_tokens[: len(memory)],
            "outside": self.outside,
        }
        outside = np.array([held - len(memory)], np.float32)
        arrays = (query, places(query, self.hw), memory, outside)
        for source, target in zip(arrays, lists.values(), strict=True):
            self.backend.upload(source, target)
        return lists
