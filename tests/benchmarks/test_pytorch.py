"""The PyTorch side of `fps` and `parity`: networks of a model, followed by their reference."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from tests.support import models
from vos_deploy.benchmarks.cli import main
from vos_deploy.benchmarks.pytorch import compiled, load_network, reference
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


def test_the_published_loop_is_scored(
    make_davis: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Resized as the exported model resizes, one video after the other: the same scores."""
    weights = tmp_path / "small.safetensors"
    save_checkpoint(weights, models.small("stm"))
    jf = [
        "jf",
        "--model",
        str(models.model("stm")),
        "--davis",
        str(make_davis({"a": [1, 2], "b": [5]})),
        "--year",
        "2017",
        "--json",
    ]
    assert main([*jf, "--size", "64x96"]) == 0
    exported = json.loads(capsys.readouterr().out)
    assert main([*jf, "--size", "64x96", "--pytorch", str(weights)]) == 0
    published = json.loads(capsys.readouterr().out)
    assert published["conditions"]["results"] == "PyTorch, eager float32 on cpu"
    for ours, theirs in zip(exported["scores"], published["scores"], strict=True):
        assert theirs["J&F-Mean"] == pytest.approx(ours["J&F-Mean"], abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pytorch", "x.pth", "--copy-first"], "--pytorch runs the network of a --model"),
        (["--compile"], "--compile is of PyTorch"),
        (["--pytorch", "x.pth", "--memory-mib", "3"], "the published loops drop the oldest"),
    ],
)
def test_refused(
    make_davis: Any, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["jf", "--davis", str(make_davis({"a": [1]})), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_modules_of_a_copy_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    network = create("stm", **SMALL)
    found = []
    monkeypatch.setattr("torch.nn.Module.compile", lambda self: found.append(self))
    twin = compiled(network)
    assert found == [*twin.children()]
    assert not set(map(id, found)) & set(map(id, network.children()))


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_labels() -> None:
    network = create("stm", **SMALL)
    sides = [reference(n, memory_every=1) for n in (network, compiled(network))]
    for t, (frame, mask) in enumerate(islice(scene((64, 96), 1), 3)):
        eager, fast = (side.step(frame, None if t else mask) for side in sides)
        assert (eager != fast).mean() < 0.01
