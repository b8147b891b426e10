"""STM's networks whose outputs were recorded."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.support import golden

# Name of the recorded network -> its configuration.
VARIANTS: dict[str, dict[str, str]] = {
    "stm_original": {},
    "stm_training_resnet18": {"backbone": "resnet18", "stem": "background"},
    "stm_training_resnet34": {"backbone": "resnet34", "stem": "background"},
    "stm_training_resnet50": {"backbone": "resnet50", "stem": "background"},
    "stm_training_resnet101": {"backbone": "resnet101", "stem": "background"},
}


def state(name: str) -> dict[str, Any]:
    """The state dict whose outputs were recorded: generated weights, real mean and deviation."""
    import torch

    from vos_deploy.models import create

    own = create("stm", **VARIANTS[name]).state_dict()
    tensor = golden.weights().tensor
    return {
        key: value
        if key.endswith((".mean", ".std"))
        else torch.from_numpy(np.asarray(tensor(key, tuple(value.shape))))
        for key, value in own.items()
    }


def network(name: str) -> Any:
    """The network of that state."""
    from vos_deploy.models import create, load_weights

    model = create("stm", **VARIANTS[name])
    load_weights(model, state(name), name)
    return model
