"""The whole way of an official checkpoint: file, export, Segmenter, the official numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

import vos_deploy  # noqa: E402
from tests.support import golden, models  # noqa: E402
from tests.support.golden import error, needs_golden  # noqa: E402
from tests.support.rmnet import golden_network, official_state, recorded_flow  # noqa: E402

PROBABILITIES, PIXELS = 3e-3, 1e-4
SLOW = pytest.mark.slow
FULL = (SLOW, needs_golden)


@pytest.fixture(scope="module")
def model() -> Path:
    """Exported from a checkpoint that looks like the official file."""
    content = lambda: official_state(golden_network())  # noqa: E731
    return models.exported("rmnet-recorded", "rmnet", content)


@pytest.fixture(params=models.ENGINES, scope="module")
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def place(
    engine: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """Who runs the graphs: what to tell a Segmenter."""
    if engine == "pytorch":
        return models.in_pytorch(golden_network(), tmp_path_factory.mktemp("rmnet") / "model")
    return {"model": request.getfixturevalue("model")}


def check_run(
    place: dict[str, Any],
    run: str,
    every: int,
    masks: dict[int, np.ndarray],
    length: int | None = None,
    **options: Any,
) -> None:
    recorded, frames = golden.arrays("rmnet"), golden.clip()[0][:length]
    step, probabilities = golden.sampled("rmnet", f"{run}_prob")
    arguments = {"memory_every": every, "memory_frames": "unlimited", **options}
    with vos_deploy.Segmenter(**place, **arguments) as segmenter:
        differing = 0
        for t, frame in enumerate(frames):
            labels = segmenter.step(frame, masks.get(t))
            differing += int((labels != recorded[f"{run}_argmax"][t]).sum())
            if t:
                found = segmenter.probabilities[:, ::step, ::step]
                expected = probabilities[t - 1, : len(found)]
                assert error(found, expected) < PROBABILITIES
                tracker = segmenter._tracker
                for name, boxes in (("query", tracker.query_boxes), ("mem", tracker.memory_boxes)):
                    found = tracker.backend.download(boxes)
                    assert np.array_equal(found, recorded[f"{run}_bbox_{name}"][t - 1, 1:3])
        assert differing / frames[..., 0].size < PIXELS


@pytest.mark.parametrize(
    ("run", "every", "options"),
    [
        pytest.param("A", 2, {"flow": recorded_flow, "read": "sparse"}, marks=FULL),
        ("B", 2, {}),
        pytest.param("A", 2, {"flow": recorded_flow, "read": "dense"}, marks=FULL),
        pytest.param("E1", 1, {"flow": recorded_flow}, marks=FULL),
        pytest.param("E5", 5, {"flow": recorded_flow}, marks=FULL),
    ],
)
def test_two_objects(
    place: Any, engine: str, run: str, every: int, options: dict[str, Any]
) -> None:
    length = golden.TWO_READS if engine == "pytorch" else None
    check_run(place, run, every, {0: golden.clip()[1]}, length, **options)


@needs_golden
@SLOW
def test_object_that_appears_later(place: Any) -> None:
    """Its pixels are certain where they are drawn; the official rule leaves those of the object it
    covers their odds, which here are next to none."""
    mask = golden.clip()[1]
    masks = {0: mask * (mask == 1), 2: mask * (mask == 2)}
    check_run(place, "C", 2, masks, flow=recorded_flow, expected_objects=2)


@needs_golden
@SLOW
def test_mirrored_run_is_averaged(place: Any) -> None:
    frames, mask = golden.clip()
    arguments = {"memory_every": 2, "memory_frames": "unlimited", "flip": True}
    with vos_deploy.Segmenter(**place, **arguments) as segmenter:
        segmenter.step(frames[0], mask)
        for frame, expected in zip(
            frames[1:3], golden.arrays("rmnet")["B_flip_prob_s4_f1_2"], strict=True
        ):
            segmenter.step(frame)
            assert error(segmenter.probabilities[:, ::4, ::4], expected) < PROBABILITIES


@needs_golden
@SLOW
def test_size_that_is_no_multiple_of_16(model: Path) -> None:
    recorded, (frames, mask) = golden.arrays("rmnet"), golden.clip()
    arguments = {"memory_every": 2, "memory_frames": "unlimited", "flow": recorded_flow}
    with vos_deploy.Segmenter(model, **arguments) as segmenter:
        segmenter.step(frames[0, 39:, 115:], mask[39:, 115:])
        for t, name in ((1, "O_prob_f1"), (2, "O_prob_f2_s2")):
            labels = segmenter.step(frames[t, 39:, 115:])
            assert error(segmenter.probabilities[:, ::2, ::2], recorded[name]) < PROBABILITIES
            assert (labels != recorded["O_argmax"][t]).mean() < PIXELS


@needs_golden
@SLOW
def test_small_objects_and_three_memory_frames(model: Path) -> None:
    """Tight boxes: both reads of the exported graphs, on memory that was written one by one."""
    from vos_deploy.bundle import Bundle
    from vos_deploy.runtime.backends.ort import OnnxRuntimeBackend
    from vos_deploy.runtime.trackers.rmnet.tokens import places, tokens_inside

    recorded, frames = golden.arrays("rmnet"), golden.clip()[0]
    first = np.stack([recorded["TF_small_mask"] == i for i in (1, 2)]).astype(np.float32)
    masks = [np.ascontiguousarray(np.roll(first, (-6 * t, 24 * t), (1, 2))) for t in range(3)]
    hw, f32 = 405, np.float32
    with OnnxRuntimeBackend(Bundle.load(model)) as backend:
        keys, values = np.empty((2, 3, hw, 128), f32), np.empty((2, 3, hw, 512), f32)
        boxes = np.empty((3, 2, 4), np.int32)
        for t in range(3):
            key, value = np.empty((2, hw, 128), f32), np.empty((2, hw, 512), f32)
            outputs = {"memory_key": key, "memory_value": value, "memory_boxes": boxes[t]}
            backend.run("memorize", {"image": frames[t], "masks": masks[t]}, outputs)
            keys[:, t], values[:, t] = key, value
        assert np.array_equal(boxes.transpose(1, 0, 2), recorded["TF_bbox_mem"])
        flow = recorded["flow_dis"][3].astype(f32)
        region, query_boxes = np.empty((2, 15, 27), f32), np.empty((2, 4), np.int32)
        outputs = {"query_region": region, "query_boxes": query_boxes}
        backend.run("region", {"masks": masks[2], "flow": flow}, outputs)
        assert np.array_equal(query_boxes, recorded["TF_bbox_query"])
        assert np.array_equal(region, recorded["TF_att16_query"])
        features = {
            "query_key": np.empty((hw, 128), f32),
            "query_value": np.empty((1, 512, 15, 27), f32),
            "skip8": np.empty((1, 256, 30, 54), f32),
            "skip4": np.empty((1, 256, 60, 108), f32),
        }
        backend.run("encoder", {"image": frames[3]}, features)
        readout = np.empty((2, hw, 512), f32)
        for k in range(2):
            memory = {
                "memory_key": keys[k].reshape(-1, 128),
                "memory_value": values[k].reshape(-1, 512),
            }
            query = {"query_key": features["query_key"]}
            dense = {**query, "query_region": region[k].reshape(-1), **memory}
            backend.run("memory_read", dense, {"readout": readout[k]})
            asked = tokens_inside(query_boxes[k], (15, 27))
            held = np.concatenate(
                [t * hw + tokens_inside(boxes[t, k], (15, 27)) for t in range(3)], dtype=np.int32
            )
            sparse, found = np.array([3 * hw - len(held)], f32), np.empty((hw, 512), f32)
            lists = {"query_tokens": asked, "places": places(asked, hw), "memory_tokens": held}
            inputs = {**query, **lists, "outside": sparse, **memory}
            backend.run("memory_read_regional", inputs, {"readout": found})
            assert error(found, readout[k]) < 1e-4
            grid = found.T.reshape(512, 15, 27)
            assert error(grid[::8], recorded["TF_mem_out"][k]) < 1e-4
        probabilities, labels = np.empty((3, 240, 432), f32), np.empty((240, 432), np.uint8)
        shared = {name: features[name] for name in ("query_value", "skip8", "skip4")}
        backend.run(
            "decoder",
            {
                "readout": readout.reshape(2, 15, 27, 512),
                "query_region": region,
                **shared,
                "present": np.ones(2, f32),
                "image": frames[3],
            },
            {"probabilities": probabilities, "labels": labels},
        )
        assert error(probabilities[:, ::2, ::2], recorded["TF_prob"]) < PROBABILITIES
