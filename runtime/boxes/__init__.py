"""Decoding in a box around each object, instead of the whole frame."""

from .backend import DecodeInBoxes, check_any_size, check_on_host

__all__ = ["DecodeInBoxes", "check_any_size", "check_on_host"]
