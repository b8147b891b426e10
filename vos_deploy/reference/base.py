"""What a reference is: the published frame loop of a method, one `step` per frame."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import InputError
from ..masks import check_mask, object_ids, one_hot
from ..models.network import Network

N = TypeVar("N", bound=Network)
T = TypeVar("T")


class Reference(ABC, Generic[N]):
    """Follows objects as the authors' code does: the oracle of tests, parity and speed.

    Runs on the network's device, in plain PyTorch and in the official order, and shares no loop
    with the tracker that ships. A subclass takes the method's options as keywords, named as
    `Segmenter` names them, with the published values as defaults.

    every: memorise every n-th frame, where the caller does not say.
    corrects: whether a mask given later may draw objects that are followed already.
    timings: seconds of the last step per stage, named as the Segmenter names them.
    probabilities: float32 [1 + K, H, W] of the last frame, background first, then `objects`.
    objects: the ids followed, in order.
    frame, pixels, size: index of the current frame, its bytes uint8 [H, W, 3], and (H, W).
    """

    every: ClassVar[int] = 1
    corrects: ClassVar[bool] = False

    def __init__(
        self, network: N, *, memory_every: int | None = None, memory_frames: int | None = None
    ) -> None:
        """memory_frames: how many frames an object's memory holds; None for no limit."""
        self.network = network
        self.device = next(network.parameters()).device
        self.memory_every = memory_every or self.every
        self.memory_frames = memory_frames
        self.timings: dict[str, float] = {}
        self.objects: list[int] = []
        self.frame = -1
        self.pixels = np.empty((0, 0, 3), np.uint8)
        self.size = 0, 0
        self.probabilities = torch.empty(0)

    @torch.inference_mode()
    def step(
        self,
        frame: NDArray[np.uint8],
        mask: NDArray[Any] | None = None,
        objects: Iterable[int] | None = None,
    ) -> NDArray[np.uint8]:
        """Segment the next frame.

        Args:
            frame: uint8 [H, W, 3], RGB, of the same size in every step.
            mask: integer [H, W], object ids; 255 is void. Needed in the first step; later it
                brings in new objects.
            objects: the ids in the mask that count; None for all of them.

        Returns:
            Object ids, uint8 [H, W]; 0 is background.

        Raises:
            InputError: the first step has no mask, or the mask is not as above.
        """
        size = frame.shape[0], frame.shape[1]
        given = self._check(size, mask, objects)
        self.timings.clear()
        self.frame += 1
        self.pixels, self.size = frame, size
        with self.timed("prepare"):
            pixels = torch.from_numpy(frame.copy()).to(self.device)
            image = self.prepare(pixels.permute(2, 0, 1).unsqueeze(0).float() / 255)
        if self.objects:
            self.probabilities = self.segment(image)
        else:
            self.probabilities = torch.ones(1, *size, device=self.device)
        if given is not None:
            checked, ids = given
            drawn = torch.from_numpy(one_hot(checked, ids)[1:]).to(self.device)
            self.objects += [object_id for object_id in ids if object_id not in self.objects]
            slots = [self.objects.index(object_id) + 1 for object_id in ids]
            self.probabilities = self.annotate(image, drawn, slots)
        with self.timed("finish"):
            return self.labels()

    def prepare(self, image: Tensor) -> Tensor:
        """What `segment` and `annotate` are given of a frame float32 [1, 3, H, W] in [0, 1]:
        normalised or padded, as the method wants it."""
        return image

    @abstractmethod
    def segment(self, image: Tensor) -> Tensor:
        """Probabilities [1 + K, H, W] of the next frame. Called while there are objects.

        Whatever is due of the frame before is memorised first; `probabilities` are still its own.
        """

    @abstractmethod
    def annotate(self, image: Tensor, drawn: Tensor, slots: list[int]) -> Tensor:
        """Probabilities [1 + K', H, W] of the current frame, in which a mask was given.

        `probabilities` holds what `segment` made of it, [1 + K, H, W]; all background, [1, H, W],
        in the first frame. drawn: float32 [n, H, W], in {0, 1}. slots: those of the drawn
        objects, from 1; slots above K are new and come in order.
        """

    def labels(self) -> NDArray[np.uint8]:
        """Object ids of the current frame, uint8 [H, W]: the most likely."""
        ids = torch.tensor([0, *self.objects], dtype=torch.uint8, device=self.device)
        found: NDArray[np.uint8] = ids[self.probabilities.argmax(0)].cpu().numpy()
        return found

    def overwritten(self, drawn: Tensor) -> Tensor:
        """`probabilities` and new objects [n, H, W] behind them; drawn pixels are certain."""
        return torch.cat([self.probabilities * (drawn.amax(0) < 0.5), drawn])

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Counts what happens inside among a stage, until the device has done it."""
        self._wait()
        started = time.perf_counter()
        yield
        self._wait()
        self.timings[stage] = self.timings.get(stage, 0.0) + time.perf_counter() - started

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _check(
        self, size: tuple[int, int], mask: NDArray[Any] | None, objects: Iterable[int] | None
    ) -> tuple[NDArray[np.uint8], list[int]] | None:
        """The mask as uint8 [H, W] and the ids in it that count; None without a mask."""
        if mask is None:
            if not self.objects:
                raise InputError("the first frame needs a mask: call step(frame, mask)")
            return None
        checked = check_mask(mask, size)
        ids = object_ids(checked) if objects is None else list(objects)
        known = [str(object_id) for object_id in ids if object_id in self.objects]
        if known and not self.corrects:
            raise InputError(
                f"the published loop takes new objects only, and {', '.join(known)} is followed: "
                "name the new ones with `objects`"
            )
        return checked, ids


def append_limited(memory: list[T], new: T, limit: int | None) -> None:
    """Add a memory frame. One too many (`limit`, None for no limit) pushes out the oldest but the
    first, which stays where there is room for two."""
    memory.append(new)
    if limit is not None and len(memory) > limit:
        del memory[min(1, limit - 1)]
