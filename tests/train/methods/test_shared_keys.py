from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vos_deploy.errors import ModelError
from vos_deploy.methods import find_part
from vos_deploy.models import create
from vos_deploy.models.resnet import BACKBONES, Trunk
from vos_deploy.models.shared_keys import memory_read
from vos_deploy.train.methods.imsfr.stages import IMSFROptions
from vos_deploy.train.methods.rde.stages import RDEOptions
from vos_deploy.train.shared_keys import read

NAMES = {"res2": "layer1", "res3": "layer2", "res4": "layer3"}
SMALL = {"rde": {"key_dim": 8, "value_dim": 16}, "imsfr": {"dim": 16}}
OPTIONS = {"rde": RDEOptions, "imsfr": IMSFROptions}


def test_read_is_that_of_each_clip_and_object_alone() -> None:
    torch.manual_seed(0)
    query = torch.randn(2, 8, 3, 4)
    keys, values = torch.randn(3, 2, 8, 3, 4), torch.randn(3, 2, 2, 5, 3, 4)
    found = read(query, list(keys), list(values))
    assert found.shape == (2, 2, 5, 3, 4)
    for clip in range(2):
        tokens = torch.cat([k[clip].flatten(1) for k in keys], 1).T
        for slot in range(2):
            rows = torch.cat([v[clip, slot].flatten(1) for v in values], 1).T
            alone = memory_read(query[clip].flatten(1).T, tokens, rows)
            assert torch.allclose(found[clip, slot].flatten(1).T, alone, atol=1e-5)


def test_read_stays_in_full_precision() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(1, 8, 4, 4), torch.randn(1, 8, 4, 4), torch.randn(1, 1, 8, 4, 4)
    full = read(10 * query, [10 * key], [value])
    with torch.autocast("cpu", torch.bfloat16):
        mixed = read(10 * query, [10 * key], [value])
    assert torch.equal(full, mixed)


def imagenet(folder: Path, backbone: str, seed: int) -> tuple[Trunk, Path]:
    """A trunk, and a file of its weights by torchvision's names."""
    torch.manual_seed(seed)
    trunk = Trunk(BACKBONES[backbone]).eval()
    for module in trunk.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    state = {}
    for key, value in trunk.state_dict().items():
        first, _, rest = key.partition(".")
        state[f"{NAMES.get(first, first)}.{rest}"] = value.contiguous()
    path = folder / f"{backbone}_{seed}.safetensors"
    save_file(state, path)
    return trunk, path


@pytest.mark.parametrize("method", ["rde", "imsfr"])
@pytest.mark.parametrize("objects", [1, 2])
def test_both_encoders_start_from_imagenet(method: str, objects: int, tmp_path: Path) -> None:
    """What they compute of the frame is what the trunks do; the masks have weights of their own,
    but the other objects have none where there is one object."""
    key, key_path = imagenet(tmp_path, "resnet50", 0)
    value, value_path = imagenet(tmp_path, "resnet18", 1)
    options = OPTIONS[method](
        backbone="resnet50", decoder_width=8, **SMALL[method], objects=objects,
        imagenet=key_path, imagenet_value=value_path,
    )  # fmt: skip
    model = find_part(method, "TASK").build(options).model
    frame, nothing = torch.randn(1, 3, 64, 64), torch.zeros(1, 1, 64, 64)
    with torch.inference_mode():
        for found, expected in zip(
            model.key_encoder(frame), key.stages(key.conv1(frame)), strict=True
        ):
            assert torch.allclose(found, expected, atol=1e-5)
        seen = model.value_encoder.features(frame, nothing, nothing)
        assert torch.allclose(seen, value.stages(value.conv1(frame))[0], atol=1e-4)
    masks = model.value_encoder.conv1.weight.detach()[:, 3:].transpose(0, 1)
    assert masks[0].any() and masks[1].any() == (objects > 1)
    rows = model.value_encoder.conv1.weight.detach()[:, 3:].flatten(1)
    if objects > 1:
        assert torch.allclose(rows @ rows.T, torch.eye(64), atol=1e-4)


def test_one_file_is_for_both_encoders_if_it_fits(tmp_path: Path) -> None:
    trunk, path = imagenet(tmp_path, "resnet18", 0)
    options = RDEOptions(
        backbone="resnet10", key_dim=8, value_dim=16, decoder_width=8, imagenet=path
    )
    model = find_part("rde", "TASK").build(options).model
    expected = trunk.conv1.weight.detach()
    assert torch.equal(model.key_encoder.conv1.weight.detach(), expected)
    assert torch.equal(model.value_encoder.conv1.weight.detach()[:, :3], expected)
    wrong = RDEOptions(backbone="resnet50", key_dim=8, value_dim=16, decoder_width=8, imagenet=path,
                       imagenet_value=path)  # fmt: skip
    with pytest.raises(ModelError, match="is it of another ResNet"):
        find_part("rde", "TASK").build(wrong)


def test_a_network_of_one_object_is_the_same_beside_others() -> None:
    torch.manual_seed(0)
    model = (
        find_part("rde", "TASK")
        .build(RDEOptions(backbone="resnet10", key_dim=8, value_dim=16, decoder_width=8, objects=1))
        .model
    )
    frame, masks = torch.randn(1, 3, 64, 64), torch.rand(2, 64, 64)
    with torch.inference_mode():
        f16 = model.encode_key(frame).f16
        together = model.encode_value(frame, f16, masks)
        alone = model.encode_value(frame, f16, masks[:1])
    assert torch.allclose(together[:1], alone, atol=1e-6)
    assert create("rde", **model.config).config == model.config
