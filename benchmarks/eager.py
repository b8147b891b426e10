"""The networks in PyTorch eager, in the official order: what `fps` compares with. Here STM."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError
from vos_deploy.masks import object_ids, one_hot
from vos_deploy.models import Network, create, load_model
from vos_deploy.models.aggregate import soft_aggregate
from vos_deploy.models.padding import crop, pad_to_stride
from vos_deploy.models.stm import STM, QueryFeatures, upsample


def set_up(threads: int | None) -> dict[str, Any]:
    """Sets the threads of all of PyTorch; None leaves them alone. Returns what to report."""
    if threads:
        torch.set_num_threads(threads)
    return {"mode": "eager float32 on the CPU", "threads": torch.get_num_threads()}


def load_network(bundle: Bundle, checkpoint: Path | None) -> Network:
    """The network a model was exported from; with random weights without its checkpoint.

    Raises InputError for the checkpoint of another network.
    """
    if checkpoint is None:
        return create(bundle.method, **bundle.config)
    network = load_model(checkpoint, bundle.method)
    if network.config != bundle.config:
        raise InputError(
            f"expected the checkpoint that {bundle.path} was exported from, found another "
            f"network in {checkpoint}: {network.config} instead of {bundle.config}"
        )
    return network


# The module and class that follows objects with a network of each method.
FOLLOWERS = {
    "stm": ("eager", "EagerSTM"),
    "rmnet": ("eager_rmnet", "EagerRMNet"),
    "rde": ("eager_rde", "EagerRDE"),
    "imsfr": ("eager_imsfr", "EagerIMSFR"),
    "gfrtm": ("eager_gfrtm", "EagerGFRTM"),
}


def follower(network: Network, **options: Any) -> Any:
    """What runs the network frame by frame; options as `Segmenter` takes them."""
    module, name = FOLLOWERS[network.method]
    return getattr(import_module(f".{module}", __package__), name)(network, **options)


class EagerSTM:
    """Follows objects as the official code does, with a memory of a fixed number of frames.

    The query encoder runs once per frame. Memory encoder, memory read and decoder run once on a
    batch of all objects, the decoder's skip branch included, and the memory is put together anew
    for every read. Only the RGB half of the memory stem is shared between objects, which the
    official code repeats. The memory holds the frames that a Segmenter's holds.

    timings: seconds of the last step per stage, named as the Segmenter names them.
    probabilities: float32 [1, K, H, W] of the objects in the last frame.
    """

    def __init__(self, model: STM, memory_frames: int | None, memory_every: int = 1) -> None:
        self.timings: dict[str, float] = {}
        self._model = model
        self._memory_frames = math.inf if memory_frames is None else memory_frames
        self._memory_every = memory_every
        self._frame = -1  # index of the last frame
        self._temporary = False  # whether the newest memory frame makes room for the next
        self._image = torch.empty(0)  # the last frame, padded
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
        self._frame += 1
        with self._timed("prepare"):
            image = torch.from_numpy(frame).permute(2, 0, 1).unsqueeze(0).float() / 255
            image, pads = self._pad(image)
        if mask is not None:
            self._image = image
            self.probabilities = torch.from_numpy(one_hot(mask, object_ids(mask))[None, 1:])
            return mask
        if not self._keys or self._memory_frames > 1:
            with self._timed("memorize"):
                self._memorize()  # the frame before
        with self._timed("encoder"):
            query = self._model.encode_query(image)
        with self._timed("memory_read"):
            keys, values = torch.stack(self._keys, 3), torch.stack(self._values, 3)
            readout = self._model.read(query, keys, values)
        with self._timed("decoder"):
            objects = self._decode(readout, query, image)
            logits = crop(soft_aggregate(objects), pads, frame.shape[:2])
            probabilities = logits.softmax(1)
            labels = probabilities[0].argmax(0).to(torch.uint8).numpy()
        self._image, self.probabilities = image, probabilities[:, 1:]
        return labels

    def _memorize(self) -> None:
        masks, _ = self._pad(self.probabilities)
        key, value = self._model.memorize(self._image, masks)
        for memory, new in ((self._keys, key), (self._values, value)):
            if self._temporary:
                memory.pop()
            memory.append(new)
            if len(memory) > self._memory_frames:
                del memory[1]  # the annotated frame stays
        self._temporary = (self._frame - 1) % self._memory_every > 0

    def _decode(self, readout: Tensor, query: QueryFeatures, image: Tensor) -> Tensor:
        """Object probabilities [1, K, H, W] at the padded size."""
        objects = readout.shape[1]
        value, r3, r2 = (x.expand(objects, -1, -1, -1) for x in (query.value, query.r3, query.r2))
        decoder = self._model.Decoder
        logits = decoder(torch.cat([readout[0], value], 1), *decoder.skips(r3, r2))
        return upsample(logits, image.shape).softmax(1)[:, 1].unsqueeze(0)

    def _pad(self, x: Tensor) -> tuple[Tensor, tuple[int, int, int, int]]:
        return pad_to_stride(x, self._model.config["stride"])

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.timings[stage] = time.perf_counter() - started
