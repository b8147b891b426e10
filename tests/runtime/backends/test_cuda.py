"""`CudaDevice` against a PyCUDA and a cuda-python that write down what is asked of them."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import get_ident
from typing import Any

import numpy as np
import pytest

from tests.support.pycuda import Driver, MiB
from vos_deploy.errors import InputError, VosDeployError
from vos_deploy.runtime.backends import cuda as cuda_module
from vos_deploy.runtime.backends.cuda import CudaDevice, import_cuda
from vos_deploy.runtime.backends.device import DeviceArray
from vos_deploy.runtime.backends.primary_context import PrimaryContext


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    driver = Driver()
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)  # type: ignore[arg-type]
    monkeypatch.setattr(cuda_module, "_PRIMARY", PrimaryContext())  # as in a new process
    return driver


def new(device: CudaDevice, shape: tuple[int, ...], dtype: Any = np.float32) -> DeviceArray:
    kind = np.dtype(dtype)
    return DeviceArray(device.allocate(int(np.prod(shape)) * kind.itemsize), 0, shape, kind)


def test_up_across_and_down(driver):
    device = CudaDevice()
    assert (device.name, device.compute_capability, device.stream) == ("NVIDIA Test", "8.7", 55)
    assert (device.used(), device.seconds(device.mark(), device.mark())) == (7 * MiB, 0.0025)
    source, target = new(device, (3, 4)), new(device, (3, 4))
    host = np.arange(12, dtype=np.float32).reshape(3, 4)
    device.upload(host, source)
    device.copy(source, target)
    device.upload(host[:1, ::-1], target[2].reshape((1, 4)))
    assert driver.pending
    np.testing.assert_array_equal(device.download(source), host)
    device.close()


def test_uploads_do_not_wait_for_each_other(driver):
    device = CudaDevice()
    arrays = [new(device, (100,)) for _ in range(24)]
    for value, array in enumerate(arrays):
        device.upload(np.full(100, value, np.float32), array)
    large = [new(device, (100, 1000)) for _ in range(2)]
    for array in large:
        device.upload(np.ones((100, 1000), np.float32), array)
    assert "wait for the upload" not in driver.pycuda_log
    for value, array in enumerate(arrays):
        assert (device.download(array) == value).all()
    device.close()


@pytest.mark.parametrize(("shape", "slots"), [((100,), 32), ((100, 1000), 2)])
def test_slot_is_used_again_when_its_upload_is_done(driver, shape, slots):
    device = CudaDevice()
    arrays = [new(device, shape) for _ in range(slots + 1)]
    for value, array in enumerate(arrays):
        device.upload(np.full(shape, value, np.float32), array)
    assert driver.pycuda_log.count("wait for the upload") == 1
    for value, array in enumerate(arrays):
        assert (device.download(array) == value).all()
    device.close()


def test_marks_are_used_again(driver):
    device = CudaDevice()
    made = driver.pycuda_log.count("event")
    for _ in range(5):
        marks = [device.mark(), device.mark()]
        device.synchronize()
        device.seconds(*marks)
    assert driver.pycuda_log.count("event") == made + 2
    device.close()


def test_only_download_waits(driver):
    device = CudaDevice()
    array = new(device, (2,))
    device.upload(np.ones(2, np.float32), array)
    device.mark()
    assert "synchronize" not in driver.pycuda_log
    device.download(array)
    assert driver.pycuda_log.count("synchronize") == 1
    device.close()


def test_memory_is_freed_when_the_stream_has_let_go_of_it(driver):
    device = CudaDevice()
    array = new(device, (2,))
    view = array[1:]
    del array
    gc.collect()
    assert len(driver.memory) == 1  # a view holds it
    del view
    gc.collect()
    assert len(driver.memory) == 1  # the stream may still read it
    device.synchronize()
    assert not driver.memory
    device.close()


def test_full_memory_is_tried_again_without_what_is_unused(driver):
    device = CudaDevice()
    large = device.allocate(40 * MiB)
    with pytest.raises(VosDeployError, match=r"out of memory on NVIDIA Test \(40 MiB needed\)"):
        device.allocate(40 * MiB)
    del large
    gc.collect()
    device.allocate(40 * MiB)
    device.close()


def test_closing_frees_before_the_context_goes(driver):
    device = CudaDevice()
    held = new(device, (2,))
    device.close()
    device.close()
    assert driver.pycuda_log[-3:] == ["synchronize", f"free {held.pointer}", "pop"]
    assert driver.pycuda_log.count("pop") == 1


def test_closing_waits_before_page_locked_memory_goes(driver, monkeypatch):
    """Uploads that nobody waited for still read it."""

    def page_locked(*arguments: Any) -> np.ndarray:
        buffer = np.empty(*arguments).view(Locked)
        weakref.finalize(buffer, driver.pycuda_log.append, "unlock")
        return buffer

    class Locked(np.ndarray):
        pass

    monkeypatch.setattr(driver, "pagelocked_empty", page_locked)
    device = CudaDevice()
    device.upload(np.ones(2, np.float32), new(device, (2,)))
    device.close()
    log = driver.pycuda_log
    assert log.index("synchronize") < log.index("unlock") < log.index("pop")


def test_devices_share_the_context_and_close_in_any_order(driver):
    first, second = CudaDevice(), CudaDevice()
    first.close()
    assert "pop" not in driver.pycuda_log
    second.close()
    for step in ("retain", "push", "pop"):
        assert driver.pycuda_log.count(step) == 1


def test_context_outlives_the_devices(driver):
    """What ONNX Runtime still holds in it can be freed after a segmenter was closed."""
    for _ in range(3):
        CudaDevice().close()
    assert driver.pycuda_log.count("retain") == 1
    assert driver.pycuda_log.count("push") == driver.pycuda_log.count("pop") == 3
    assert "detach" not in driver.pycuda_log
    primary = PrimaryContext()
    primary.enter(driver)
    primary.leave(get_ident())
    del primary  # as when the process ends
    gc.collect()
    assert driver.pycuda_log[-2:] == ["push", "detach"]


def elsewhere(work: Callable[[], Any]) -> Any:
    """What `work` returns in another thread, or raises there."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def test_another_thread_is_refused(driver):
    device = CudaDevice()
    array = new(device, (2,))
    for work in (
        lambda: device.upload(np.ones(2, np.float32), array),
        lambda: device.download(array),
        lambda: device.copy(array, array),
        lambda: device.allocate(4),
        device.mark,
        device.used,
        device.close,
    ):
        with pytest.raises(InputError, match="in the same thread"):
            elsewhere(work)
    device.close()
    elsewhere(lambda: CudaDevice().close())  # one of its own is fine
    assert driver.pycuda_log.count("push") == driver.pycuda_log.count("pop") == 2


