"""INT8 with an encoder of several frames: `--precision int8 --batch`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.support import batches, int8, models
from vos_deploy.bundle import Bundle, Graph
from vos_deploy.export.clip import Clip, sample_clip
from vos_deploy.export.export import graph_specs
from vos_deploy.export.graph import batched
from vos_deploy.export.int8.convert import to_int8
from vos_deploy.export.mixed.calibration import Calibration
from vos_deploy.export.to_onnx import tensor_specs, to_onnx
from vos_deploy.runtime.model import Model
from vos_deploy.runtime.segmenter import Segmenter

SIZE = (64, 96)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small STM of random weights, all of it in INT8."""
    folder, network = tmp_path_factory.mktemp("int8"), models.small("stm").eval()
    plain = Bundle.load(models.model("stm"))
    graphs = {name: onnx.load(plain.graph_path(name)) for name in plain.graphs}
    graphs["encoder"] = to_onnx(batched(graph_specs(network, "fp32")["encoder"]))
    specs = {**plain.graphs, "encoder": Graph(*tensor_specs(graphs["encoder"]))}
    contents = {name: graph.SerializeToString() for name, graph in graphs.items()}
    draft = replace(plain, graphs=specs).save(folder / "float", contents)
    calibrated = replace(draft, size=SIZE)  # small and fast
    made, table = to_int8(network, calibrated, graphs, Calibration(loss=1), lambda text: None)
    assert len(int8.in_int8(made["encoder"])) > 5
    contents = {name: graph.SerializeToString() for name, graph in made.items()}
    return replace(draft, precision="int8", int8=table).save(folder / "int8", contents).path


def alone(folder: Path, clip: Clip) -> list[np.ndarray]:
    with Segmenter(folder, threads=1) as segmenter:
        found = [segmenter.step(clip.frames[0], clip.mask)]
        return found + [segmenter.step(frame) for frame in clip.frames[1:]]


@pytest.mark.slow  # an export
def test_frames_of_a_batch_are_encoded_as_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = sample_clip(SIZE)
    clips = [sample, Clip(sample.frames[::-1], sample.mask)]
    expected = [alone(folder, clip) for clip in clips]
    assert all(len(np.unique(labels)) > 1 for found in expected for labels in found)
    runs = batches.watch_batches(monkeypatch)
    with Model(folder, threads=1) as model, model.group(batch=2) as group:
        streams = [group.segmenter() for _ in clips]
        for index in range(len(sample.frames)):
            frames = {s: clip.frames[index] for s, clip in zip(streams, clips, strict=True)}
            masks = {s: clip.mask for s, clip in zip(streams, clips, strict=True)}
            labels = group.step(frames, None if index else masks)
            for stream, wanted in zip(streams, expected, strict=True):
                np.testing.assert_array_equal(labels[stream], wanted[index])
    assert 2 in runs
