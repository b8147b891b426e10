"""RDE-VOS (Li et al., CVPR 2022): the network."""

from .network import RDE

__all__ = ["NETWORK", "RDE"]

NETWORK = RDE
