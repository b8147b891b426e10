"""The network against the numbers of the official code, array by array, and its own identities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.support import golden  # noqa: E402
from tests.support.golden import error, needs_golden  # noqa: E402
from tests.support.stcn import RUNS, recorded_network  # noqa: E402
from vos_deploy.models import create, load_model  # noqa: E402
from vos_deploy.models.aggregate import aggregated_odds  # noqa: E402
from vos_deploy.models.shared_keys import normalize, others_of, similarity  # noqa: E402
from vos_deploy.models.stcn import STCN  # noqa: E402

FEATURES, VALUES = 1e-4, 2e-4
NARROW = {"backbone": "resnet18", "key_dim": 16, "value_dim": 32, "decoder_width": 16}


@pytest.fixture(scope="module")
def network() -> STCN:
    model = recorded_network()
    assert isinstance(model, STCN)
    return model


@needs_golden
def test_keys_and_shapes_are_the_official_ones() -> None:
    with torch.device("meta"):
        found = {k: list(v.shape) for k, v in create("stcn").state_dict().items()}
    assert found == golden.keys("stcn")["keys"]


@pytest.mark.parametrize("unit_keys", [False, True])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_configuration_is_read_off_the_keys(backbone: str, unit_keys: bool) -> None:
    with torch.device("meta"):
        model = create("stcn", **{**NARROW, "backbone": backbone, "unit_keys": unit_keys})
    assert STCN.infer_config(model.state_dict()) == model.config
    assert STCN.infer_config(create("stm", backbone="resnet18").state_dict()) is None
    with torch.device("meta"):
        compressing = create("rde", **NARROW)
    assert STCN.infer_config(compressing.state_dict()) is None


def test_checkpoint_of_the_first_stage(tmp_path: Path) -> None:
    weights: dict[str, Any] = create("stcn", **NARROW).state_dict()
    stem = weights["value_encoder.conv1.weight"]
    weights["value_encoder.conv1.weight"] = stem[:, :4].clone()
    torch.save(weights, tmp_path / "stage0.pth")
    model = load_model(tmp_path / "stage0.pth")
    assert isinstance(model, STCN) and model.config == create("stcn", **NARROW).config
    widened = model.state_dict()["value_encoder.conv1.weight"]
    assert torch.equal(widened[:, :4], stem[:, :4]) and not widened[:, 4].any()


@needs_golden
@pytest.mark.slow
def test_every_intermediate_is_the_official_one(network: STCN) -> None:
    recorded, clip = golden.arrays("stcn"), RUNS["main"].clip()
    frames = np.stack([frame for frame, _ in clip])
    images = normalize(torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255)
    mask = clip[0][1]
    masks = torch.stack([torch.from_numpy(mask == i) for i in (1, 2)]).float()

    def holds(found: Any, name: str, tolerance: float) -> None:
        assert error(found, recorded[name]) < tolerance, name

    encoder, decoder = network.value_encoder, network.decoder
    with torch.inference_mode():
        soft = aggregated_odds(masks[None])[:, 1:]
        holds(soft[0, :, ::4, ::4], "f0.prob_in_s4", 1e-6)
        first, query = (network.encode_key(images[t : t + 1]) for t in (0, 1))
        holds(first.f4[:, ::16, ::4, ::4], "f0.f4_c16_s4", FEATURES)
        holds(first.f8[:, ::16, ::2, ::2], "f0.f8_c16_s2", FEATURES)
        holds(first.f16[:, ::16], "f0.f16_c16", FEATURES)
        holds(first.key, "f0.k16", FEATURES)
        holds(query.key, "f1.k16", FEATURES)
        holds(query.value[:, ::8], "f1.qv16_c8", FEATURES)
        own = encoder.features(images[:1], soft, others_of(soft))
        holds(own[:, ::8], "f0.v_trunk_c8", VALUES)
        joined = encoder.fuser.block1(torch.cat([own, first.f16.expand(2, -1, -1, -1)], 1))
        holds(joined[:, ::16], "f0.v_block1_c16", VALUES)
        holds(encoder.fuser.attention(joined)[:, ::16], "f0.v_cbam_c16", VALUES)
        value = network.encode_value(images[:1], first.f16, soft[0])
        holds(value[:, ::8], "f0.value_c8", VALUES)

        rows = [x.key[0].flatten(1).T for x in (query, first)]
        scores = similarity(*rows).sort(-1, descending=True).values[:, :21].T
        holds(scores, "f1.score_top21", 2e-4)
        readout = network.read(query, first.key[0][:, None], value[:, :, None], 20)
        holds(readout[:, ::8], "f1.readout_c8", VALUES)
        x = decoder.compress(torch.cat([readout, query.value.expand_as(readout)], 1))
        holds(x[:, ::16], "f1.d_compress_c16", VALUES)
        skip8, skip4 = decoder.skips(query.f8, query.f4)
        x = decoder.up_16_8(skip8, x)
        holds(x[:, ::16, ::2, ::2], "f1.d_up8_c16_s2", VALUES)
        x = decoder.up_8_4(skip4, x)
        holds(x[:, ::16, ::4, ::4], "f1.d_up4_c16_s4", VALUES)
        holds(decoder.pred(x.relu()), "f1.d_pred", VALUES)
        logits = network.decode(readout, query)
        holds(logits[..., ::2, ::2], "f1.logits_s2", VALUES)
        holds(logits[:, 0].sigmoid()[:, ::4, ::4], "f1.p_s4", FEATURES)


def test_keys_of_one_length_are_compared_by_direction() -> None:
    torch.manual_seed(0)
    model = create("stcn", **NARROW, unit_keys=True)
    assert isinstance(model, STCN) and model.key_proj.length is not None
    length = 3.0
    with torch.no_grad():
        model.key_proj.length.fill_(length)
        key = model.encode_key(normalize(torch.rand(1, 3, 64, 64))).key[0].flatten(1).T
    assert torch.allclose(key.norm(dim=1), torch.full((len(key),), length))
    directions = key / length
    cosines = directions @ directions.T
    # -|m - q|^2 = -2 r^2 (1 - cos); the similarity leaves out |q|^2 = r^2.
    expected = (2 * length**2 * cosines - length**2) / NARROW["key_dim"] ** 0.5
    assert torch.allclose(similarity(key, key), expected, atol=1e-4)
