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
from tests.support.stm import network, state  # noqa: E402

PROBABILITIES, PIXELS = 5e-5, 5e-4


def exported(name: str) -> Path:
    """Exported from a checkpoint that looks like the official file."""
    content = lambda: {f"module.{key}": value for key, value in state(name).items()}  # noqa: E731
    return models.exported(f"{name}-recorded", "stm", content)


@pytest.fixture(params=models.ENGINES, scope="module")
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def original(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Who runs the graphs: what to tell a Segmenter."""
    if engine == "pytorch":
        folder = tmp_path_factory.mktemp("stm") / "model"
        return models.in_pytorch(network("stm_original"), folder)
    return {"model": exported("stm_original")}


@pytest.fixture(scope="module")
def retrained() -> Any:
    return {"model": exported("stm_training_resnet18")}


def check_run(place: Any, run: str, frames: np.ndarray, mask: np.ndarray, every: int = 2) -> None:
    recorded = golden.arrays("stm")
    step, expected = golden.sampled("stm", f"{run}prob_f32")
    with vos_deploy.Segmenter(**place, memory_every=every, memory_frames="unlimited") as segmenter:
        assert np.array_equal(segmenter.step(frames[0], mask), mask)
        differing = 0
        for t, frame in enumerate(frames[1:]):
            labels = segmenter.step(frame)
            found = segmenter.probabilities[:, ::step, ::step]
            assert error(found, expected[t]) < PROBABILITIES
            differing += int((labels != recorded[f"{run}mask"][t + 1]).sum())
        assert differing / frames[1:, ..., 0].size < PIXELS


def test_two_objects(original: Any, engine: str) -> None:
    frames, mask = golden.clip()
    length = golden.TWO_READS if engine == "pytorch" else None
    check_run(original, "stm/", frames[:length], mask)


@needs_golden
@pytest.mark.slow
def test_size_that_is_no_multiple_of_16(original: Any) -> None:
    frames, mask = golden.clip()
    check_run(original, "stm/odd_", frames[:, :237, :425], mask[:237, :425])


@needs_golden
@pytest.mark.slow
def test_one_object(original: Any) -> None:
    frames, mask = golden.clip()
    check_run(original, "stm/d16_", frames, (mask > 0).astype(np.uint8))


@needs_golden
@pytest.mark.slow
def test_retrained_network(retrained: Any) -> None:
    check_run(retrained, "stan_resnet18/", *golden.clip())
