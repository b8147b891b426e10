"""What the figures depend on: the machine, and how fast the bare device is."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from time import perf_counter
from typing import Any

import numpy as np

from vos_deploy.errors import InputError
from vos_deploy.runtime.backends.device import DeviceArray

from .. import conditions

PACKAGES = ("torch", "onnx", "triton", "tensorrt", "tensorrt-rtx", "pycuda", "cuda-bindings")


def facts() -> Iterator[dict[str, Any]]:
    yield {"gpu": gpu_facts(), **conditions.machine(*PACKAGES)}
    try:
        from vos_deploy.runtime.backends.cuda import CudaDevice

        device = CudaDevice()
    except InputError as error:
        yield {"device": str(error)}
        return
    try:
        yield bandwidth(device)
    finally:
        device.close()


def gpu_facts() -> str:
    """Name, driver and memory of the GPU, as its driver tells."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown ({error})"
    return done.stdout.strip().replace("\n", "; ")


def bandwidth(device: Any, times: int = 100) -> dict[str, Any]:
    """Milliseconds of a frame of 480x854 up and down, and whether it comes back as it went."""
    frame = np.random.default_rng(0).integers(0, 255, (480, 854, 3), dtype=np.uint8)
    array = DeviceArray(device.allocate(frame.nbytes), 0, frame.shape, frame.dtype)
    started = perf_counter()
    for _ in range(times):
        device.upload(frame, array)
    device.synchronize()
    up = (perf_counter() - started) / times
    started = perf_counter()
    for _ in range(times):
        found = device.download(array)
    down = (perf_counter() - started) / times
    return {
        "device": f"{device.name}, compute capability {device.compute_capability}",
        "CUDA graphs": device.records,
        "frame up ms": round(1000 * up, 3),
        "frame down ms": round(1000 * down, 3),
        "passed": bool((found == frame).all()),
    }
