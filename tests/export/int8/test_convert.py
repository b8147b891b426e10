"""A model in INT8, from the float one to masks and to TensorRT."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.support import int8, models
from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError
from vos_deploy.export import export as export_module
from vos_deploy.export.cli import main
from vos_deploy.export.clip import sample_clip
from vos_deploy.export.int8.convert import to_int8
from vos_deploy.export.int8.layers import candidates
from vos_deploy.export.mixed.calibration import Calibration, read_kept
from vos_deploy.runtime import backends
from vos_deploy.runtime.backends.tensorrt.eight_bit import symmetric
from vos_deploy.runtime.boxes import backend as boxes
from vos_deploy.runtime.boxes import windows
from vos_deploy.runtime.segmenter import Segmenter


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small STM with random weights, which all search would leave in float."""
    folder = tmp_path_factory.mktemp("int8")
    draft = Bundle.load(models.model("stm"))
    graphs = {name: onnx.load(draft.graph_path(name)) for name in draft.graphs}
    clip = folder / "clip"
    clip.mkdir()
    source = Path(__file__).parents[3] / "export" / "sample"
    for name in ("frames", "mask.png"):
        (clip / name).symlink_to(source / name)
    calibration = Calibration(clip, loss=1.0, kept={"decoder": candidates(graphs["decoder"])[-1:]})
    calibrated = replace(draft, size=(64, 96))  # small and fast
    made, table = to_int8(models.small("stm"), calibrated, graphs, calibration, lambda text: None)
    assert table["clip"] == "clip"
    contents = {name: graph.SerializeToString() for name, graph in made.items()}
    replace(draft, precision="int8", int8=table).save(folder / "model", contents)
    return folder / "model"


def test_manifest_has_the_table_and_can_be_given_again(folder: Path) -> None:
    bundle = Bundle.load(folder)
    assert bundle.int8["frames"] == 3
    assert 0 < bundle.int8["loss"] <= 1
    kept = read_kept(folder / "manifest.json", "int8")
    assert list(kept) == ["decoder"]
    decoder = onnx.load(folder / "decoder.onnx")
    assert kept["decoder"][0] not in int8.in_int8(decoder)
    assert len(int8.in_int8(decoder)) == 6


def test_graphs_take_and_give_what_they_did(folder: Path) -> None:
    before, after = Bundle.load(models.model("stm")), Bundle.load(folder)
    for name, graph in after.graphs.items():
        assert (graph.inputs, graph.outputs) == (
            before.graphs[name].inputs,
            before.graphs[name].outputs,
        )
    size = (folder / "encoder.onnx").stat().st_size
    assert size < 0.4 * before.graph_path("encoder").stat().st_size


def test_follows_objects_on_the_cpu(folder: Path) -> None:
    clip = sample_clip((64, 96))
    with Segmenter(folder) as segmenter:
        segmenter.step(clip.frames[0], clip.mask)
        assert segmenter.step(clip.frames[1]).shape == (64, 96)
        assert segmenter._backend.device == "cpu"
    with pytest.raises(InputError, match="INT8, which ONNX Runtime computes on the CPU only"):
        backends.create(Bundle.load(folder), "cuda")


def test_a_decoder_sees_the_same_in_a_box(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "MARGIN", 7)  # covers the receptive field
    # Weights that are not trained see the object everywhere.
    monkeypatch.setattr(boxes, "reaches_border", lambda *arguments: False)
    frame = np.random.default_rng(0).integers(0, 255, (266, 330, 3), np.uint8)
    mask = np.zeros(frame.shape[:2], np.uint8)
    mask[125:145, 160:173] = 1
    found = []
    for in_boxes in (False, True):
        with Segmenter(folder, threads=1, decode_in_boxes=in_boxes) as segmenter:
            segmenter.step(frame, mask)
            segmenter.step(frame)
            found.append(segmenter.probabilities[:, 125:145, 160:173])
            used = getattr(segmenter._tracker.backend, "windows", None)
    assert used is not None and [window.size for window in used] == [(16, 16)]
    assert np.ptp(found[0][1]) > 1e-3
    assert np.abs(found[1] - found[0]).max() < 1e-5


@pytest.mark.parametrize("graph", ["encoder", "memorize", "decoder"])
def test_tensorrt_builds_it(folder: Path, graph: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    from tests.support.tensorrt import build

    content = symmetric((folder / f"{graph}.onnx").read_bytes())
    assert len(build(onnx.load_model_from_string(content))) > 1000


def test_the_command(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    graphs = {path.stem: onnx.load(path) for path in models.model("stm").glob("*.onnx")}
    monkeypatch.setattr(export_module, "export_graphs", lambda *arguments: graphs)
    output = tmp_path / "m"
    arguments = ["--method", "stm", "--checkpoint", str(checkpoint), "--output", str(output)]
    options = ["--precision", "int8", "--iou-loss", "1", "--size", "64x96"]
    assert main([*arguments, *options]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert any(row.startswith("encoder.query_key") and row.endswith("ok") for row in rows)
    (lost,) = (row for row in rows if row.startswith("IoU lost by INT8"))
    assert lost.endswith("tolerance 1e+00  ok")
    manifest = json.loads((output / "manifest.json").read_text())
    assert (manifest["precision"], manifest["int8"]["clip"]) == ("int8", "sample")
    assert manifest["parity"]["errors"]["IoU lost by INT8"]["error"] == manifest["int8"]["loss"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--calibrate", "clip"], "--calibrate needs --precision fp16 or int8, got fp32"),
        (["--precision", "fp32", "--iou-loss", "0.1"], "--iou-loss needs --precision fp16 or"),
        (["--precision", "int8", "--half-storage"], "--half-storage does not go with"),
        (["--precision", "int8", "--calibrate-mask", "m.png"], "needs --calibrate"),
        (["--precision", "int8", "--iou-loss", "2"], "must be a number from 0 to 1, got '2'"),
        (["--precision", "int8", "--keep-float", "none.json"], "cannot read the layers"),
        (["--precision", "int8", "--calibrate", "none"], "expected a folder with frames/"),
    ],
)
def test_wrong_usage_is_one_sentence(
    arguments: list[str], sentence: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--method", "stm", "--checkpoint", str(checkpoint), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert sentence in error


@pytest.mark.parametrize("content", ["[]", "{}", '{"kept": {"decoder": "conv"}}', "{"])
def test_file_that_names_no_layers(tmp_path: Path, content: str) -> None:
    path = tmp_path / "kept.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"kept\.json"):
        read_kept(path, "int8")
