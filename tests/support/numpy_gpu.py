"""ONNX Runtime's CUDA backend on a GPU in NumPy, with the CPU's kernels.

    python -m tests.support.numpy_gpu gpu --engine cuda --minutes 8

runs a benchmark so, the processes that it starts included.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from tests.support.fakes import FakeDevice
from vos_deploy.benchmarks.cli import main
from vos_deploy.bundle import Bundle
from vos_deploy.commands import run_command
from vos_deploy.runtime.backends import ort_cuda
from vos_deploy.runtime.backends.ort_cuda import OrtCudaBackend


class Prompt(FakeDevice):
    """The CPU's sessions run at once, so what is on the stream must have happened by then."""

    def put(self, work: Any) -> None:
        super().put(work)
        waits = self.waits
        self.synchronize()
        self.waits = waits


class OnCpu(OrtCudaBackend):
    provider = "CPUExecutionProvider"
    place = "cpu"

    def _provider_options(self) -> dict[str, str]:
        asked = super()._provider_options()
        assert (asked["device_id"], asked["user_compute_stream"]) == ("0", str(self.gpu.stream))
        return {}


class NumpyCuda(OnCpu):
    """With a GPU of its own, large enough for everything."""

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        super().__init__(bundle, threads, Prompt(total=2**40))


class NumpyTf32(NumpyCuda):
    device = "cuda-tf32"
    tf32 = True


@contextmanager
def numpy_gpu() -> Iterator[None]:
    """What "cuda" means meanwhile."""
    backends = {"OrtCudaBackend": NumpyCuda, "OrtCudaTf32Backend": NumpyTf32}
    with patch.multiple(ort_cuda, **backends):
        yield


if __name__ == "__main__":
    with numpy_gpu():
        code = run_command(main, sys.argv[1:])
    sys.exit(code)
