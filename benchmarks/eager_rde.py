"""RDE-VOS in PyTorch eager, stage by stage in the official order: what `fps` compares with."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from vos_deploy.masks import object_ids, one_hot
from vos_deploy.models.aggregate import aggregated_odds
from vos_deploy.models.padding import crop, pad_to_stride
from vos_deploy.models.rde import RDE
from vos_deploy.models.rde.network import Features
from vos_deploy.models.shared_keys import STRIDE, normalize
from vos_deploy.reference.rde import Memory


class EagerRDE:
    """Follows objects as the official code does.

    The key encoder runs once per frame. Value encoder, compression and decoder run on a batch of
    all objects, all of each; the read-out is a dense product of all memory positions; the memory is
    put together anew for every read. Only the RGB half of the value stem and the decoder's skip
    convolutions run once for all objects (the official code repeats the former).

    timings: seconds of the last step per stage, named as the Segmenter names them.
    probabilities: float32 [1, K, H, W] of the objects in the last frame.
    """

    def __init__(
        self,
        model: RDE,
        memory_frames: int | None = None,
        memory_every: int = 3,
        mode: str = "two-frames-compress",
        top_k: int = 40,
    ) -> None:
        """memory_frames matters to no mode but "stm", which keeps all frames here."""
        self.timings: dict[str, float] = {}
        self.probabilities = torch.empty(0)
        self._model = model
        self._every = memory_every
        self._top_k = top_k
        self._memory = Memory(model, mode)
        self._frame = 0
        self._image = torch.empty(0)  # the last frame, padded
        self._features: Features | None = None  # of the last frame
        self._padded = torch.empty(0)  # what was estimated of it, padded [1 + K, H, W]

    @torch.inference_mode()
    def step(
        self, frame: NDArray[np.uint8], mask: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """frame uint8 [H, W, 3], mask uint8 [H, W] with ids 1..K, in the first step only ->
        ids, uint8 [H, W]."""
        self.timings.clear()
        with self._timed("prepare"):
            image = torch.from_numpy(frame).permute(2, 0, 1).unsqueeze(0).float() / 255
            image, pads = pad_to_stride(normalize(image), STRIDE)
        if mask is not None:
            masks = torch.from_numpy(one_hot(mask, object_ids(mask))[1:])
            self._image = image
            self._padded = aggregated_odds(pad_to_stride(masks, STRIDE)[0][None])[0]
            self.probabilities = masks[None]
            return mask
        if self._frame % self._every == 0:
            self._memorize()
        with self._timed("encoder"):
            query = self._model.encode_key(image)
        with self._timed("memory_read"):
            readout = self._model.read(query, *self._memory.read(), self._top_k)
        with self._timed("decoder"):
            objects = self._model.decode(readout, query)[:, 0].sigmoid()
            self._padded = aggregated_odds(objects[None])[0]
            probabilities = crop(self._padded, pads, frame.shape[:2])
            labels = probabilities.argmax(0).to(torch.uint8).numpy()
        self._frame += 1
        self._image, self._features = image, query
        self.probabilities = probabilities[None, 1:]
        return labels

    def _memorize(self) -> None:
        features = self._features
        with self._timed("memorize"):
            if features is None:
                features = self._model.encode_key(self._image)
            value = self._model.encode_value(self._image, features.f16, self._padded[1:])
        with self._timed("compress"):
            self._memory.add(features.key[0], value)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.timings[stage] = time.perf_counter() - started
