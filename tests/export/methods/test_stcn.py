"""STCN's graphs: against the reference through the Segmenter, and through TensorRT's builder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from vos_deploy.benchmarks.scene import scene  # noqa: E402
from vos_deploy.export.cli import main as export  # noqa: E402
from vos_deploy.export.export import Options, export_graphs  # noqa: E402
from vos_deploy.models import save_checkpoint  # noqa: E402
from vos_deploy.models.stcn import STCN  # noqa: E402
from vos_deploy.reference.stcn import STCNReference  # noqa: E402
from vos_deploy.runtime.segmenter import Segmenter  # noqa: E402

GRAPHS = {"encoder", "memorize", "memory_read", "decoder"}


@pytest.fixture(scope="module")
def network() -> STCN:
    torch.manual_seed(0)
    return STCN(backbone="resnet18", key_dim=16, value_dim=32, decoder_width=32)


@pytest.fixture(scope="module")
def model(network: STCN, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stcn")
    save_checkpoint(folder / "stcn.safetensors", network)
    checkpoint = ["--checkpoint", str(folder / "stcn.safetensors")]
    assert export(["--method", "stcn", *checkpoint, "--output", str(folder / "model")]) == 0
    return folder / "model"


@pytest.mark.parametrize("include_last", [False, True])
def test_segmenter_does_what_the_official_loop_does(
    model: Path, network: STCN, include_last: bool
) -> None:
    """Three objects, one of them later, padding, a memory that is full."""
    # All positions, so that no tie is decided by rounding.
    options = {"memory_every": 2, "memory_frames": 3, "top_k": 1000, "include_last": include_last}
    official = STCNReference(network, **options)  # type: ignore[arg-type]
    with Segmenter(model, threads=1, **options) as segmenter:  # type: ignore[arg-type]
        for t, (frame, mask) in zip(range(11), scene((75, 110), 3), strict=False):
            marked = {0: np.where(mask < 3, mask, 0), 3: np.where(mask == 3, 3, 0)}.get(t)
            segmenter.step(frame, marked)
            official.step(frame, marked)
            assert segmenter._tracker is not None
            found = segmenter._tracker.estimate()
            assert np.abs(found - official.probabilities.numpy()).max() < 1e-4, t
        assert segmenter.memory.frames == 3 * 3


@pytest.mark.parametrize(
    ("precision", "size"),
    [
        ("fp32", None),
        ("fp16", (96, 150)),
        pytest.param("fp16", None, marks=pytest.mark.slow),
        pytest.param("fp32", (96, 150), marks=pytest.mark.slow),
    ],
)
def test_every_graph_builds_in_tensorrt(
    network: STCN, precision: str, size: tuple[int, int] | None
) -> None:
    pytest.importorskip("tensorrt_rtx")
    from tests.support.tensorrt import build

    models = export_graphs(network, Options(size=size, precision=precision))
    assert models.keys() == GRAPHS
    for name, graph in models.items():
        values = {"top_k": (1, 20, 1000)} if name == "memory_read" else {}
        assert len(build(graph, values)) > 1000, name
