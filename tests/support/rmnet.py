"""A small RMNet with every part of the real one, random weights, and its exported form."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.support import golden, models  # noqa: E402
from vos_deploy.models import create  # noqa: E402
from vos_deploy.models.rmnet import RMNet  # noqa: E402

NARROW = models.SMALL["rmnet"]
# Neither side is a multiple of 16; 100 x 150 pads to 112 x 160, with rows above and columns left.
SIZE = (100, 150)


def small_network(**config: Any) -> RMNet:
    network = models.small("rmnet", **config)
    assert isinstance(network, RMNet)
    return network


def official_state(model: RMNet) -> dict[str, Any]:
    """The content of a checkpoint as the official ones are: two networks saved from
    nn.DataParallel, beside numbers that are NumPy's."""
    state = model.state_dict()
    parts = {
        part: {
            f"module.{key.removeprefix(f'{part}.')}": value
            for key, value in state.items()
            if key.startswith(f"{part}.")
        }
        for part in ("rmnet", "tflownet")
    }
    scores = {name: np.float64(0.5) for name in ("J-Mean", "F-Mean", "JF-Mean")}
    return {"epoch_index": 3, "best_metrics": scores, **parts}


def exported() -> Path:
    """The small network as a model folder."""
    return models.model("rmnet")


def recorded_flow(index: int, image: Any, previous: Any) -> Any:
    """The flow of the recorded runs, float32 [H, W, 2], for frames cut at the upper left."""
    flow = golden.arrays("rmnet")["flow_dis"][index].astype(np.float32).transpose(1, 2, 0)
    return np.ascontiguousarray(flow[-image.shape[0] :, -image.shape[1] :])


@cache
@golden.unfilled()
def golden_network() -> RMNet:
    """The network whose outputs were recorded: generated weights."""
    model = create("rmnet")
    # The two parts were generated apart, by keys without the part's name.
    for part in (model.rmnet, model.tflownet):
        part.load_state_dict(golden.state(part))
    return model
