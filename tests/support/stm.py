"""STM's networks whose outputs were recorded."""

from __future__ import annotations

from typing import Any

from tests.support import golden

# Name of the recorded network -> its configuration.
VARIANTS: dict[str, dict[str, str]] = {
    "stm_original": {},
    "stm_training_resnet18": {"backbone": "resnet18", "stem": "background"},
    "stm_training_resnet34": {"backbone": "resnet34", "stem": "background"},
    "stm_training_resnet50": {"backbone": "resnet50", "stem": "background"},
    "stm_training_resnet101": {"backbone": "resnet101", "stem": "background"},
}


@golden.unfilled()
def state(name: str) -> dict[str, Any]:
    """The state dict whose outputs were recorded: generated weights, real mean and deviation."""
    from vos_deploy.models import create

    model = create("stm", **VARIANTS[name])
    real = {k: v for k, v in model.state_dict().items() if k.endswith((".mean", ".std"))}
    return golden.state(model) | real


@golden.unfilled()
def network(name: str) -> Any:
    """The network of that state."""
    from vos_deploy.models import create, load_weights

    model = create("stm", **VARIANTS[name])
    load_weights(model, state(name), name)
    return model
