from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_model as load_safetensors  # noqa: E402

from vos_deploy.models import create, load_checkpoint, load_model, save_checkpoint  # noqa: E402
from vos_deploy.models.sharing import main, share  # noqa: E402
from vos_deploy.models.stcn import STCN  # noqa: E402

NARROW: dict[str, Any] = {
    "backbone": "resnet18",
    "key_dim": 8,
    "value_dim": 16,
    "decoder_width": 8,
}


def alike(tie: bool = False) -> tuple[STCN, int]:
    """A network whose trunks have the same kernels in layer3, equal ones or one tensor, and how
    many numbers these are."""
    model = create("stcn", **NARROW)
    assert isinstance(model, STCN)
    numbers = 0
    for name, module in model.value_encoder.layer3.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            weight = model.key_encoder.layer3.get_submodule(name).weight
            assert isinstance(weight, torch.nn.Parameter)
            module.weight = weight if tie else torch.nn.Parameter(weight.detach().clone())
            numbers += module.weight.numel()
    return model, numbers


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    other = b.state_dict()
    return all(torch.equal(value, other[key]) for key, value in a.state_dict().items())


def test_equal_tensors_lie_in_it_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, numbers = alike()
    path = tmp_path / "weights.safetensors"
    save_checkpoint(path, model)
    assert main([str(path)]) == 0
    assert "MB less" in capsys.readouterr().out
    whole = sum(value.numel() for value in model.state_dict().values())
    assert path.stat().st_size < 4 * (whole - 0.95 * numbers)
    assert same(load_model(path), model)
    assert load_checkpoint(path).config == model.config
    other, _ = alike(tie=True)
    load_safetensors(other, path)  # the library's own reader knows the names, too
    assert same(other, model)
    assert share(path) == 0


def test_a_file_of_another_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"\x10" + 7 * b"\0" + b'{"not all of it"')
    assert main([str(path)]) == 2
    assert "is not a complete .safetensors file" in capsys.readouterr().err
