"""RMNet in PyTorch eager, stage by stage in the official order: what `fps` compares with."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vos_deploy.masks import object_ids, one_hot
from vos_deploy.models.aggregate import soft_aggregate
from vos_deploy.models.padding import crop, pad_to_stride
from vos_deploy.models.rmnet import RMNet
from vos_deploy.models.rmnet.network import memory_region, normalize, query_region
from vos_deploy.models.rmnet.regions import flow_warp
from vos_deploy.models.stm import QueryFeatures, upsample
from vos_deploy.runtime.trackers.rmnet.tokens import STRIDE


class EagerRMNet:
    """Follows objects as the official code does, with a memory of a fixed number of frames.

    The flow and the query are computed once per frame. Memory encoder, memory read and decoder run
    once on a batch of all objects, the decoder's skip branch included. The read is the dense one
    of the released code, and the memory is put together anew for it. Only the RGB half of the
    memory stem is shared between objects, which the official code repeats. The memory holds what
    `Segmenter(memory_every=1, memory_frames=n)` holds.

    timings: seconds of the last step per stage, named as the Segmenter names them.
    probabilities: float32 [1, K, H, W] of the objects in the last frame.
    """

    def __init__(self, model: RMNet, memory_frames: int) -> None:
        self.timings: dict[str, float] = {}
        self._model = model
        self._memory_frames = memory_frames
        self._frame = torch.empty(0)  # the last frame, normalised
        self.probabilities = torch.empty(0)
        self._keys: list[Tensor] = []  # per memory frame [1, K, Ck, h, w]
        self._values: list[Tensor] = []  # per memory frame [1, K, Cv, h, w]

    @torch.inference_mode()
    def step(
        self, frame: NDArray[np.uint8], mask: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """frame uint8 [H, W, 3], mask uint8 [H, W] with ids 1..K, in the first step only ->
        ids, uint8 [H, W]."""
        self.timings.clear()
        network = self._model.rmnet
        with self._timed("prepare"):
            image = torch.from_numpy(frame).permute(2, 0, 1).unsqueeze(0).float() / 255
            normalized = normalize(image)
            padded, pads = pad_to_stride(normalized, STRIDE)
        if mask is not None:
            self._frame = normalized
            self.probabilities = torch.from_numpy(one_hot(mask, object_ids(mask))[None, 1:])
            return mask
        if not self._keys or self._memory_frames > 1:
            with self._timed("memorize"):
                self._memorize()
        with self._timed("flow"):
            flow = self._model.tflownet(normalized, self._frame)
        with self._timed("region"):
            _, region = query_region(flow_warp(self.probabilities, flow))
        with self._timed("encoder"):
            query = network.encode_query(padded)
        with self._timed("memory_read"):
            keys, values = torch.stack(self._keys, 3), torch.stack(self._values, 3)
            readout = network.read(query, region, keys, values)
        with self._timed("decoder"):
            objects = self._decode(readout, region, query, padded)
            size = frame.shape[0], frame.shape[1]
            probabilities = crop(soft_aggregate(objects), pads, size).softmax(1)
            labels = probabilities[0].argmax(0).to(torch.uint8).numpy()
        self._frame, self.probabilities = normalized, probabilities[:, 1:]
        return labels

    def _memorize(self) -> None:
        masks, _ = pad_to_stride(self.probabilities, STRIDE)
        _, on = memory_region(masks)
        key, value = self._model.rmnet.memorize(pad_to_stride(self._frame, STRIDE)[0], masks)
        for memory, new in ((self._keys, key), (self._values, value)):
            memory.append(new * on.unsqueeze(2))
            if len(memory) > self._memory_frames:
                del memory[1]  # the annotated frame stays

    def _decode(
        self, readout: Tensor, region: Tensor, query: QueryFeatures, image: Tensor
    ) -> Tensor:
        """Object probabilities [1, K, H, W] at the padded size."""
        objects = readout.shape[1]
        value, r3, r2 = (x.expand(objects, -1, -1, -1) for x in (query.value, query.r3, query.r2))
        decoder = self._model.rmnet.decoder
        m4 = torch.cat([readout[0], value * region[0].unsqueeze(1)], 1)
        logits = decoder(m4, *decoder.skips(r3, r2))
        return upsample(logits, image.shape).softmax(1)[:, 1].unsqueeze(0)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.timings[stage] = time.perf_counter() - started
