"""Reuse-VOS, G-FRTM (Park et al., CVPR 2021): the network."""

from .network import GFRTM

__all__ = ["GFRTM", "NETWORK"]

NETWORK = GFRTM
