"""Memory that was freed goes back to the system."""

import ctypes
import sys
from contextlib import suppress


def trim() -> None:
    """glibc keeps what is freed between other allocations, and after a hundred sessions nearly all
    that they took; asked, it gives whole pages back. Other C libraries do so by themselves."""
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)
