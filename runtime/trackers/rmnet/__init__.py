"""The tracker of RMNet, and what belongs to it alone."""

from .tracker import RMNet

__all__ = ["TRACKER", "RMNet"]

TRACKER = RMNet
