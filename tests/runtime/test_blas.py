"""NumPy's matrix products take one thread where a graph runs next."""

from __future__ import annotations

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from vos_deploy.runtime.blas import one_blas_thread


def threads() -> set[int]:
    return {
        library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"
    }


def test_what_was_set_is_set_again() -> None:
    with threadpool_limits(limits=2, user_api="blas"):
        assert threads() == {2}
        with pytest.raises(ZeroDivisionError), one_blas_thread():
            assert threads() == {1}
            raise ZeroDivisionError
        assert threads() == {2}
