"""Weights load from whatever people have, and what is no such file is called what it is."""

from __future__ import annotations

import argparse
import io
import pickle
import shlex
import subprocess
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from safetensors.torch import save  # noqa: E402

from vos_deploy.errors import ModelError  # noqa: E402
from vos_deploy.models import create, load_model  # noqa: E402
from vos_deploy.models.checkpoint_files import (  # noqa: E402
    NESTS,
    WRAPPERS,
    conversion,
    read_state,
)

NARROW = {"backbone": "resnet18", "key_dim": 8, "value_dim": 16, "decoder_width": 8}


@pytest.fixture(scope="module")
def network() -> Any:
    torch.manual_seed(0)
    return create("stm", **NARROW)


def state(network: Any, prefix: str = "") -> Any:
    return OrderedDict((prefix + key, value) for key, value in network.state_dict().items())


def loads(network: Any, content: Any, path: Path, **options: Any) -> bool:
    torch.save(content, path, **options)
    ours, theirs = network.state_dict(), load_model(path, "stm").state_dict()
    return all(torch.equal(ours[key], theirs[key]) for key in ours)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    wrappers=st.lists(st.sampled_from(WRAPPERS), max_size=3),
    nests=st.lists(st.sampled_from(NESTS), max_size=2),
    suffix=st.sampled_from([".pth", ".pt", ".ckpt", ".bin", ".safetensors", ""]),
    beside=st.dictionaries(
        st.sampled_from(["epoch", "loss", "name", "optimizer", "args"]),
        st.sampled_from([3, 0.5, "run", {"state": {}}, None, [1, 2]]),
    ),
    zipped=st.booleans(),
)
def test_wrapped_and_nested(
    tmp_path: Path,
    wrappers: list[str],
    nests: list[str],
    suffix: str,
    beside: dict[str, Any],
    zipped: bool,
) -> None:
    small = {"Encoder.conv1.weight": torch.arange(3.0), "Decoder.pred2.bias": torch.ones(2)}
    content: Any = {"".join(wrappers) + key: value for key, value in small.items()}
    for nest in nests:
        content = {**beside, nest: content}
    if not nests:
        content = {**content, **beside}
    path = tmp_path / f"weights{suffix}"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    read, _ = read_state(path)
    assert read.keys() == small.keys()
    assert all(torch.equal(read[key], value) for key, value in small.items())


def test_what_trainers_save_beside_the_weights(network: Any, tmp_path: Path) -> None:
    content = {
        "state_dict": state(network),
        "best": np.float64(0.8),
        "args": argparse.Namespace(lr=1e-5),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}},
    }
    assert loads(network, content, tmp_path / "w.pth")


def test_a_network_compiled_in_pieces(network: Any, tmp_path: Path) -> None:
    content = {
        key.replace("Decoder.", "Decoder._orig_mod."): value
        for key, value in state(network).items()
    }
    assert loads(network, content, tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["w.pth", "w.bin", "w", "w.safetensors"])
def test_the_content_says_the_format(network: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(save({k: v.contiguous() for k, v in state(network).items()}))
    assert read_state(tmp_path / name)[0].keys() == network.state_dict().keys()


def test_half_precision_is_read_as_float32(network: Any, tmp_path: Path) -> None:
    halves = {k: v.half() if v.is_floating_point() else v for k, v in state(network).items()}
    torch.save(halves, tmp_path / "w.pth")
    read, _ = read_state(tmp_path / "w.pth")
    assert {value.dtype for value in read.values()} == {torch.float32, torch.int64}


def zipped(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty: download it again"),
        (b"<!DOCTYPE html><html>quota</html>", "is a web page"),
        (b"\n <html lang=en>\n", "is a web page"),
        (b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "pointer of Git LFS"),
        (zipped({"w": torch.zeros(900)})[:1500], "not a complete PyTorch checkpoint"),
        (save({"w": torch.zeros(900)})[:1500], "not a complete .safetensors file"),
        (b"PK\x03\x04junk", "not a complete PyTorch checkpoint"),
        (bytes(range(256)) * 4, "not a complete PyTorch checkpoint|holds more than tensors"),
        (zipped([1, 2]), "not a state dict"),
        (zipped({"epoch": 3}), "not a state dict"),
        (pickle.dumps(argparse.Namespace(a=1)), "holds more than tensors|not a complete"),
    ],
)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_what_is_no_checkpoint(tmp_path: Path, content: bytes, sentence: str, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # none comes before the message
        with pytest.raises(ModelError, match=sentence) as caught:
            read_state(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite(network: Any, tmp_path: Path, value: float) -> None:
    content = state(network)
    content["Decoder.pred2.bias"] = torch.tensor([0.0, value])
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"not finite, in Decoder\.pred2\.bias"):
        load_model(tmp_path / "w.pth")


WHOLE: list[Callable[[Any], Any]] = [
    lambda network: network,
    lambda network: {"model": network, "epoch": 3},
    lambda network: {"state_dict": network},
]


@pytest.mark.parametrize("whole", WHOLE)
def test_the_conversion_that_is_printed_works(
    network: Any, tmp_path: Path, whole: Callable[[Any], Any]
) -> None:
    path = tmp_path / "it's a $(folder)" / "whole.pth"
    path.parent.mkdir()
    torch.save(whole(network), path)
    with pytest.raises(ModelError, match="holds more than tensors") as caught:
        load_model(path, "stm")
    command = conversion(path)
    assert command in str(caught.value)
    python, option, code = shlex.split(command)
    assert (python, option) == ("python", "-c")
    exec(code, {})  # a process of its own would take seconds to import PyTorch
    converted = load_model(path.with_name("whole-tensors.pth"), "stm").state_dict()
    assert all(torch.equal(converted[k], v) for k, v in network.state_dict().items())


def test_the_conversion_works_in_a_shell(network: Any, tmp_path: Path) -> None:
    torch.save(network, tmp_path / "whole.pth")
    command = conversion(tmp_path / "whole.pth")
    subprocess.run(command.replace("python", sys.executable, 1), shell=True, check=True)
    assert read_state(tmp_path / "whole-tensors.pth")[0].keys() == network.state_dict().keys()
