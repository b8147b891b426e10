"""The network against the numbers of the official code, array by array, and its own identities."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from tests.support import golden  # noqa: E402
from tests.support.golden import error, needs_golden  # noqa: E402
from tests.support.imsfr import golden_network, worst  # noqa: E402
from vos_deploy.models import create, load_checkpoint, load_model  # noqa: E402
from vos_deploy.models.aggregate import soft_aggregate  # noqa: E402
from vos_deploy.models.imsfr import (  # noqa: E402
    IMSFR,
    full_size,
)
from vos_deploy.models.shared_keys import memory_read, normalize, others_of  # noqa: E402

# What sees 32 times a value is that much less precise.
FEATURES, WAVES = 1e-4, 1e-3
SMALL = {"backbone": "resnet18", "dim": 16, "decoder_width": 16}


@needs_golden
def test_keys_and_shapes_are_the_official_ones() -> None:
    with torch.device("meta"):
        own = create("imsfr").state_dict()
    found = {
        key: {"shape": list(v.shape), "dtype": str(v.dtype).removeprefix("torch.")}
        for key, v in own.items()
    }
    assert found == golden.keys("imsfr")["keys"]


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "resnet101"])
def test_configuration_is_read_off_the_keys(backbone: str) -> None:
    with torch.device("meta"):
        model = create("imsfr", backbone=backbone, dim=32, decoder_width=16)
    config = IMSFR.infer_config(model.state_dict())
    assert config == model.config
    assert IMSFR.infer_config(create("stm", backbone="resnet18").state_dict()) is None


def test_single_object_network_of_stage_0_is_widened(tmp_path: Path) -> None:
    path, model = tmp_path / "stage0.pth", create("imsfr", **SMALL)
    weights = model.state_dict()
    weights["value_encoder.conv1.weight"] = weights["value_encoder.conv1.weight"][:, :4]
    torch.save(weights, path)
    assert load_checkpoint(path).method == "imsfr"
    loaded = load_model(path, "imsfr")
    stem = loaded.value_encoder.conv1.weight
    assert torch.equal(stem[:, :4], weights["value_encoder.conv1.weight"])
    assert not stem[:, 4].any()


@needs_golden
@pytest.mark.slow
def test_every_intermediate_is_the_official_one() -> None:
    network = golden_network()
    frames, mask = golden.clip()
    images = normalize(torch.from_numpy(frames[:2]).permute(0, 3, 1, 2).float() / 255)
    masks = torch.stack([torch.from_numpy(mask == i) for i in (1, 2)]).float()[None]
    masks = soft_aggregate(masks).softmax(1)[:, 1:]
    encoder = network.value_encoder
    with torch.inference_mode():
        memory, query = (network.encode(images[t : t + 1]) for t in (0, 1))
        seen, seen_next = (
            encoder.features(images[t : t + 1], masks, others_of(masks)) for t in (0, 1)
        )
        fused = encoder.fuser.block1(torch.cat([seen, memory.f16.expand(2, -1, -1, -1)], 1))
        attention = encoder.fuser.attention(fused)
        inputs = images[:1], images[1:], memory.f16, masks, others_of(masks)
        value, latest = (x[0] for x in network.memorize(*inputs))
        for found, name, step in (
            (memory.key, "f0/key", 8),
            (seen, "f0/value_layer3_frame", 16),
            (seen_next, "f0/value_layer3_next", 16),
            (fused, "f0/fuser_block1", 16),
            (attention, "f0/fuser_cbam", 16),
            (encoder.fuser.attend(fused), "f0/fuser", 16),
            (encoder.mask(seen_next), "f0/value_gate_logit", 16),
            (value, "f0/value", 8),
            (query.f16, "f1/f16", 16),
            (query.f8[..., ::2, ::2], "f1/f8", 16),
            (query.f4[..., ::4, ::4], "f1/f4", 16),
            (query.key, "f1/key", 8),
        ):
            assert worst(found, f"A/{name}", step) < FEATURES, name
        assert worst(latest, "A/f0/value_pe", 8) < WAVES
        keys = [x.flatten(2).transpose(1, 2)[0] for x in (query.key, memory.key)]
        reads = []
        for name, values, top_k in (
            ("mem", value, 4),
            ("first", value, None),
            ("prev", latest, None),
        ):
            rows = values.flatten(2).permute(2, 0, 1).flatten(1)
            read = memory_read(*keys, rows, top_k).unflatten(1, (2, -1)).permute(1, 2, 0)
            reads.append(read.unflatten(2, (15, 27)))
            assert worst(reads[-1], f"A/f1/read_{name}", 16) < FEATURES, name
        # The sum of three reads, one of them of the value that sees waves, times up to two.
        assert worst(network.relate(*reads), "A/f1/rel_out", 16) < WAVES
        logits = network.decode(*reads, query)
        assert worst(logits, "A/f1/logits_stride4", 1) < FEATURES
        assert worst(full_size(logits)[..., ::3, ::3], "A/f1/logits", 1) < FEATURES


def test_value_is_joined_by_its_waves() -> None:
    torch.manual_seed(0)
    model, value = create("imsfr", **SMALL), torch.randn(1, 16, 2, 3)
    with torch.inference_mode():
        model.conv_fusion1v.weight.zero_()
        model.conv_fusion1v.weight[0, 16 * 12 + 5] = 1  # cos(32 v) of channel 5
        model.conv_fusion1v.bias.zero_()
        model.conv_fusion.weight.copy_(torch.eye(16)[..., None, None])
        model.conv_fusion.bias.zero_()
        found = model.fourier_value(value)
    expected = value.clone()
    expected[:, 0] += (32 * value[:, 5]).cos()
    assert error(found, expected) < 1e-5


def test_waves_stay_float32_in_half_precision() -> None:
    model = create("imsfr", **SMALL).half()
    assert model.conv_fusion1v.weight.dtype == torch.float32
    assert {p.dtype for k, p in model.named_parameters() if "1v" not in k} == {torch.float16}


def test_gate_of_the_next_frame_closes_the_value() -> None:
    torch.manual_seed(0)
    model = create("imsfr", **SMALL)
    frames, masks = torch.randn(3, 3, 32, 48), torch.rand(1, 2, 32, 48)
    with torch.inference_mode():
        f16 = model.encode(frames[:1]).f16
        rest = f16, masks, others_of(masks)
        one, other = (model.memorize(frames[:1], frames[t : t + 1], *rest)[0] for t in (1, 2))
        assert error(one, other) > 1e-3
        model.value_encoder.mask.bias.fill_(-100)
        closed, _ = model.memorize(frames[:1], frames[1:2], *rest)
    assert error(closed, 0) < 1e-6
