"""The PyTorch side of `fps` and `parity`: the same network in the published loop."""

from pathlib import Path
from typing import Any

import torch

from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError
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


def reference(network: Network, **options: Any) -> Reference[Network]:
    """What runs the network frame by frame; options as `Segmenter` takes them, but for no limit
    of memory_frames, which is None."""
    kind: type[Reference[Network]] = find_part(network.method, "REFERENCE")
    return kind(network, **options)
