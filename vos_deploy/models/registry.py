"""The networks there are, by the name of their method on the command line."""

from __future__ import annotations

from .gfrtm import GFRTM
from .imsfr import IMSFR
from .network import Network
from .rde import RDE
from .rmnet import RMNet
from .stm import STM

METHODS: dict[str, type[Network]] = {
    "stm": STM,
    "rmnet": RMNet,
    "rde": RDE,
    "imsfr": IMSFR,
    "gfrtm": GFRTM,
}
