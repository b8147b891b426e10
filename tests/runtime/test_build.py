"""vos-deploy-build on a small network, and what it says when it cannot."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vos_deploy.bundle import Bundle, demonstration_model
from vos_deploy.errors import InputError
from vos_deploy.extras import install
from vos_deploy.runtime import build as build_module
from vos_deploy.runtime.backends.cuda import Gpu
from vos_deploy.runtime.backends.tensorrt import library
from vos_deploy.runtime.backends.tensorrt.builder import EngineError
from vos_deploy.runtime.backends.tensorrt.compatibility import rebuild_command
from vos_deploy.runtime.build import build, main

HERE = ("--runtime", "tensorrt_rtx")


def test_every_graph_becomes_an_engine(tmp_path, capsys):
    pytest.importorskip("tensorrt_rtx")
    folder, plan = demonstration_model(), tmp_path / "small.plan"
    options = ["--size", "90x150", "--max-objects", "3", "--memory-frames", "6", "--json", *HERE]
    assert main([str(folder), "--output", str(plan), *options]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["plan"], facts["size"], facts["gpu"]) == (str(plan), [90, 150], None)
    source, bundle = Bundle.load(folder), Bundle.load(plan)
    assert bundle.graphs.keys() == source.graphs.keys()
    assert all(len(bundle.read(name)) > 1000 for name in bundle.graphs)
    assert (bundle.size, bundle.short_side, bundle.max_objects) == ((90, 150), None, 3)
    assert (bundle.precision, bundle.memory.frames) == (source.precision, 6)
    assert bundle.engine is not None
    assert bundle.engine.runtime == "tensorrt_rtx"
    assert bundle.versions["tensorrt_rtx"] == bundle.engine.version
    tokens = 6 * 10
    assert bundle.engine.profiles == {
        "encoder": {},
        "memorize": {
            "masks": ((1, 96, 160), (2, 96, 160), (3, 96, 160)),
            "objects": ((1,), (2,), (3,)),
        },
        "memory_read": {
            "memory_key": ((tokens, 64), (5 * tokens, 64), (6 * tokens, 64)),
            "memory_value": ((tokens, 1, 128), (5 * tokens, 2, 128), (6 * tokens, 3, 128)),
            "top_k": ((1,), (20,), (50,)),
        },
        "decoder": {"readout": ((1, 6, 10, 128), (2, 6, 10, 128), (3, 6, 10, 128))},
    }
    shapes = {spec.name: spec.shape for spec in bundle.graphs["memorize"].outputs}
    assert shapes["memory_value"] == (tokens, "G", 128)


@pytest.fixture
def one_of(make_model):
    """The small model by hand, with some fields of its manifest replaced; never built here."""
    return lambda **fields: str(make_model(**fields))


def refused(arguments: list[str], capsys: Any) -> str:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return str(error)


def test_any_size_needs_one(one_of, capsys):
    assert "such as --size 480x854" in refused([one_of()], capsys)


def test_fixed_size_takes_no_other(one_of, capsys):
    folder = one_of(size=(32, 48))
    error = refused([folder, "--size", "64x96"], capsys)
    assert "is fixed to 32x48" in error
    assert f"python -m vos_deploy.export --method stm --size 64x96 --output {folder}" in error


def test_precision_is_that_of_the_graphs(one_of, capsys):
    folder = one_of()
    error = refused([folder, "--size", "32x48", "--precision", "fp16"], capsys)
    assert f"vos_deploy.export --method stm --precision fp16 --output {folder}-fp16" in error


def test_more_objects_than_the_model_takes(one_of, capsys):
    arguments = [one_of(max_objects=2), "--size", "32x48", "--max-objects", "3"]
    assert "takes at most 2 objects, got --max-objects 3" in refused(arguments, capsys)


@pytest.mark.parametrize(("driver", "extra"), [(True, "tensorrt"), (False, "rtx")])
def test_no_tensorrt(one_of, capsys, monkeypatch, driver, extra):
    monkeypatch.setattr(library, "has_driver", lambda: driver)
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    error = refused([one_of(), "--size", "32x48"], capsys)
    assert install(extra) in error


def test_output_that_is_no_plan(one_of, tmp_path, capsys):
    arguments = [one_of(), "--size", "32x48", "--output", str(tmp_path / "stm.engine")]
    assert "ends in .plan" in refused(arguments, capsys)


def test_plan_of_a_plan(one_of, tmp_path):
    bundle = replace(Bundle.load(one_of()), engine=SimpleNamespace())
    with pytest.raises(InputError, match="is already a plan"):
        build(bundle, tmp_path / "other.plan")


def test_missing_folder(capsys, tmp_path):
    assert "no model at" in refused([str(tmp_path / "nowhere")], capsys)


@pytest.mark.parametrize("size", ["480", "480by854", "8x8", "x"])
def test_wrong_usage(size, capsys):
    assert main(["stm/", "--size", size]) == 2
    assert "such as 480x854" in capsys.readouterr().err


class TestGpuAndCache:
    """TensorRT itself tunes on the GPU that is there; what it measures is kept for the user."""

    @pytest.fixture
    def built(self, monkeypatch, tmp_path, one_of):
        """Builds with a TensorRT whose engines are the graphs' names; returns plan and cache."""
        caches = []

        class Builder:
            def __init__(self, module: Any, timing_cache: Path | None, *flags: bool) -> None:
                caches.append(timing_cache)

            def sides(self, *arguments: Any) -> dict[str, int]:
                return {}

            def build(self, name: str, onnx: bytes, graph: Any, ranges: Any) -> Any:
                return name.encode(), {}

        module = SimpleNamespace(__name__="tensorrt", __version__="11.4.0.106")
        monkeypatch.setattr(build_module, "import_runtime", lambda runtime: module)
        monkeypatch.setattr(build_module, "import_cuda", lambda: None)
        monkeypatch.setattr(build_module, "describe_gpu", lambda driver: Gpu("NVIDIA L4", "8.9"))
        monkeypatch.setattr(build_module, "EngineBuilder", Builder)

        def run(precision: str = "fp32", **options: Any) -> Any:
            bundle = Bundle.load(one_of(precision=precision))
            return build(bundle, tmp_path / "out.plan", size=(32, 48), **options), caches[-1]

        return run

    def test_plan_says_which(self, built):
        plan, _ = built()
        assert (plan.engine.gpu, plan.engine.compute_capability) == ("NVIDIA L4", "8.9")
        assert (plan.engine.max_objects, plan.engine.memory_frames) == (4, 20)

    def test_build_that_fails_says_what_may_help(self, built, monkeypatch):
        def fails(self: Any, *arguments: Any) -> Any:
            raise EngineError("cannot build the graph 'encoder': Myelin")

        monkeypatch.setattr(build_module.EngineBuilder, "build", fails)
        with pytest.raises(EngineError, match=r"Myelin; it may .*export .* --size 32x48 --output"):
            built()

    def test_cache_lies_where_the_user_keeps_such_things(self, built, monkeypatch, tmp_path):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
        name = "timing-tensorrt-11.4.0.106-sm89.cache"
        assert built()[1] == tmp_path / "mine" / "vos_deploy" / name
        monkeypatch.delenv("XDG_CACHE_HOME")
        assert built()[1] == Path.home() / ".cache" / "vos_deploy" / name
        assert built(timing_cache=tmp_path / "given")[1] == tmp_path / "given"

    def test_rtx_has_none(self, built, monkeypatch, tmp_path):
        module = SimpleNamespace(__name__="tensorrt_rtx", __version__="1.7.1.116")
        monkeypatch.setattr(build_module, "import_runtime", lambda runtime: module)
        plan, cache = built(timing_cache=tmp_path / "given")
        assert cache is None
        assert plan.engine.gpu is None

    def test_fused_read(self, built, monkeypatch):
        prepared = []
        monkeypatch.setattr(
            build_module.plugin, "prepare", lambda module, gpu: prepared.append(gpu)
        )
        with pytest.raises(InputError, match=r"no memory read that can be fused"):
            built("fp16", fused_read=True)
        monkeypatch.setattr(build_module.plugin, "reads", lambda content: ["a read"])
        monkeypatch.setattr(build_module.plugin, "check_scale", lambda name, content: None)
        plan, _ = built("fp16", fused_read=True)
        assert prepared == ["8.9", "8.9"]
        assert Bundle.load(plan.path).engine.fused_read
        assert rebuild_command(plan).endswith("--memory-frames 20 --fused-read")
        assert not built()[0].engine.fused_read

    def test_fused_read_in_full_precision(self, built):
        with pytest.raises(InputError, match=r"needs an fp16 model, got fp32"):
            built(fused_read=True)

    def test_tf32_is_asked_for_by_name(self, built):
        plan, _ = built(tf32=True)
        assert Bundle.load(plan.path).engine.tf32
        assert rebuild_command(plan).endswith("--memory-frames 20 --tf32")
        assert not built()[0].engine.tf32
