"""RMNet: Efficient Regional Memory Network for VOS (Xie et al., CVPR 2021)."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError
from vos_deploy.options import Options, option

from ...backends import Array, Backend
from ...memory.bank import MemoryPolicy
from ..base import Tracker
from ..own_keys import OwnKeys
from . import flow as flows
from .bank import RegionalBank, is_regional_cheaper
from .flow import DIS, TINY
from .tokens import leading_padding, places, tokens_inside


def check_flow(value: Any) -> None:
    """A name, a folder, or, in Python, a source of flow (see `flow.py`)."""
    if callable(value) or value in (TINY, DIS):
        return
    if not isinstance(value, str | os.PathLike) or not Path(value).is_dir():
        raise InputError(f"flow must be {TINY}, {DIS} or a folder of .flo files, got {value!r}")


@dataclass(frozen=True)
class RMNetOptions(Options):
    flow: Any = option(
        TINY,
        "optical flow that moves the regions: tiny (the model's own network), dis "
        "(OpenCV), or a folder with 00001.flo, 00002.flo, ...",
        check=check_flow,
    )
    read: str = option(
        "auto",
        "read the memory over all tokens, only over those inside the regions, or whichever "
        "is cheaper",
        choices=("auto", "dense", "sparse"),
    )
    flip: bool = option(False, "also follow the mirrored video and average both; doubles the cost")
    expected_objects: int = option(
        0,
        "number of objects in the whole video; those that have not appeared yet are "
        "memorised with an empty mask, as in the published evaluation; needs unlimited "
        "memory",
        at_least=0,
        metavar="N",
    )


class RMNet(OwnKeys[RegionalBank]):
    """The memory of `OwnKeys`, of which an object reads a region; a mask that was given for any
    object keeps the frame for all of them.

    In every frame an object has a box: of its mask in memory frames, of the previous mask moved by
    the flow in the frame that is segmented. Tokens outside are zeros to the read, and stay in its
    softmax. The read is done over all tokens (dense) or over those inside the boxes, the others
    together being one more (sparse); both give the same numbers.

    A mask that is drawn later is certain, here as in all methods. The released code differs for a
    new object: what owned its pixels before keeps its odds, which comes to half the probability
    where it was certain and to next to nothing elsewhere.

    A row is an object, or one that is expected and has not appeared: rows of the latter come last,
    and their planes of `probabilities` are (almost) zero.
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
    option_type = RMNetOptions
    extra_outputs = ("memory_boxes",)
    state = (*OwnKeys.state, "seen", "present")
    options: RMNetOptions

    def __init__(
        self,
        backend: Backend,
        size: tuple[int, int],
        policy: MemoryPolicy,
        options: RMNetOptions,
        source: flows.FlowSource | None = None,
    ) -> None:
        """source: a flow to be used in place of that of the options."""
        super().__init__(backend, size, policy, options)
        self.seen = 0
        self.source = source or flows.find(options.flow)
        self.flow = self._output("flow", "flow", (2, *size))
        self.query_tokens = backend.empty((self.hw,), np.int32)
        self.places = backend.empty((self.hw,), np.int32)
        self.memory_tokens = backend.empty((self.hw,), np.int32)
        self.outside = backend.empty((1,), np.float32)

    @classmethod
    def create(
        cls, backend: Backend, size: tuple[int, int], policy: MemoryPolicy, options: Options
    ) -> Tracker:
        from .mirrored import Mirrored

        assert isinstance(options, RMNetOptions)
        return (Mirrored if options.flip else RMNet)(backend, size, policy, options)

    @classmethod
    def check(cls, bundle: Bundle, policy: MemoryPolicy, options: Options) -> None:
        assert isinstance(options, RMNetOptions)
        if options.expected_objects and policy.frames is not None:
            raise InputError(
                'expected_objects needs memory_frames="unlimited": a limited memory could drop the '
                "frame in which an object appears"
            )

    @classmethod
    def check_boxes(cls, bundle: Bundle, options: Options, size: tuple[int, int] | None) -> None:
        super().check_boxes(bundle, options, size)
        assert isinstance(options, RMNetOptions)
        if options.expected_objects:
            raise InputError(
                "decode_in_boxes does not go with expected_objects, which may be anywhere: leave "
                "one of them out"
            )

    def new_bank(self) -> RegionalBank:
        return RegionalBank(*self.bank_arguments())

    def add(self) -> None:
        self.seen += 1
        # The first row of the expected ones, if there are any, becomes that of the new object.
        missing = max(0, self.options.expected_objects - self.seen)
        while len(self.banks) < self.num_objects + missing:
            super().add()

    def allocate(self) -> None:
        super().allocate()
        rows = len(self.banks)
        self.present = self.backend.empty((rows,), np.float32)
        self.query_region = self._output("region", "query_region", (rows, *self.grid))
        self.query_boxes = self._output("region", "query_boxes", (rows, 4))
        self.memory_boxes = self._output("memorize", "memory_boxes", (rows, 4))

    def view(self) -> NDArray[np.float32]:
        return self.backend.read(self.probabilities[: 1 + self.num_objects])

    def _replace(self, probabilities: NDArray[np.float32]) -> None:
        # Those that are left when objects went have the planes of who has not appeared.
        absent = 1 + len(self.banks) - len(probabilities)
        super()._replace(np.pad(probabilities, ((0, absent), (0, 0), (0, 0))))
        present = np.arange(len(self.banks)) < self.num_objects
        self.backend.upload(present.astype(np.float32), self.present)

    def stays(self, row: int) -> bool:
        return any(self.annotated)

    def written(self, rows: Sequence[int]) -> None:
        if self.options.read != "dense":
            boxes = self.backend.download(self.memory_boxes)
            for row in rows:
                self.banks[row].mark(tokens_inside(boxes[row], self.grid))

    def segment(self) -> None:
        self._find_flow()
        self.backend.run(
            "region",
            # The probabilities are those of the previous frame still.
            {"masks": self.probabilities[1:], "flow": self.flow},
            {"query_region": self.query_region, "query_boxes": self.query_boxes},
        )
        self.encode()
        self._read_memory()
        self.decode(query_region=self.query_region, present=self.present)

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

    def _read_memory(self) -> None:
        """Fill `readout` object by object."""
        boxes = None if self.options.read == "dense" else self.backend.download(self.query_boxes)
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
        costs = len(query), len(memory), self.hw, held
        if self.options.read == "auto" and not is_regional_cheaper(*costs):
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
