from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from vos_deploy.models import create  # noqa: E402
from vos_deploy.models.stm import STM  # noqa: E402


def small_stm(**config: object) -> STM:
    """A network with every part of STM and few channels; random weights, norms included."""
    torch.manual_seed(0)
    narrow = {"backbone": "resnet18", "key_dim": 16, "value_dim": 32, "decoder_width": 16}
    model = create("stm", **{**narrow, **config})
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.05)
            module.running_var.uniform_(0.8, 1.2)
    return model


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An official-looking checkpoint: a bare state dict saved from nn.DataParallel."""
    path = tmp_path_factory.mktemp("checkpoint") / "weights.pth"
    state = small_stm().state_dict()
    torch.save({f"module.{key}": value for key, value in state.items()}, path)
    return path
