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
    timings: seconds of the last step per stage, named as the Segmenter names them.
    probabilities: float32 [1 + K, H, W] of the last frame, background first, then `objects`.
    objects: the ids followed, in order.
    frame: index of the last frame.
    """

    every: ClassVar[int] = 1

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
        if mask is None and not self.objects:
            raise InputError("the first frame needs a mask: call step(frame, mask)")
        size = frame.shape[0], frame.shape[1]
        checked = None if mask is None else check_mask(mask, size)
        self.timings.clear()
        self.frame += 1
        with self.timed("prepare"):
            image = (
                torch.from_numpy(frame.copy()).to(self.device).permute(2, 0, 1)[None].float() / 255
            )
            image = self.prepare(image)
        predicted = self.segment(image) if self.objects else self._nothing(size)
        if checked is not None:
            ids = object_ids(checked) if objects is None else list(objects)
            drawn = torch.from_numpy(one_hot(checked, ids)[1:]).to(self.device)
            slots = self._slots(ids)
            predicted = self.annotate(image, predicted, drawn, slots)
        self.probabilities = predicted
        with self.timed("finish"):
            ids_by_slot = torch.tensor([0, *self.objects], dtype=torch.uint8, device=self.device)
            labels: NDArray[np.uint8] = ids_by_slot[predicted.argmax(0)].cpu().numpy()
        return labels

    def prepare(self, image: Tensor) -> Tensor:
        """What `segment` and `annotate` are given of a frame float32 [1, 3, H, W] in [0, 1]:
        normalised or padded, as the method wants it."""
        return image

    @abstractmethod
    def segment(self, image: Tensor) -> Tensor:
        """Probabilities [1 + K, H, W] of the next frame. Called while there are objects.

        Whatever is due of the frame before is memorised first.
        """

    @abstractmethod
    def annotate(self, image: Tensor, predicted: Tensor, drawn: Tensor, slots: list[int]) -> Tensor:
        """Probabilities [1 + K', H, W] of the current frame, in which a mask was given.

        predicted: float32 [1 + K, H, W], as `segment` has it; [1, H, W], all background, in the
            first frame. drawn: float32 [n, H, W], in {0, 1}. slots: those of the drawn objects,
            from 1; slots above K are new and come in order.
        """

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Counts what happens inside among a stage, until the device has done it."""
        self._wait()
        started = time.perf_counter()
        yield
        self._wait()
        self.timings[stage] = self.timings.get(stage, 0.0) + time.perf_counter() - started

    def _nothing(self, size: tuple[int, int]) -> Tensor:
        return torch.ones(1, *size, device=self.device)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _slots(self, ids: list[int]) -> list[int]:
        self.objects += [object_id for object_id in ids if object_id not in self.objects]
        return [self.objects.index(object_id) + 1 for object_id in ids]


def append_limited(memory: list[T], new: T, limit: int | None) -> None:
    """Add a memory frame. One too many (`limit`, None for no limit) pushes out the oldest but the
    first, which stays where there is room for two."""
    memory.append(new)
    if limit is not None and len(memory) > limit:
        del memory[min(1, limit - 1)]
