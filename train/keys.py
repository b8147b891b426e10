"""Keys that match by looks before training starts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from vos_deploy.models.shared_keys import normalize

from .data.mixture import Sample

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class KeyParts:
    """The parts of a network that make its keys: of frames [1, 3, H, W] once `prepare` has seen
    them, the query trunk gives (r4, ...), the memory trunk r4 of the frame and its masks."""

    query_trunk: nn.Module
    memory_trunk: nn.Module
    query_key: nn.Conv2d
    memory_key: nn.Conv2d
    prepare: Callable[[Tensor], Tensor] = torch.clone


@torch.no_grad()
def align_keys(
    parts: KeyParts,
    clips: Dataset[Sample],
    samples: int = 300,
    sharpness: float = 8.0,
    faint: float = 0.1,
) -> None:
    """Set the key heads so that a position finds the positions that look like it.

    With random keys the softmax over the memory is flat, and on small data the network learns to
    do without it: it segments what is salient. Here the query key becomes the whitened principal
    components of the query encoder's r4, scaled so that a position scores `sharpness` with itself
    on average, and the memory key is fitted to it by ridge regression from the memory encoder's
    r4 of the same frame. The memory trunk starts as a copy of the query trunk, its mask
    convolutions faint, so that it sees what the query sees.
    """
    parts.memory_trunk.load_state_dict(parts.query_trunk.state_dict(), strict=False)
    for name, stem in parts.memory_trunk.named_children():
        if isinstance(stem, nn.Conv2d) and name != "conv1":
            stem.reset_parameters()
            stem.weight.mul_(faint)
    query, memory = [], []
    for index in range(samples):
        clip = clips[index].tensors
        frame, masks = parts.prepare(clip["frames"][:1]), clip["masks"][:1, :1]
        query.append(tokens(parts.query_trunk(frame)[0]))
        memory.append(tokens(parts.memory_trunk(frame, masks)))
    features = torch.cat(query)
    dims = parts.query_key.out_channels
    projection, bias = whitening(features, dims, (sharpness / dims**0.5) ** 0.5)
    keys = features @ projection + bias
    set_pointwise(parts.query_key, projection, bias)

    inputs = torch.cat(memory)
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], 1)
    ridge = 1e-3 * len(inputs) * torch.eye(inputs.shape[1])
    fitted = torch.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ keys)
    set_pointwise(parts.memory_key, fitted[:-1], fitted[-1])
    unexplained = (inputs @ fitted - keys).var() / keys.var()
    logger.info("keys aligned, %.0f%% of the query key explained", 100 * (1 - unexplained))


@torch.no_grad()
def align_shared_key(
    encoder: Callable[[Tensor], tuple[Tensor, ...]],
    head: nn.Conv2d,
    clips: Dataset[Sample],
    samples: int = 300,
    sharpness: float = 8.0,
    length: Tensor | None = None,
    unit_sharpness: float = 32.0,
) -> None:
    """The same where one key serves as query and memory key and similarity is the negative squared
    distance: `head` becomes the whitened principal components of f16, the first that `encoder`
    gives of normalised frames [1, 3, H, W], scaled so that a position scores `sharpness` more with
    itself than with another on average.

    length: of keys that have one, a tensor [1]: `head` becomes the principal components as they
    are, which carry labels further than whitened ones, and a key scores `unit_sharpness` more with
    itself than with one at a right angle.
    """
    features = torch.cat(
        [tokens(encoder(normalize(clips[i].tensors["frames"][:1]))[0]) for i in range(samples)]
    )
    dims = head.out_channels
    if length is None:
        set_pointwise(head, *whitening(features, dims, (sharpness / (2 * dims**0.5)) ** 0.5))
    else:
        set_pointwise(head, *principal_components(features, dims))
        length.fill_((unit_sharpness * dims**0.5 / 2) ** 0.5)
    logger.info("keys aligned")


def whitening(features: Tensor, dims: int, scale: float) -> tuple[Tensor, Tensor]:
    """Matrix [C, dims] and bias [dims] that turn features [N, C] into their largest principal
    components, of variance `scale` squared."""
    components, bias = principal_components(features, dims)
    factors = scale / (features @ components + bias).std(0)
    return components * factors, bias * factors


def principal_components(features: Tensor, dims: int) -> tuple[Tensor, Tensor]:
    """Matrix [C, dims] and bias [dims] that turn features [N, C] into the largest, of mean 0."""
    mean = features.mean(0)
    _, components = torch.linalg.eigh(torch.cov((features - mean).T))
    return components[:, -dims:], -mean @ components[:, -dims:]


def tokens(features: Tensor) -> Tensor:
    """[1, C, h, w] -> [h*w, C]."""
    return features[0].flatten(1).T


def set_pointwise(conv: nn.Conv2d, matrix: Tensor, bias: Tensor) -> None:
    """Make a 3x3 convolution compute x @ matrix [C, D] + bias [D] at every position."""
    assert conv.bias is not None
    conv.weight.zero_()
    conv.weight[:, :, 1, 1] = matrix.T
    conv.bias.copy_(bias)
