"""Engines, by TensorRT for RTX where it is installed: it parses and builds without a GPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import onnx
import onnx.parser
import pytest

from vos_deploy.bundle import Graph, TensorSpec
from vos_deploy.errors import ModelError, VosDeployError
from vos_deploy.runtime.backends.tensorrt.builder import EngineBuilder
from vos_deploy.runtime.backends.tensorrt.monitor import Watch, monitor
from vos_deploy.runtime.backends.tensorrt.profiles import Limits


def model(text: str) -> bytes:
    graph = onnx.parser.parse_graph(text)
    built = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10
    )
    content: bytes = built.SerializeToString()
    return content


@pytest.fixture(scope="module")
def rtx() -> EngineBuilder:
    return EngineBuilder(pytest.importorskip("tensorrt_rtx"))


class TestRtx:
    @pytest.fixture
    def builder(self, rtx):
        return rtx

    def test_shapes_that_vary(self, builder):
        text = "twice (float[N, 4] x, float[2, 4] c) => (float[N, 4] y) { y = Add(x, x) }"
        specs = (TensorSpec("x", "float32", ("N", 4)), TensorSpec("c", "float32", (2, 4)))
        engine, profiles = builder.build("twice", model(text), Graph(specs, ()), {"N": (1, 5, 9)})
        assert len(engine) > 100
        assert profiles == {"x": ((1, 4), (5, 4), (9, 4))}

    def test_values_that_decide_on_shapes(self, builder):
        text = """best (float[3, N] x, int64[1] top_k) => (float[3, k] y)
            <int64[1] last = {1}> {
                size = Shape<start = 1>(x)
                k = Min(top_k, size)
                y, index = TopK<axis = -1>(x, k)
            }"""
        specs = (TensorSpec("x", "float32", (3, "N")), TensorSpec("top_k", "int64", (1,)))
        _, profiles = builder.build("best", model(text), Graph(specs, ()), {"N": (1, 50, 90)})
        assert profiles["top_k"] == ((1,), (20,), (50,))

    def test_vector_that_is_only_data(self, builder):
        text = """rows (float[N, 4] x, int64[G] objects) => (float[G, 4] y) {
                y = Gather<axis = 0>(x, objects)
            }"""
        specs = (TensorSpec("x", "float32", ("N", 4)), TensorSpec("objects", "int64", ("G",)))
        ranges = {"N": (1, 5, 9), "G": (1, 2, 4)}
        _, profiles = builder.build("rows", model(text), Graph(specs, ()), ranges)
        assert profiles["objects"] == ((1,), (2,), (4,))

    def test_parser_says_which_node(self, builder):
        text = "odd (float[4] x) => (float[4] y) { y = Bogus(x) }"
        graph = Graph((TensorSpec("x", "float32", (4,)),), ())
        with pytest.raises(ModelError, match=r"tensorrt_rtx .* cannot parse .*'odd'.*Bogus"):
            builder.build("odd", model(text), graph, {})

    def test_no_onnx_at_all(self, builder):
        with pytest.raises(ModelError, match=r"cannot parse the graph 'odd': \S+"):
            builder.build("odd", b"not a graph", Graph((), ()), {})

    def test_builder_says_why(self, builder):
        text = "wide (float[A, 4] x, float[B, 4] z) => (float[C, 4] y) { y = Add(x, z) }"
        specs = (TensorSpec("x", "float32", ("A", 4)), TensorSpec("z", "float32", ("B", 4)))
        ranges = {"A": (2, 2, 2), "B": (3, 3, 3)}
        with pytest.raises(VosDeployError, match=r"cannot build the graph 'wide': .*\w{5}"):
            builder.build("wide", model(text), Graph(specs, ()), ranges)

    def test_sides_follow_from_graph_to_graph(self, builder):
        """The second graph is known once the first is, and tells a side of its own."""
        pool = "AveragePool<kernel_shape = [4, 4], strides = [4, 4]>"
        onnx = {
            "late": model(
                f"late (float[K, 1, h, w] x) => (float[K, 1, s, t] y) {{ y = {pool}(x) }}"
            ),
            "early": model(
                f"early (float[1, 1, H, W] x) => (float[1, 1, h, w] y) {{ y = {pool}(x) }}"
            ),
        }

        def spec(name: str, *shape: int | str) -> tuple[TensorSpec, ...]:
            return (TensorSpec(name, "float32", shape),)

        graphs = {
            "late": Graph(spec("x", "K", 1, "h", "w"), spec("y", "K", 1, "s", "t")),
            "early": Graph(spec("x", 1, 1, "H", "W"), spec("y", 1, 1, "h", "w")),
        }
        sides = builder.sides(onnx, graphs, Limits((67, 100), 4, 20))
        assert sides == {"H": 67, "W": 100, "h": 16, "w": 25, "s": 4, "t": 6}

    def test_size_that_leads_to_other_shapes(self, builder):
        text = """pool (float[1, 1, H, 8] x) => (float[1, 1, h, 1] y) {
                y = AveragePool<kernel_shape = [8, 8], strides = [8, 8]>(x)
            }"""
        x = TensorSpec("x", "float32", (1, 1, 20, 8))
        fits = Graph((x,), (TensorSpec("y", "float32", (1, 1, 2, 1)),))
        assert builder.build("pool", model(text), fits, {})
        padded = Graph((x,), (TensorSpec("y", "float32", (1, 1, 3, 1)),))
        with pytest.raises(
            ModelError, match=r"'y' is \[1, 1, 2, 1\].*manifest it is \[1, 1, 3, 1\]"
        ):
            builder.build("pool", model(text), padded, {})

    def test_input_that_the_manifest_does_not_name(self, builder):
        text = "one (float[4] x) => (float[4] y) { y = Add(x, x) }"
        with pytest.raises(ModelError, match="an input 'x' not in the manifest"):
            builder.build("one", model(text), Graph((), ()), {})


class FakeConfig:
    """A builder's configuration that takes down its timing cache."""

    def __init__(self, readable: bool = True, matching: bool = True) -> None:
        self.readable, self.matching, self.loaded = readable, matching, []

    def create_timing_cache(self, content: bytes) -> Any:
        self.loaded.append(content)
        return (
            SimpleNamespace(serialize=lambda: b"measured") if self.readable or not content else None
        )

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        return self.matching

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: b"measured")


