"""Running exported models frame by frame. Imports no torch, and an inference engine only in use."""

from .memory.bank import MemoryState
from .model import Model
from .segmenter import Segmenter

__all__ = ["MemoryState", "Model", "Segmenter"]
