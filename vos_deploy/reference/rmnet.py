"""The official frame loop of RMNet (Xie et al., CVPR 2021)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vos_deploy.padding import STRIDE
from vos_deploy.runtime.trackers.rmnet import flow as flows

from ..models.aggregate import EPSILON, soft_aggregate
from ..models.padding import pad_to_stride, unpad
from ..models.rmnet.network import RMNet, memory_region, normalize, query_region
from ..models.rmnet.regions import flow_warp
from ..models.upsample import upsample
from .base import Reference
from .stm import ObjectMemory

# The logits of an object that is nowhere, and of one where it is drawn.
_ENDS = np.array([EPSILON, 1 - EPSILON], np.float32)
LOW, HIGH = np.log(_ENDS / (1 - _ENDS)).tolist()


class RMNetReference(Reference[RMNet]):
    """The previous frame is always in memory; every `memory_every`-th frame stays, and those in
    which an object appears.

    Flow and query are computed once per frame. Memory encoder, memory read and decoder run on a
    batch of all objects, the decoder's skip branch included. The read is the dense one of the
    released code, and the memory is put together anew for it.

    A row is an object, or one that is expected and has not appeared: those are last.

    rows: float32 [1 + R, H, W], the estimate with the rows of expected objects.
    memory_boxes, query_boxes: int32 [R, 4], of the last step.
    """

    every = 5

    def __init__(
        self,
        network: RMNet,
        *,
        memory_every: int | None = None,
        memory_frames: int | None = None,
        flow: str | flows.FlowSource = flows.TINY,
        read: str = "dense",
        flip: bool = False,
        expected_objects: int = 0,
    ) -> None:
        """flow: as the tracker takes it. read: of no meaning here. flip: follow the mirrored
        video as well and average. expected_objects: objects of the whole clip, of which those
        that have not appeared are memorised with an empty mask and decoded as well."""
        super().__init__(network, memory_every=memory_every, memory_frames=memory_frames)
        self.memories: list[ObjectMemory] = []
        self.rows = self.memory_boxes = self.query_boxes = torch.empty(0)
        self._expected = expected_objects
        self._source = flows.find(flow)
        self._flow = torch.empty(0)  # [2, H, W]
        self._image = torch.empty(0)  # the last frame, normalised
        self._before = self.pixels  # the same as it came
        self._logits = torch.empty(0)  # [1 + R, H, W]
        self._annotated = False  # whether a mask was given in the last frame
        self.mirror: RMNetReference | None = None
        if flip:
            self.mirror = RMNetReference(
                network,
                memory_every=memory_every,
                memory_frames=memory_frames,
                flow=self._mirrored_flow,
                expected_objects=expected_objects,
            )

    def step(
        self, frame: NDArray[np.uint8], mask: NDArray[Any] | None = None, objects: Any = None
    ) -> NDArray[np.uint8]:
        labels = super().step(frame, mask, objects)
        if self.mirror is None:
            return labels
        self.mirror.step(frame[:, ::-1], None if mask is None else mask[:, ::-1], objects)
        self.probabilities = (self.probabilities + self.mirror.probabilities.flip(2)) / 2
        return self.labels()

    def prepare(self, image: Tensor) -> Tensor:
        # In double precision and then rounded, as the original transforms do.
        return normalize(image.double()).float()

    def segment(self, image: Tensor) -> Tensor:
        network, previous = self.network.rmnet, self.rows[None, 1:]
        if self.memory_frames != 1 or self._annotated:
            with self.timed("memorize"):
                self._memorize(previous)
        with self.timed("flow"):
            self._flow = self._find_flow(image)
        with self.timed("region"):
            boxes, region = query_region(flow_warp(previous, self._flow.unsqueeze(0)))
            self.query_boxes = boxes[0]
        padded, _ = pad_to_stride(image, STRIDE)
        with self.timed("encoder"):
            query = network.encode_query(padded)
        with self.timed("memory_read"):
            reads = [
                network.read(query, region[:, memory.objects], *memory.read())
                for memory in self.memories
            ]
            readout = torch.cat(reads, 1)[0]
        with self.timed("decoder"):
            decoder = network.decoder
            value, r3, r2 = (
                x.expand(len(readout), -1, -1, -1) for x in (query.value, query.r3, query.r2)
            )
            m4 = torch.cat([readout, value * region[0].unsqueeze(1)], 1)
            parts = decoder(m4, *decoder.skips(r3, r2))
            objects = upsample(parts, padded.shape).softmax(1)[:, 1]
            self._logits = unpad(soft_aggregate(objects.unsqueeze(0)), self.size, STRIDE)[0]
            self._logits[1 + len(self.objects) :] = LOW
            self.rows = self._logits.softmax(0)
        self._image, self._before, self._annotated = image, self.pixels, False
        return self.rows[: 1 + len(self.objects)]

    def annotate(self, image: Tensor, drawn: Tensor, slots: list[int]) -> Tensor:
        """A new object gets the highest logit where it is drawn and the lowest elsewhere. The
        others keep theirs, so the previous owner of a pixel keeps its odds."""
        held = max(0, len(self.rows) - 1)
        count = max(self._expected, slots[-1])
        if count > held:
            self.memories.append(ObjectMemory(slice(held, count)))
        if held:
            absent = torch.full((count - held, *self.size), LOW, device=self.device)
            self._logits = torch.cat([self._logits, absent])
            self._logits[slots[0] : slots[-1] + 1] = LOW + drawn * (HIGH - LOW)
            self.rows = self._logits.softmax(0)
        else:
            absent = torch.zeros(count - len(drawn), *self.size, device=self.device)
            self.rows = torch.cat([self.overwritten(drawn), absent])
        self._image, self._before, self._annotated = image, self.pixels, True
        return self.rows[: 1 + len(self.objects)]

    def _memorize(self, masks: Tensor) -> None:
        """Memorise the frame before with its masks [1, R, H, W]."""
        padded, _ = pad_to_stride(masks, STRIDE)
        boxes, on = memory_region(padded)
        self.memory_boxes = boxes[0]
        image, _ = pad_to_stride(self._image, STRIDE)
        key, value = (x * on.unsqueeze(2) for x in self.network.rmnet.memorize(image, padded))
        stays = self._annotated or (self.frame - 1) % self.memory_every == 0
        for memory in self.memories:
            memory.add(key, value, stays, self.memory_frames)

    def _find_flow(self, image: Tensor) -> Tensor:
        """The backward flow [2, H, W], from the current frame into the one before."""
        if self._source is None:
            flow: Tensor = self.network.tflownet(image, self._image)[0]
            return flow
        found = self._source(self.frame, self.pixels, self._before)
        return torch.from_numpy(np.ascontiguousarray(found.transpose(2, 0, 1))).to(self.device)

    def _mirrored_flow(self, index: int, *images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The flow of the mirrored video, [H, W, 2]: the mirror image of this one's."""
        flow = self._flow.flip(2).permute(1, 2, 0).cpu().numpy()
        return np.asarray(flow * np.array([-1, 1], np.float32))


REFERENCE = RMNetReference
