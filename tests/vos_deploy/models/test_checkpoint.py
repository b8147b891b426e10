from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from vos_deploy.errors import InputError, ModelError  # noqa: E402
from vos_deploy.models import (  # noqa: E402
    create,
    load_checkpoint,
    load_model,
    load_weights,
    save_checkpoint,
)
from vos_deploy.models.stm import STM  # noqa: E402

NARROW = {"backbone": "resnet18", "key_dim": 8, "value_dim": 16, "decoder_width": 8}


@pytest.fixture
def model() -> STM:
    torch.manual_seed(0)
    return create("stm", **NARROW)


def same(a: STM, b: STM) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("nest", [None, "state_dict", "model"])
def test_every_official_layout_loads(
    model: STM, tmp_path: Path, prefix: str, nest: str | None
) -> None:
    state: Any = OrderedDict((prefix + k, v) for k, v in model.state_dict().items())
    if nest:
        state = {"epoch": 3, nest: state, "max_skip": [5, 3]}
    torch.save(state, tmp_path / "weights.pth.tar")
    assert same(load_model(tmp_path / "weights.pth.tar"), model)


def test_safetensors_round_trip_keeps_the_configuration(tmp_path: Path) -> None:
    model = create("stm", **NARROW, stem="background", stride=16)
    save_checkpoint(tmp_path / "w.safetensors", model, {"note": "x"})
    loaded = load_checkpoint(tmp_path / "w.safetensors")
    assert loaded.config == model.config  # stride cannot be read off the keys
    assert loaded.metadata["note"] == "x"
    assert same(load_model(tmp_path / "w.safetensors"), model)


def test_half_storage_is_half_the_size_and_loads_as_float32(model: STM, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "full.safetensors", model)
    save_checkpoint(tmp_path / "half.safetensors", model, half=True)
    sizes = [(tmp_path / f"{n}.safetensors").stat().st_size for n in ("half", "full")]
    assert sizes[0] < 0.52 * sizes[1]
    weight = load_model(tmp_path / "half.safetensors").Decoder.pred2.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, model.Decoder.pred2.weight.half().float())


def test_keys_that_do_not_fit_are_named(model: STM) -> None:
    state = model.state_dict()
    del state["Decoder.pred2.bias"]
    state["Decoder.pred9.bias"] = torch.zeros(2)
    state["KV_M_r4.Key.bias"] = torch.zeros(3)
    with pytest.raises(ModelError) as caught:
        load_weights(model, state, "x.pth")
    message = str(caught.value)
    assert "1 missing: Decoder.pred2.bias" in message
    assert "1 unexpected: Decoder.pred9.bias" in message
    assert "KV_M_r4.Key.bias (3,) instead of (8,)" in message


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no checkpoint at .*nothing\.pth"):
        load_checkpoint(tmp_path / "nothing.pth")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_truncated_file_is_refused(model: STM, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix == ".pth":
        torch.save(model.state_dict(), path)
    else:
        save_checkpoint(path, model)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match="not a complete"):
        load_checkpoint(path)


def test_another_method_is_refused(tmp_path: Path) -> None:
    torch.save({"encoder.weight": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"not a checkpoint of stm.*encoder\.weight"):
        load_checkpoint(tmp_path / "w.pth")


def test_file_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "w.pth")
    with pytest.raises(ModelError, match="not a state dict"):
        load_checkpoint(tmp_path / "w.pth")


class Payload:
    """Stands for a pickled class: reading it would run its code."""


def test_pickled_code_is_refused_with_the_command_that_converts_it(tmp_path: Path) -> None:
    torch.save({"state_dict": Payload()}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"python -c .*weights_only=False"):
        load_checkpoint(tmp_path / "w.pth")


def test_unknown_method_is_refused() -> None:
    with pytest.raises(InputError, match="expected one of stm"):
        create("sam")
