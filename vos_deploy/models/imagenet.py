"""ImageNet weights for a trunk, from a file with torchvision's names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import ModelError
from .checkpoint_files import read_state

STAGES = {"layer1": "res2", "layer2": "res3", "layer3": "res4", "layer4": "res5"}


def load_imagenet(
    trunk: nn.Module,
    path: str | Path,
    stages: Mapping[str, str] = STAGES,
    learnt: tuple[str, ...] = (),
) -> None:
    """Fill `trunk` from a torchvision ResNet state dict (`.pth` or `.safetensors`).

    A file whose batch norms were folded into biased convolutions is taken too: each norm becomes
    the identity plus that bias. Stages that `trunk` lacks and the classifier are left out. Where
    its convolutions have a bias of their own it becomes zero, and where conv1 has more inputs
    than RGB their weights stay as they are.

    stages: what `trunk` calls torchvision's stages.
    learnt: stages (res5, say) that the file may lack; they then stay as they are.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"no ImageNet weights at {path}")
    source, _ = read_state(path)
    state: dict[str, Tensor] = {}
    for name, tensor in source.items():
        first, _, rest = name.partition(".")
        state[f"{stages.get(first, first)}.{rest}"] = tensor.float()
    folded = "bn1.weight" not in state
    own = trunk.state_dict()
    held = {key.split(".")[0] for key in state}
    parts = [
        part for part in ("conv1", "bn1", *stages.values()) if part in held or part not in learnt
    ]
    wanted = [key for key in own if key.split(".")[0] in parts]
    for key in wanted:
        if key.endswith("num_batches_tracked"):
            continue
        owner, _, leaf = key.rpartition(".")
        if leaf == "bias" and isinstance(trunk.get_submodule(owner), nn.Conv2d):
            own[key] = torch.zeros_like(own[key])
            continue
        value = _identity_norm(trunk, key, state) if folded else state.get(key)
        value = state.get(key) if value is None else value
        given, extra = own[key], None
        if key == "conv1.weight":
            given, extra = given.tensor_split([3], 1)
        if value is None or value.shape != given.shape:
            raise ModelError(f"{path} does not fit the trunk at {key}: is it of another ResNet?")
        own[key] = value if extra is None else torch.cat([value, extra], 1)
    trunk.load_state_dict(own)


def _identity_norm(trunk: nn.Module, key: str, state: dict[str, Tensor]) -> Tensor | None:
    """A norm's tensor that makes it `x + bias` of the convolution before it; None elsewhere."""
    owner, _, leaf = key.rpartition(".")
    norm = trunk.get_submodule(owner)
    if not isinstance(norm, nn.BatchNorm2d):
        return None
    # bn1 follows conv1, downsample.1 follows downsample.0.
    head, _, name = owner.rpartition(".")
    conv = "0" if name == "1" else name.replace("bn", "conv")
    bias = state.get(f"{head}.{conv}.bias" if head else f"{conv}.bias")
    if bias is None:
        return None
    return {
        "weight": torch.ones_like(bias),
        "bias": bias,
        "running_mean": torch.zeros_like(bias),
        "running_var": torch.full_like(bias, 1 - norm.eps),
    }[leaf]
