"""ONNX Runtime on the CPU: in place, checked, and clear about what is missing."""

import numpy as np
import pytest

from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError, ModelError
from vos_deploy.runtime import backends
from vos_deploy.runtime.backends import ort


@pytest.fixture
def backend(make_model):
    with backends.create(Bundle.load(make_model()), "cpu", threads=1) as backend:
        yield backend


def read_arrays(hw: int = 6, frames: int = 2):
    rng = np.random.default_rng(0)
    shapes = {
        "query_key": (hw, 4),
        "memory_key": (frames * hw, 4),
        "memory_value": (frames * hw, 2),
    }
    return {name: rng.random(shape, np.float32) for name, shape in shapes.items()}


def expected_readout(arrays):
    score = arrays["query_key"] @ arrays["memory_key"].T
    affinity = np.exp(score - score.max(axis=1, keepdims=True))
    return affinity / affinity.sum(axis=1, keepdims=True) @ arrays["memory_value"]


def test_output_lands_where_the_caller_wants_it(backend):
    arrays = read_arrays()
    readouts = backend.empty((3, 6, 2), np.float32)
    readouts[:] = -1
    backend.run("memory_read", arrays, {"readout": readouts[1]})
    assert np.allclose(readouts[1], expected_readout(arrays), atol=1e-6)
    assert (readouts[[0, 2]] == -1).all()


def test_memory_may_grow_between_calls(backend):
    readout = backend.empty((6, 2), np.float32)
    for frames in (1, 3, 2):
        arrays = read_arrays(frames=frames)
        backend.run("memory_read", arrays, {"readout": readout})
        assert np.allclose(readout, expected_readout(arrays), atol=1e-6)


def test_upload_download_copy(backend):
    array = backend.empty((2, 3), np.float32)
    backend.upload(np.arange(6, dtype=np.float32).reshape(2, 3), array)
    host = backend.download(array)
    other = backend.empty((2, 3), np.float32)
    backend.copy(array, other)
    array[:] = 0
    assert np.array_equal(host, np.arange(6).reshape(2, 3))
    assert np.array_equal(backend.download(other), host)


def test_timings_add_up_per_graph(backend):
    readout = backend.empty((6, 2), np.float32)
    backend.run("memory_read", read_arrays(), {"readout": readout})
    once = backend.timings["memory_read"]
    backend.run("memory_read", read_arrays(), {"readout": readout})
    assert backend.timings["memory_read"] > once > 0


def test_names_types_and_shapes_are_checked(backend):
    arrays = read_arrays()
    readout = backend.empty((6, 2), np.float32)
    with pytest.raises(ModelError, match="has the inputs query_key, memory_key, memory_value"):
        backend.run("memory_read", {"query_key": readout}, {"readout": readout})
    with pytest.raises(ModelError, match="has the outputs readout"):
        backend.run("memory_read", arrays, {"labels": readout})
    with pytest.raises(ModelError, match=r"'query_key'.*float32 \['hw', 4\], not float64"):
        wrong = {**arrays, "query_key": arrays["query_key"].astype(np.float64)}
        backend.run("memory_read", wrong, {"readout": readout})
    with pytest.raises(ModelError, match=r"'query_key'.*not float32 \[6, 2\]"):
        backend.run("memory_read", {**arrays, "query_key": readout}, {"readout": readout})


@pytest.mark.parametrize("device", ["tpu", "CUDA", ""])
def test_unknown_device(make_model, device):
    with pytest.raises(InputError, match="must be one of auto, cpu"):
        backends.create(Bundle.load(make_model()), device)


def test_no_threads(make_model):
    with pytest.raises(InputError, match="threads must be at least 1, got 0"):
        backends.create(Bundle.load(make_model()), "cpu", threads=0)


def test_file_that_is_no_onnx_graph(make_model):
    bundle = Bundle.load(make_model())
    bundle.graph_path("decoder").write_bytes(b"not a graph")
    with pytest.raises(ModelError, match=r"cannot load .*decoder\.onnx"):
        backends.create(bundle, "cpu")


@pytest.mark.parametrize(
    ("threads", "usable", "expected"), [(3, 2, 3), (None, 2, 2), (None, 8, 0), (None, 1, 1)]
)
def test_threads_are_as_many_as_the_process_may_use(monkeypatch, threads, usable, expected):
    """0 leaves it to ONNX Runtime: one for each physical core, tied to it."""
    runtime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(ort, "usable", lambda: usable)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert ort.session_options(runtime, threads).intra_op_num_threads == expected
