"""How many threads NumPy's matrix products take."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import Any


def one_blas_thread() -> AbstractContextManager[Any]:
    """A block whose matrix products run in the thread that calls for them.

    After a product the other threads of OpenBLAS spin for a tenth of a second, and take the cores
    from the graphs that run then. What was set before is set again at the end. OpenBLAS has one
    setting for the whole process, which one Python thread at a time may change: while that one
    lives, the block changes nothing in others.
    """
    block: AbstractContextManager[Any] = _libraries().limit(limits=1, user_api="blas")
    return block


@cache
def _libraries() -> Any:
    """Those that are loaded: looking for them takes longer than a product."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
