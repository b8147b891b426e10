"""XMem (Cheng and Schwing, ECCV 2022): the tracker and its memory."""

from .tracker import TRACKER, XMem

__all__ = ["TRACKER", "XMem"]
