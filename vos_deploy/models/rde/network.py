"""RDE-VOS: Recurrent Dynamic Embedding for Video Object Segmentation (Li et al., CVPR 2022,
arXiv 2205.03761).

STCN's network, and SAM, which keeps its memory at one size. State-dict keys are those of the
official checkpoint.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..stcn import STCN, Features
from .compress import Compression

__all__ = ["RDE", "Features"]


class RDE(STCN):
    """The network.

    compress: whether it has SAM, which turns the recurrent embedding and a new memory frame into
        the next embedding. What the first training stage leaves behind has none; it can be used in
        all modes that compress nothing.
    repeat: squeeze-and-excitation blocks in SAM; the released models have none.
    """

    method = "rde"

    def __init__(
        self,
        backbone: str = "resnet50",
        key_dim: int = 64,
        value_dim: int = 512,
        decoder_width: int = 512,
        compress: bool = True,
        repeat: int = 0,
    ) -> None:
        super().__init__(backbone, key_dim, value_dim, decoder_width)
        self.config |= {"compress": compress, "repeat": repeat}
        self.mem_compress = Compression(key_dim, value_dim, repeat) if compress else None
        self.eval()

    @staticmethod
    def infer_config(state: dict[str, Tensor]) -> dict[str, Any] | None:
        """The configuration whose keys and shapes are those of `state`, None if it is no RDE."""
        prefix = "mem_compress."
        config = STCN.infer_config({k: v for k, v in state.items() if not k.startswith(prefix)})
        if config is None:
            return None
        block = f"{prefix}value_encoder.se_block."
        compress = any(key.startswith(prefix) for key in state)
        repeat = len({key.split(".")[3] for key in state if key.startswith(block)})
        return {**config, "compress": compress, "repeat": repeat}

    def half(self) -> RDE:
        """Half-precision weights but for SAM: it is cubic in what it is given, and recurrent."""
        compress, self.mem_compress = self.mem_compress, None
        super().half()
        self.mem_compress = compress  # not rounded and widened again: as it was
        return self
