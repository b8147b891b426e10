"""What every network is to those who load, export and train it."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from torch import Tensor, nn

from .resnet import freeze_norms


class Network(nn.Module):
    """A network of one method, under the state-dict keys of its official checkpoint.

    method: the name of the method on the command line.
    config: the keyword arguments that build this very network again.
    """

    method: ClassVar[str]
    config: dict[str, Any]

    @staticmethod
    def infer_config(state: dict[str, Tensor]) -> dict[str, Any] | None:
        """The configuration whose keys and shapes are those of `state`; None if it is of another
        method."""
        raise NotImplementedError

    @staticmethod
    def adapt(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The state dict of another release of the method (an earlier training stage, say), turned
        into one that loads strictly."""
        return state

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        freeze_norms(self)
        return self
