"""The PyTorch side of `fps` and `parity`: the same network in the published loop."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError
from vos_deploy.frames import (
    Size,
    resize_frame,
    resize_ids,
    resize_probabilities,
    working_size,
)
from vos_deploy.methods import find_part
from vos_deploy.models import Network, create, load_model
from vos_deploy.reference.base import Reference


def set_up(threads: int | None, device: str) -> dict[str, Any]:
    """Sets the threads of all of PyTorch; None leaves them alone. Returns what to report."""
    if threads:
        torch.set_num_threads(threads)
    return {"mode": f"eager float32 on {device}", "threads": torch.get_num_threads()}


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


def compiled(network: Network) -> Network:
    """A copy whose modules `torch.compile` runs; what the loop does between them stays eager."""
    twin = copy.deepcopy(network)
    for module in twin.children():
        module.compile()
    return twin


def reference(network: Network, **options: Any) -> Reference[Network]:
    """What runs the network frame by frame; options as `Segmenter` takes them, but for no limit
    of memory_frames, which is None."""
    kind: type[Reference[Network]] = find_part(network.method, "REFERENCE")
    return kind(network, **options)


class Published:
    """The published loop on frames of any size, one video after the other, as `Segmenter` takes
    them: resized to the working size, and the probabilities back."""

    def __init__(self, network: Network, size: int | Size | None, **options: Any) -> None:
        """size and options as `Segmenter` takes them."""
        self._network, self._size, self._options = network, size, options
        self.reset()

    def reset(self) -> None:
        self._loop: Reference[Network] | None = None

    def step(
        self, frame: NDArray[np.uint8], mask: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """frame uint8 [H, W, 3], mask uint8 [H, W] ids in the first step -> ids [H, W]."""
        full = frame.shape[0], frame.shape[1]
        size = working_size(full, self._size)
        if self._loop is None:
            self._loop = reference(self._network, **self._options)
        given = None if mask is None else resize_ids(mask, size)
        self._loop.step(resize_frame(frame, size), given)
        probabilities = self._loop.probabilities.float().cpu().numpy()
        # Ids that the working size has no pixel of are left out.
        ids = np.array([0, *self._loop.objects], np.uint8)
        found: NDArray[np.uint8] = ids[resize_probabilities(probabilities, full).argmax(0)]
        return found