def test_device_that_is_collected_in_another_thread(driver):
    held = [CudaDevice()]
    new(held[0], (2,))
    elsewhere(held.clear)
    elsewhere(gc.collect)
    assert not driver.memory
    CudaDevice().close()
    assert driver.pycuda_log.count("push") == driver.pycuda_log.count("pop")


def test_device_that_nobody_closes(driver):
    new(CudaDevice(), (2,))
    gc.collect()
    assert driver.pycuda_log[-1] == "pop"
    assert not driver.memory


def test_empty_arrays(driver):
    device = CudaDevice()
    array = new(device, (0, 4))
    device.upload(np.empty((0, 4), np.float32), array)
    device.copy(array, array)
    assert device.download(array).shape == (0, 4)
    device.close()


def test_what_is_missing_is_said(driver, monkeypatch):
    monkeypatch.setattr(driver.Device, "count", staticmethod(lambda: 0))
    with pytest.raises(InputError, match="no CUDA device found"):
        import_cuda()

    def fails() -> None:
        raise driver.Error("cuInit failed: no CUDA-capable device is detected")

    monkeypatch.setattr(driver, "init", fails)
    with pytest.raises(InputError, match="CUDA cannot be initialised: cuInit failed"):
        import_cuda()
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(InputError, match=r"PyCUDA cannot be imported.*pip install"):
        import_cuda()
