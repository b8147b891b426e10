"""Cutie (Cheng et al., CVPR 2024): the network."""

from .network import Cutie

__all__ = ["NETWORK", "Cutie"]

NETWORK = Cutie
