"""`CudaDevice` by the real PyCUDA."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import get_ident
from typing import Any

import numpy as np
import pytest

from tests.support.fakecuda.driver import Driver
from tests.support.models import ROOT
from vos_deploy.errors import InputError, VosDeployError
from vos_deploy.runtime.backends.cuda import CudaDevice
from vos_deploy.runtime.backends.device import DeviceArray
from vos_deploy.runtime.backends.primary_context import PrimaryContext

pytestmark = pytest.mark.fakecuda

MiB = 2**20


def new(device: CudaDevice, shape: tuple[int, ...], dtype: Any = np.float32) -> DeviceArray:
    kind = np.dtype(dtype)
    return DeviceArray(device.allocate(int(np.prod(shape)) * kind.itemsize), 0, shape, kind)


def test_up_across_and_down(driver, device):
    assert (device.name, device.compute_capability) == ("NVIDIA Fake", "8.9")
    source, target = new(device, (3, 4)), new(device, (3, 4))
    host = np.arange(12, dtype=np.float32).reshape(3, 4)
    device.download(target)  # once, for the place that it comes down to
    driver.forget()
    device.upload(host, source)
    device.copy(source, target)
    device.upload(host[:1, ::-1], target[2].reshape((1, 4)))
    found = device.download(target)
    assert driver.log == ["in 48", "record 0", "copy 48", "in 16", "record 0", "out 48", "wait"]
    np.testing.assert_array_equal(found, [*host[:2], host[0, ::-1]])


def test_stream_waits_for_the_legacy_stream(driver, device):
    """ONNX Runtime's fused convolutions clear their output there."""
    assert [line for line in driver.log if "stream" in line] == ["+stream 0"]


def test_host_arrays_may_change_after_an_upload(device):
    host = np.ones(1000, np.float32)
    array = new(device, (1000,))
    device.upload(host, array)
    host[:] = 2
    assert (device.download(array) == 1).all()


@pytest.mark.parametrize(("length", "slots"), [(100, 32), (100_000, 2)])
def test_uploads_wait_only_for_the_one_that_had_their_slot(driver, device, length, slots):
    arrays = [new(device, (length,)) for _ in range(2 * slots)]
    for value, array in enumerate(arrays[:slots]):
        device.upload(np.full(length, value, np.float32), array)
    assert "wait for an event" not in driver.log
    for value, array in enumerate(arrays[slots:], start=slots):
        device.upload(np.full(length, value, np.float32), array)
    # The first to wait finds its slot still read from; what is behind it is then done in order.
    assert driver.log.count("wait for an event") == slots
    for value, array in enumerate(arrays):
        assert (device.download(array) == value).all()


def test_slots_that_grow(device):
    for length in (20_000, 50_000, 30_000, 200_000):
        array = new(device, (length,))
        device.upload(np.full(length, length, np.float32), array)
        assert (device.download(array) == length).all()


def test_times_are_known_once_they_have_happened(driver, device):
    start, end = device.mark(), device.mark()
    with pytest.raises(Exception, match="not ready"):
        device.seconds(start, end)
    assert driver.faults == ["time of an event that has not happened"]
    driver.forget()
    device.synchronize()
    assert device.seconds(start, end) == pytest.approx(0.001)
    # Both are used again.
    assert {id(device.mark()), id(device.mark())} == {id(start), id(end)}
    assert "+event" not in driver.log


def test_memory_is_freed_when_the_stream_has_let_go_of_it(driver, device):
    before = device.used()
    source, target = new(device, (10,)), new(device, (10,))
    device.copy(source, target)
    del source, target
    gc.collect()
    assert device.used() > before
    device.synchronize()
    assert device.used() == before


def test_full_memory_is_tried_again_without_what_is_unused(device):
    large = device.allocate(40 * MiB)
    with pytest.raises(VosDeployError, match=r"out of memory on NVIDIA Fake \(40 MiB needed\)"):
        device.allocate(40 * MiB)
    del large
    gc.collect()
    device.allocate(40 * MiB)


