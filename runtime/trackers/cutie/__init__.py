"""Cutie (Cheng et al., CVPR 2024)."""

from .tracker import TRACKER, Cutie

__all__ = ["TRACKER", "Cutie"]
