"""Parts of the graphs of methods whose frames have one key, whatever the objects."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vos_deploy.models.aggregate import aggregated_odds
from vos_deploy.models.padding import crop, pad_to_stride, padding
from vos_deploy.models.shared_keys import STRIDE, ResBlock, memory_read, normalize

from .graph import float32, uint8
from .layers import as_frame
from .ops import MEMORY_READ_L2, MEMORY_READ_TOP_K, read

# What the decoders give: the memory is told the probabilities of the padded frame.
PADDED_ESTIMATE = {"probabilities": float32("1+K", "H16", "W16"), "labels": uint8("H", "W")}


def padded_frame(image: Tensor) -> Tensor:
    """uint8 [H, W, 3] or [B, H, W, 3] -> normalised float32 [B, 3, H16, W16]; the padding has the
    mean colour."""
    return pad_to_stride(normalize(as_frame(image)), STRIDE)[0]


class SplitResBlock(nn.Module):
    """A ResBlock on [own, shared], or on [shared, own], whose shared half, the same for all
    objects, runs once.

    Exact: a convolution is the sum of those of its input channels, and the ReLU before the first
    one acts on each channel alone.
    """

    def __init__(self, block: ResBlock, own_channels: int, own_first: bool = True) -> None:
        super().__init__()
        assert block.downsample is not None
        cut = own_channels if own_first else block.conv1.in_channels - own_channels
        own, common = slice(cut), slice(cut, None)
        if not own_first:
            own, common = common, own
        convs = block.conv1, block.downsample
        self.own = nn.ModuleList(_part(conv, own, bias=False) for conv in convs)
        self.common = nn.ModuleList(_part(conv, common, bias=True) for conv in convs)
        self.conv2 = block.conv2

    def shared(self, x: Tensor) -> Tensor:
        """[1, 2*C, h, w] of what all objects share."""
        conv1, shortcut = self.common
        return torch.cat([conv1(F.relu(x)), shortcut(x)], 1)

    def forward(self, own: Tensor, shared: Tensor) -> Tensor:
        """own [K, C', h, w] and what `shared` returned -> [K, C, h, w]."""
        conv1, shortcut = self.own
        first, short = shared.chunk(2, 1)
        return shortcut(own) + short + self.conv2(F.relu(conv1(F.relu(own)) + first))


def _part(conv: nn.Conv2d, channels: slice, bias: bool) -> nn.Conv2d:
    """The convolution of some of the input channels."""
    weight = conv.weight[:, channels].detach().clone()
    part = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1, bias=bias)
    part.weight = nn.Parameter(weight)
    if bias:
        assert conv.bias is not None
        part.bias = nn.Parameter(conv.bias.detach().clone())
    return part


class MemoryReadGraph(nn.Module):
    """query_key [hw, Ck], memory_key [N, Ck], memory_value [N, G, Cv] and, if only the most similar
    tokens count, top_k int64 [1] -> readout [G, hw, Cv]."""

    def forward(
        self,
        query_key: Tensor,
        memory_key: Tensor,
        memory_value: Tensor,
        top_k: Tensor | None = None,
    ) -> Tensor:
        objects, channels = memory_value.shape[1:]
        values = memory_value.flatten(1)
        if not torch.onnx.is_in_onnx_export():
            k = None if top_k is None else int(top_k)
            readout = memory_read(query_key, memory_key, values, k)
        elif top_k is None:
            readout = read(MEMORY_READ_L2, query_key, memory_key, values)
        else:
            readout = read(MEMORY_READ_TOP_K, query_key, memory_key, values, top_k)
        return readout.unflatten(1, (objects, channels)).transpose(0, 1)


def estimate(logits: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [K, 1, H16/4, W16/4] -> probabilities float32 [1+K, H16, W16] of the padded frame,
    which the memory is told as they are, and labels uint8 [H, W]."""
    full = F.interpolate(logits.float(), scale_factor=4.0, mode="bilinear")[:, 0]
    probabilities = aggregated_odds(full.sigmoid().unsqueeze(0))[0]
    height, width = image.shape[:2]
    pads = padding(height, width, STRIDE)
    labels = crop(probabilities.argmax(0).float(), pads, (height, width))
    # TensorRT casts to bytes from floats only.
    return probabilities, labels.to(torch.uint8)
