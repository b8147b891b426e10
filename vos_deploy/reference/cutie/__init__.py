"""The published frame loop of Cutie (Cheng et al., CVPR 2024)."""

from .loop import CutieReference

__all__ = ["REFERENCE", "CutieReference"]

REFERENCE = CutieReference