class TestTimingCache:
    @pytest.fixture
    def builder(self, tmp_path):
        class Logger:
            pass

        module = SimpleNamespace(ILogger=Logger, Builder=lambda logger: None)
        return EngineBuilder(module, tmp_path / "cache" / "timing")

    def test_is_kept_between_builds(self, builder, tmp_path):
        first, second = FakeConfig(), FakeConfig()
        builder._load_cache(first)
        builder._save_cache(first)
        builder._load_cache(second)
        assert (first.loaded, second.loaded) == ([b""], [b"measured"])
        assert [p.name for p in (tmp_path / "cache").iterdir()] == ["timing"]

    def test_that_is_not_readable_starts_anew(self, builder, tmp_path, caplog):
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache" / "timing").write_bytes(b"rubbish")
        config = FakeConfig(readable=False)
        builder._load_cache(config)
        assert config.loaded == [b"rubbish", b""]
        assert "cannot be read" in caplog.text

    def test_of_another_gpu_is_said(self, builder, caplog):
        builder._load_cache(FakeConfig(matching=False))
        assert "belongs to another GPU or TensorRT" in caplog.text

    def test_none_is_asked_for_rtx(self):
        module = SimpleNamespace(ILogger=object, Builder=lambda logger: None)
        config = FakeConfig()
        builder = EngineBuilder(module)
        builder._load_cache(config)
        builder._save_cache(config)
        assert not config.loaded


class TestProgress:
    def test_rtx_is_watched(self, monkeypatch):
        seen = []
        monkeypatch.setattr(Watch, "step", lambda self, phase: not seen.append(phase))
        text = "twice (float[4] x) => (float[4] y) { y = Add(x, x) }"
        graph = Graph((TensorSpec("x", "float32", (4,)),), ())
        EngineBuilder(pytest.importorskip("tensorrt_rtx")).build("twice", model(text), graph, {})
        assert seen

    def test_interrupt_stops_the_build(self, monkeypatch):
        class Bar:
            def update(self) -> None:
                raise KeyboardInterrupt

            def close(self) -> None:
                pass

        monkeypatch.setattr(
            "vos_deploy.runtime.backends.tensorrt.monitor.progress", lambda *a, **k: Bar()
        )
        text = "twice (float[4] x) => (float[4] y) { y = Add(x, x) }"
        graph = Graph((TensorSpec("x", "float32", (4,)),), ())
        builder = EngineBuilder(pytest.importorskip("tensorrt_rtx"))
        with pytest.raises(KeyboardInterrupt):
            builder.build("twice", model(text), graph, {})

    def test_only_the_outermost_phases_are_drawn(self):
        watch = Watch("encoder")
        watch.start("Building", None, 3)
        watch.start("Timing", "Building", 100)
        assert list(watch._bars) == ["Building"]
        assert watch.step("Timing") and watch.step("Building")
        watch.close()
        assert not watch._bars

    def test_version_that_cannot_be_watched(self):
        config = SimpleNamespace()
        with monitor(SimpleNamespace(), config, "encoder") as watch:  # type: ignore[arg-type]
            assert not watch.cancelled
        assert not hasattr(config, "progress_monitor")


@pytest.mark.parametrize("tf32", [False, True])
def test_tf32_is_off_unless_asked_for(tf32):
    """TensorRT's own default is on."""
    tensorrt_rtx = pytest.importorskip("tensorrt_rtx")
    builder = EngineBuilder(tensorrt_rtx, tf32=tf32)
    made = []
    native, builder._builder = builder._builder, SimpleNamespace()

    def create_builder_config() -> Any:
        made.append(native.create_builder_config())
        return made[-1]

    for name in ("create_network", "create_optimization_profile", "build_serialized_network"):
        setattr(builder._builder, name, getattr(native, name))
    builder._builder.create_builder_config = create_builder_config
    text = "twice (float[4] x) => (float[4] y) { y = Add(x, x) }"
    specs = Graph((TensorSpec("x", "float32", (4,)),), ())
    builder.build("twice", model(text), specs, {})
    assert made[0].get_flag(tensorrt_rtx.BuilderFlag.TF32) == tf32
