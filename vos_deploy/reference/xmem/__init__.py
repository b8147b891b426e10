"""XMem (Cheng and Schwing, ECCV 2022): the published frame loop in PyTorch."""

from .loop import REFERENCE, XMemReference

__all__ = ["REFERENCE", "XMemReference"]
