"""The PyTorch side of `fps` and `parity`: networks of a model, followed by their reference."""

from itertools import islice
from pathlib import Path

import pytest

pytest.importorskip("torch")

from vos_deploy.benchmarks.pytorch import load_network, reference
from vos_deploy.benchmarks.scene import scene
from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError
from vos_deploy.methods import METHODS
from vos_deploy.models import create, save_checkpoint

SMALL = {"backbone": "resnet18", "key_dim": 8, "value_dim": 16, "decoder_width": 16}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_follows_objects(method: str) -> None:
    side = reference(create(method, backbone="resnet18"), memory_every=1, memory_frames=None)
    for t, (frame, mask) in enumerate(islice(scene((64, 96), 1), 2)):
        labels = side.step(frame, None if t else mask)
    assert labels.shape == (64, 96)
    assert set(side.timings) > {"prepare", "finish"}


def test_checkpoint_of_another_network(tmp_path: Path) -> None:
    network = create("stm", **SMALL)
    save_checkpoint(tmp_path / "stm.safetensors", network)
    same = Bundle("stm", "fp32", graphs={}, config=network.config)
    assert load_network(same, tmp_path / "stm.safetensors").config == network.config
    other = Bundle("stm", "fp32", graphs={}, config={**network.config, "key_dim": 32})
    with pytest.raises(InputError, match="found another network"):
        load_network(other, tmp_path / "stm.safetensors")
