"""CUDA graphs by the real cuda-python."""

from __future__ import annotations

import numpy as np
import pytest

from tests.runtime.backends.fakecuda.test_device import new
from vos_deploy.errors import VosDeployError
from vos_deploy.runtime.backends.cuda import CudaDevice

pytestmark = pytest.mark.fakecuda


def test_work_is_recorded_and_repeated(driver, device):
    assert device.records
    source, target = new(device, (3,)), new(device, (3,))
    recorded = device.capture(lambda: device.copy(source, target))
    assert "begin capture 1" in driver.log  # of this thread alone
    for value in (1, 2):
        device.upload(np.full(3, value, np.float32), source)
        recorded.launch()
        assert (device.download(target) == value).all()
    recorded.close()
    bookkeeping = [line for line in driver.log if "graph" in line or "executable" in line]
    assert bookkeeping == ["+graph", "+executable", "-graph", "-executable"]


def test_recording_does_not_run(device):
    array = new(device, (3,))
    device.upload(np.ones(3, np.float32), array)
    zeros = new(device, (3,))
    device.upload(np.zeros(3, np.float32), zeros)
    device.capture(lambda: device.copy(zeros, array)).close()
    assert (device.download(array) == 1).all()


@pytest.mark.parametrize("work", ["synchronize", "allocate", "download"])
def test_what_waits_or_allocates_cannot_be_recorded(device, work):
    array = new(device, (3,))

    def unsafe() -> None:
        {
            "synchronize": device.synchronize,
            "allocate": lambda: device.allocate(8),
            "download": lambda: device.download(array),
        }[work]()

    with pytest.raises(Exception, match="fake driver"):
        device.capture(unsafe)
    usable(device)


def test_cuda_that_gives_no_graph(driver, device):
    def spoil() -> None:
        driver._library.cuMemAlloc_v2(None, 1)

    with pytest.raises(VosDeployError, match="cuStreamEndCapture failed"):
        device.capture(spoil)
    usable(device)


def usable(device: CudaDevice) -> None:
    """The stream goes on as if nothing had been recorded."""
    array = new(device, (3,))
    device.upload(np.ones(3, np.float32), array)
    assert (device.download(array) == 1).all()
