"""Cutie's graphs."""

from .graphs import EXPORT

__all__ = ["EXPORT"]
