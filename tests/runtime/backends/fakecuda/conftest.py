"""Everything here runs on a CUDA driver in host memory, with the real PyCUDA and cuda-python."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fakecuda.build import missing_tools, site
from tests.support.fakecuda.driver import Driver, loaded
from vos_deploy.runtime.backends.cuda import CudaDevice


@pytest.fixture(scope="session")
def packages() -> Path:
    if missing := missing_tools():
        pytest.skip(f"no {missing[0]} to build a CUDA driver with")
    return site()


@pytest.fixture
def driver(packages: Path) -> Iterator[Driver]:
    """Whatever a test does, nothing may have been used before it was there or after it was gone,
    and no context may be left current."""
    with loaded(packages) as driver:
        yield driver
        gc.collect()
        assert not driver.errors
        assert not driver.faults
        assert not driver.current


@pytest.fixture
def device(driver: Driver) -> Iterator[CudaDevice]:
    device = CudaDevice()
    yield device
    device.close()
