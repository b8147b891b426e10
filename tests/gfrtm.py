"""The G-FRTM network that was recorded from, or one like it where nothing was recorded."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tests import golden
from vos_deploy.export.export import Options, export
from vos_deploy.models import create
from vos_deploy.models.gfrtm.network import GFRTM
from vos_deploy.models.imagenet import STAGES

Float = NDArray[np.float64]


def state(backbone: str = "resnet18") -> dict[str, torch.Tensor]:
    """Generated weights, some scaled so that masks have a foreground and the gate an opinion."""
    tensor: Callable[..., Any] = golden.weights().tensor
    keys = golden.keys("gfrtm")[backbone]
    named = {key: np.array(tensor(key, tuple(s))) for key, (s, _) in keys["model"].items()}
    for stage in ("layer5", "layer4", "layer3", "layer2"):
        named[f"refiner.TSE.{stage}.transform.0.weight"][:, 64] *= 60
    named["refiner.project.conv2.weight"] *= 16
    named["refiner.project.conv2.bias"][:] = -4.8
    named["convGS.4.weight"] *= 8
    named["convGS.4.bias"][:] = [6.85, 0]
    return {key: torch.from_numpy(value) for key, value in named.items()}


def trunk(backbone: str = "resnet18") -> dict[str, torch.Tensor]:
    """The trunk by torchvision's names."""
    shapes = golden.keys("gfrtm")[backbone]["backbone_torchvision"]
    tensor = golden.weights().tensor
    return {
        key: torch.from_numpy(np.array(tensor(key, tuple(s)))) for key, (s, _) in shapes.items()
    }


@cache
def network(backbone: str = "resnet18") -> GFRTM:
    torch.manual_seed(0)  # the same weights whoever asks, and however the argument is spelled
    model = create("gfrtm", backbone=backbone)
    assert isinstance(model, GFRTM)
    if not golden.GOLDEN.is_dir():
        return shaken(model)
    weights = state(backbone)
    for key, value in trunk(backbone).items():
        first, _, rest = key.partition(".")
        weights[f"trunk.{STAGES.get(first, first)}.{rest}"] = value
    model.load_state_dict(weights)
    return model


def shaken(model: GFRTM) -> GFRTM:
    """Random norms, and a score that is heard."""
    torch.manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(0, 0.05)
                module.running_var.uniform_(0.8, 1.2)
        for encoder in model.refiner.TSE.values():
            encoder.transform[0].weight[:, 64] *= 60
        model.refiner.project.conv2.weight *= 16
    return model


def exported(backbone: str = "resnet18") -> Path:
    """The model folder for any size; made once, since it takes long."""
    return _exported(backbone)


@cache
def _exported(backbone: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="gfrtm-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    bundle, passed = export(network(backbone), folder / "model", Options())
    assert passed, json.dumps(bundle.parity, indent=2)
    return folder / "model"


def recorded_weights(index: int, channels: int, middle: int) -> tuple[Float, Float]:
    """Where the recorded target models started from."""
    tensor = golden.weights().tensor
    project = tensor(f"target{index}.project.weight", (middle, channels, 1, 1))
    kernel = tensor(f"target{index}.filter.weight", (1, middle, 3, 3))
    return (
        project.reshape(middle, channels).astype(np.float64),
        kernel.reshape(middle, 9).T.astype(np.float64),
    )


def recorded_augment(first: NDArray[np.uint8]) -> Callable[..., Any]:
    """What was painted from the first frame, by the object's mask; `first` holds the ids."""

    def augment(frame: NDArray[np.uint8], mask: NDArray[np.bool_]) -> Any:
        index = next(i for i in (1, 2) if np.array_equal(mask, first == i))
        arrays = golden.arrays("gfrtm")
        images = arrays[f"M/o{index}/aug_images_1to4"].transpose(0, 2, 3, 1)
        labels = arrays[f"M/o{index}/aug_labels"][1:, 0] > 0
        return [frame, *np.ascontiguousarray(images)], [mask, *labels]

    return augment
