"""The tracker of GFRTM, and what belongs to it alone."""

from .tracker import GFRTM

__all__ = ["GFRTM", "TRACKER"]

TRACKER = GFRTM
