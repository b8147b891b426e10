from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from tests.support import models  # noqa: E402


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An official-looking checkpoint: a bare state dict saved from nn.DataParallel."""
    path = tmp_path_factory.mktemp("checkpoint") / "weights.pth"
    state = models.small("stm").state_dict()
    torch.save({f"module.{key}": value for key, value in state.items()}, path)
    return path
