"""The networks there are, by the name of their method on the command line."""

from __future__ import annotations

from .network import Network
from .rmnet import RMNet
from .stm import STM

METHODS: dict[str, type[Network]] = {"stm": STM, "rmnet": RMNet}
