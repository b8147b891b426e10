"""The graphs of RDE-VOS: those of STCN, and

    compress     the embedding and a new memory frame   -> the next embedding

It computes in float32 in half-precision models too: it is cubic in what it is given, and what it
returns is given to it again.
"""

from __future__ import annotations

from torch import Tensor, nn

from vos_deploy.bundle import MemoryDefaults
from vos_deploy.models.rde import RDE
from vos_deploy.models.rde.compress import Compression

from ..graph import GraphSpec, MethodExport, float32
from ..layers import tokens
from . import stcn


class CompressGraph(nn.Module):
    """Keys [h, w, Ck] and values [h, w, G, Cv] of the embedding and of a new memory frame."""

    def __init__(self, compression: Compression) -> None:
        super().__init__()
        self.compression = compression

    def forward(
        self, old_key: Tensor, new_key: Tensor, old_value: Tensor, new_value: Tensor
    ) -> tuple[Tensor, ...]:
        keys = (key.permute(2, 0, 1).unsqueeze(0) for key in (old_key, new_key))
        values = (value.permute(2, 3, 0, 1) for value in (old_value, new_value))
        key = self.compression.keys(*keys)
        value = self.compression.values(*values)
        return tokens(key)[0], value.flatten(2).permute(2, 0, 1)


def graphs(model: RDE) -> dict[str, GraphSpec]:
    specs = stcn.graphs(model)
    if model.mem_compress is None:
        return specs
    key, value = model.config["key_dim"], model.config["value_dim"]
    keys, values = float32("h", "w", key), float32("h", "w", "G", value)
    # In float32 even where the rest of the network is not.
    specs["compress"] = GraphSpec(
        CompressGraph(model.mem_compress),
        {"old_key": keys, "new_key": keys, "old_value": values, "new_value": values},
        {"key": float32("hw", key), "value": float32("hw", "G", value)},
    )
    return specs


EXPORT = MethodExport(
    graphs,
    MemoryDefaults(every=3, frames=8),
    "The official RDE-VOS repository is under the MIT licence; it names no other licence for its "
    "weights. Part of their training data, BL30K, derives from ShapeNet and is for non-commercial "
    "use. Weights you trained yourself are yours, within the terms of their data.",
    verified=lambda model: [
        *([{"mode": "two-frames-compress"}] if model.config["compress"] else []),
        {"mode": "two-frames"},
    ],
)
