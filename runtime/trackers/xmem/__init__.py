"""XMem (Cheng and Schwing, ECCV 2022)."""

from .tracker import TRACKER, XMem

__all__ = ["TRACKER", "XMem"]
