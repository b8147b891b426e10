"""What is said where ONNX Runtime is missing, doubled, or would report home."""

import logging
import os
import sys
from importlib.metadata import PackageNotFoundError

import onnxruntime
import pytest

from vos_deploy import onnx_runtime
from vos_deploy.errors import InputError


@pytest.fixture
def fresh_import():
    """Import ONNX Runtime as if for the first time."""
    onnx_runtime.import_onnxruntime.cache_clear()
    yield
    onnx_runtime.import_onnxruntime.cache_clear()


def test_missing_engine_names_both_extras(monkeypatch, fresh_import):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r'\[cpu\]".*\[gpu\]"'):
        onnx_runtime.import_onnxruntime()


@pytest.mark.parametrize(("before", "after"), [(None, "1"), ("0", "0")])
def test_telemetry_is_off_unless_asked_for(monkeypatch, fresh_import, before, after):
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", before or "")
    if before is None:
        monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    onnx_runtime.import_onnxruntime()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == after


@pytest.mark.parametrize(
    ("both", "cuda", "level"),
    [(True, False, "WARNING"), (True, True, "INFO"), (False, False, None)],
)
def test_two_distributions_of_one_module(monkeypatch, caplog, fresh_import, both, cuda, level):
    def distribution(name):
        if name == "onnxruntime-gpu" and not both:
            raise PackageNotFoundError(name)

    offered = ["CUDAExecutionProvider"] * cuda + ["CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: offered)
    monkeypatch.setattr(onnx_runtime, "distribution", distribution)
    with caplog.at_level(logging.INFO, "vos_deploy"):
        onnx_runtime.import_onnxruntime()
        onnx_runtime.import_onnxruntime()
    assert [record.levelname for record in caplog.records] == [level] * (level is not None)
