"""The NVIDIA driver, without which no GPU can be used."""

import ctypes
import sys


def has_driver() -> bool:
    """Whether it is installed here."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True