def test_closing_gives_back_everything(driver):
    device = CudaDevice()
    held = new(device, (MiB,))
    device.upload(np.zeros(MiB, np.float32), held)
    for _ in range(3):
        device.mark()
    device.close()
    device.close()
    assert_nothing_left(driver)


def assert_nothing_left(driver: Driver, kinds: str = "stream event memory locked") -> None:
    """Of what was made; a line of the log is +KIND when one is, and -KIND when it goes."""
    firsts = [line.split()[0] for line in driver.log]
    for kind in kinds.split():
        assert firsts.count(f"+{kind}") == firsts.count(f"-{kind}") > 0, kind


def test_devices_close_in_any_order(driver):
    first, second = CudaDevice(), CudaDevice()
    first.close()
    array = new(second, (2,))
    second.upload(np.ones(2, np.float32), array)
    assert (second.download(array) == 1).all()
    second.close()
    assert [driver.log.count(step) for step in ("retain", "push", "pop")] == [1, 1, 1]


def test_context_is_released_after_the_devices(driver):
    from pycuda import driver as cuda

    primary = PrimaryContext()
    primary.enter(cuda)
    primary.leave(get_ident())
    assert "release" not in driver.log
    del primary
    gc.collect()
    assert driver.log.count("retain") == driver.log.count("release") == 1


def elsewhere(work: Callable[[], Any]) -> Any:
    """What `work` returns in another thread, or raises there."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def test_threads(driver, device):
    with pytest.raises(InputError, match="in the same thread"):
        elsewhere(device.synchronize)


def test_device_of_another_thread(driver):
    elsewhere(lambda: CudaDevice().close())
    assert_nothing_left(driver, "stream event locked")


def test_device_that_is_collected_in_another_thread(driver):
    held = [CudaDevice()]
    new(held[0], (2,))
    elsewhere(held.clear)
    elsewhere(gc.collect)
    assert_nothing_left(driver)
    CudaDevice().close()  # which takes the context off the stack of this thread, too


@pytest.mark.parametrize("last", ["pass", "device.close()", "del device", "raise SystemExit(0)"])
def test_end_of_a_process(packages, last):
    """PyCUDA aborts one that ends with a context on its stack."""
    code = (
        "from pathlib import Path\n"
        "from tests.support.fakecuda.driver import load\n"
        "from vos_deploy.runtime.backends.cuda import CudaDevice\n"
        f"load(Path({str(packages)!r}))\n"
        "device = CudaDevice()\n"
        "device.allocate(100)\n"
        f"{last}\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


class TestTheDriverItself:
    """What it would find."""

    def test_nothing_happens_before_somebody_waits(self, driver, device):
        array = new(device, (2,))
        device.upload(np.ones(2, np.float32), array)
        from pycuda import driver as cuda

        host = cuda.pagelocked_empty(2, np.float32)
        cuda.memcpy_dtoh_async(host, array.pointer, device._held.queue)
        assert host.view(np.uint8).tolist() == [0xCD] * 8
        device.synchronize()
        assert host.tolist() == [1, 1]

    def test_memory_that_goes_too_early(self, driver, device):
        from pycuda import driver as cuda

        block = cuda.mem_alloc(8)
        array = new(device, (2,))
        cuda.memcpy_dtod_async(array.pointer, int(block), 8, device._held.queue)
        block.free()
        device.synchronize()
        assert driver.faults == [
            "device memory freed with work waiting for it",
            "copy of 8 bytes at device memory that is not allocated",
        ]
        driver.forget()

    def test_work_without_a_context(self, driver, device):
        from pycuda import driver as cuda

        with pytest.raises(cuda.Error, match="invalid device context"):
            elsewhere(cuda.mem_get_info)
        assert driver.faults == ["cuMemGetInfo_v2 without a context"]
        driver.forget()
