"""What every network is to those who load, export and train it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from ..errors import InputError
from .resnet import freeze_norms


class Network(nn.Module):
    """A network of one method, under the state-dict keys of its official checkpoint.

    method: the name of the method on the command line.
    config: the keyword arguments that build this very network again.
    parts: state dicts that the release keeps side by side in one file; their keys get the name of
        their part in front.
    """

    method: ClassVar[str]
    config: dict[str, Any]
    parts: ClassVar[tuple[str, ...]] = ()

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

    def complete(self, state: dict[str, Tensor], trunk: str | Path | None) -> dict[str, Tensor]:
        """The state dict with what the release leaves to a file of its own, `trunk`.

        Raises InputError for a trunk that is missing, or that the method does not take.
        """
        if trunk is not None:
            raise InputError(f"{self.method} checkpoints hold their trunk: omit --trunk")
        return state

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        freeze_norms(self)
        return self
