"""IMSFR's graphs and what they hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import ModelProto, TensorProto, helper
from onnx.reference import ReferenceEvaluator

from tests.support import models
from tests.support.golden import needs_golden
from tests.support.imsfr import Recorded, bank
from vos_deploy.benchmarks.scene import scene
from vos_deploy.bundle import Bundle
from vos_deploy.export.clip import sample_clip
from vos_deploy.export.graph import GraphSpec, float32, int64
from vos_deploy.export.methods import imsfr
from vos_deploy.export.ops import DOMAIN, OPSET, add_functions
from vos_deploy.export.shared_keys import MemoryReadGraph
from vos_deploy.export.to_onnx import to_onnx
from vos_deploy.export.verify import TOLERANCES, relative_error, verify
from vos_deploy.models.imsfr import IMSFR
from vos_deploy.reference.imsfr import IMSFRReference
from vos_deploy.runtime.segmenter import Segmenter
from vos_deploy.runtime.trackers.imsfr import SAMPLINGS

GRAPHS = ("encoder", "memorize", "memory_read", "frame_read", "decoder")


@pytest.fixture(scope="module")
def network() -> IMSFR:
    return models.small("imsfr")  # type: ignore[return-value]


@pytest.fixture(scope="module")
def model() -> Path:
    return models.model("imsfr")


@pytest.fixture(scope="module")
def half() -> Path:
    """Of one size, in half precision."""
    return models.model("imsfr", "--size", "90x120", "--precision", "fp16")


def session(model: ModelProto | Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(
        model if isinstance(model, Path) else model.SerializeToString()
    )


@pytest.mark.exports
def test_manifest_describes_the_model(model: Path) -> None:
    bundle = Bundle.load(model)
    assert (bundle.method, bundle.precision, bundle.size) == ("imsfr", "fp32", None)
    assert bundle.config == {"backbone": "resnet10", "dim": 32, "decoder_width": 32}
    assert tuple(bundle.graphs) == GRAPHS
    assert (bundle.memory.every, bundle.memory.frames) == (6, 20)
    assert "without a licence" in bundle.licence
    inputs = {t.name: (t.dtype, t.shape) for t in bundle.graphs["memory_read"].inputs}
    assert inputs == {
        "query_key": ("float32", ("hw", 32)),
        "memory_key": ("float32", ("N", 32)),
        "memory_value": ("float32", ("N", "G", 32)),
        "frames": ("int64", ("S",)),
        "top_k": ("int64", (1,)),
    }
    shapes = {t.name: t.shape for t in bundle.graphs["memorize"].inputs}
    assert (shapes["masks"], shapes["objects"]) == (("K", "H16", "W16"), ("G",))


def test_values_of_a_group_are_those_of_the_network(network: IMSFR) -> None:
    """What runs once for all objects, and what runs for both frames at once, changes nothing."""
    from vos_deploy.export.shared_keys import padded_frame
    from vos_deploy.models.shared_keys import others_of

    images = torch.randint(0, 256, (2, 45, 70, 3), dtype=torch.uint8)
    masks = torch.rand(1, 3, 48, 80)
    with torch.inference_mode():
        frames = [padded_frame(image) for image in images]
        f16 = network.encode(frames[0]).f16
        graph = imsfr.MemorizeGraph(network)
        found = graph(*images, f16, masks[0], torch.tensor([2, 0]))
        expected = network.memorize(*frames, f16, masks, others_of(masks))
    for one, other in zip(found, expected, strict=True):
        rows = other[0, [2, 0]].flatten(2).permute(2, 0, 1)
        assert relative_error(one.numpy(), rows.numpy()) < 1e-5


@pytest.mark.exports
def test_segmenter_does_what_the_official_loop_does(model: Path, network: IMSFR) -> None:
    """Sampling by the same seed, an object that is added, padding, a memory that is full."""
    kept = {"memory_every": 1, "memory_frames": 12, "seed": 3}
    official = IMSFRReference(network, **kept)
    with Segmenter(model, threads=1, **kept) as segmenter:
        for t, (frame, mask) in zip(range(18), scene((75, 110), 2), strict=False):
            marked = {0: np.where(mask == 1, 1, 0), 3: np.where(mask == 2, 2, 0)}.get(t)
            marked = None if marked is None else marked.astype(np.uint8)
            segmenter.step(frame, marked)
            official.step(frame, marked)
            assert segmenter._tracker is not None
            found = segmenter._tracker.estimate()
            assert np.abs(found - official.probabilities.numpy()).max() < 1e-4, t
        assert segmenter.memory.frames == 2 * 12


@pytest.mark.exports
def test_wrong_read_fails_in_spite_of_ties(model: Path, network: IMSFR, tmp_path: Path) -> None:
    bundle = Bundle.load(model)
    graphs = {name: onnx.load(bundle.graph_path(name)) for name in GRAPHS}
    node = graphs["memory_read"].graph.node
    scale = next(a for n in node if n.op_type == "MemoryReadFrames" for a in n.attribute)
    scale.f *= 2
    contents = {name: graph.SerializeToString() for name, graph in graphs.items()}
    wrong = bundle.save(tmp_path / "model", contents)
    rows = verify(network, wrong, sample_clip((64, 96)), TOLERANCES["fp32"])
    failed = {row.output for row in rows if not row.passed}
    assert "memory_read.readout" in failed
    assert not any(name.startswith(("encoder", "memorize", "frame_read")) for name in failed)


@pytest.mark.exports
def test_frame_halves_take_one_frame(model: Path) -> None:
    """`memorize` holds one trunk for both frames, and the fuser's f16 half takes one map; the
    decoder convolves neither skip features nor the key."""
    graph = onnx.load(model / "memorize.onnx").graph
    producers = {output: n for n in graph.node for output in n.output}
    convolved = [n.input[0] for n in graph.node if n.op_type == "Conv"]
    # The stem, fourteen of the trunk, five of the first block, two of the second, the attention's,
    # the gate's and two of the waves.
    assert len(convolved) == 1 + 14 + 5 + 2 + 1 + 1 + 2
    rectified = {name: list(producers[name].input) for name in convolved if name in producers}
    assert "f16" in convolved and ["f16"] in rectified.values()
    decoder = onnx.load(model / "decoder.onnx").graph
    direct = {n.input[0] for n in decoder.node if n.op_type == "Conv"}
    assert not direct & {"shared16", "skip8", "skip4"}


@pytest.mark.slow
def test_half_precision_keeps_the_waves_in_float32(half: Path) -> None:
    graph = onnx.shape_inference.infer_shapes(onnx.load(half / "memorize.onnx")).graph
    types = {v.name: v.type.tensor_type.elem_type for v in [*graph.value_info, *graph.input]}
    waves = [n for n in graph.node if n.op_type in ("Sin", "Cos")]
    assert len(waves) == 12
    assert {types[n.input[0]] for n in waves} == {TensorProto.FLOAT}
    wide = [i for i in graph.initializer if list(i.dims) == [32, 13 * 32, 1, 1]]
    assert [i.data_type for i in wide] == [TensorProto.FLOAT]
    assert {o.type.tensor_type.elem_type for o in graph.output} == {TensorProto.FLOAT16}


def frames_model(dtype: int) -> ModelProto:
    def tensor(name: str, *shape: int | str, kind: int = dtype) -> object:
        return helper.make_tensor_value_info(name, kind, shape)

    inputs = [tensor("q", "hw", 4), tensor("k", "N", 4), tensor("v", "N", "V")]
    numbers = [tensor("f", "S", kind=TensorProto.INT64), tensor("n", 1, kind=TensorProto.INT64)]
    names = ["q", "k", "v", "f", "n"]
    node = helper.make_node("MemoryReadFrames", names, ["r"], domain=DOMAIN, scale=4**-0.5)
    graph = helper.make_graph([node], "read", [*inputs, *numbers], [tensor("r", "hw", "V")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    add_functions(model)
    return model


@pytest.mark.parametrize("top_k", [1, 3, 1000])
@pytest.mark.parametrize("frames", [[0], [2, 1], [3, 0, 3, 3, 1]])
def test_read_of_chosen_frames_in_both_evaluators(top_k: int, frames: list[int]) -> None:
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=s).astype(np.float32) for s in ((5, 4), (20, 4), (20, 6)))
    rows = np.concatenate([np.arange(5) + 5 * t for t in frames])
    scores = -((q[:, None] - k[rows]) ** 2).sum(2) / 2
    best = np.argsort(-scores, 1)[:, :top_k]
    weights = np.exp(np.take_along_axis(scores, best, 1))
    weights /= weights.sum(1, keepdims=True)
    expected = (weights[..., None] * v[rows][best]).sum(1)
    feed = {"q": q, "k": k, "v": v, "f": np.array(frames), "n": np.array([top_k])}
    model = frames_model(TensorProto.FLOAT)
    for found in (
        ReferenceEvaluator(model).run(None, feed)[0],
        session(model).run(None, feed)[0],
    ):
        assert np.abs(found - expected).max() < 1e-5


def test_scores_are_float32_in_half_precision() -> None:
    # The squared norms of these keys are beyond half precision.
    q = np.full((1, 4), 200, np.float16)
    k = np.stack([np.full(4, value, np.float16) for value in (200, 199)])
    v = np.array([[1], [0]], np.float16)
    feed = {"q": q, "k": k, "v": v, "f": np.array([1, 0]), "n": np.array([2])}
    found = session(frames_model(TensorProto.FLOAT16)).run(None, feed)[0]
    assert found.dtype == np.float16
    assert abs(float(found[0, 0]) - 1 / (1 + np.exp(-2))) < 2e-3


@pytest.fixture(scope="module")
def recorded_reads() -> tuple[onnxruntime.InferenceSession, onnxruntime.InferenceSession]:
    """The two read graphs, at the widths of the recorded reads."""
    reads = {
        "query_key": float32("hw", 16),
        "memory_key": float32("N", 16),
        "memory_value": float32("N", "G", 8),
    }
    chosen = {"frames": int64("S", below="T"), "top_k": int64(1, below="N")}
    output = {"readout": float32("G", "hw", 8)}
    sample = GraphSpec(imsfr.SampleReadGraph(), {**reads, **chosen}, output)
    single = GraphSpec(MemoryReadGraph(), reads, output)
    sessions = [session(to_onnx(spec)) for spec in (sample, single)]
    return sessions[0], sessions[1]


@needs_golden
@pytest.mark.parametrize("frames", [1, 8, 9, 10, 11, 20, 37])
@pytest.mark.parametrize("name", ["davis17", "davis16", "yv"])
def test_reads_are_the_official_ones(
    recorded_reads: tuple[onnxruntime.InferenceSession, ...], name: str, frames: int
) -> None:
    setting = {"davis17": "davis2017", "davis16": "davis2016", "yv": "youtube"}[name]
    (keys, values, latest, query), expected = bank(f"F_{name}", frames)
    chosen = SAMPLINGS[setting].select(frames, Recorded(f"F_{name}/T{frames}"))
    sample, single = recorded_reads
    first = {"memory_key": keys[:15], "memory_value": values[:15]}
    newest = {"memory_key": keys[-15:], "memory_value": latest[-15:]}
    sampled = {
        "memory_key": keys,
        "memory_value": values,
        "frames": np.array(chosen, np.int64),
        "top_k": np.array([4]),
    }
    for read, graph, feed in zip(
        expected, (sample, single, single), (sampled, first, newest), strict=True
    ):
        found = graph.run(None, {"query_key": query, **feed})[0]
        assert np.abs(found - read).max() < 2e-6
