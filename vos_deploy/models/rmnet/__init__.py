"""RMNet (Xie et al., CVPR 2021): the network."""

from .network import RMNet

__all__ = ["NETWORK", "RMNet"]

NETWORK = RMNet
