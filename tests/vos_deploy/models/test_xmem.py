"""The network against the numbers of the official code, array by array, and its own identities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.support import golden  # noqa: E402
from tests.support.golden import error, needs_golden  # noqa: E402
from tests.support.xmem import RUNS, recorded_network  # noqa: E402
from vos_deploy.errors import InputError  # noqa: E402
from vos_deploy.models import create, load_model  # noqa: E402
from vos_deploy.models.aggregate import aggregated_odds  # noqa: E402
from vos_deploy.models.anisotropic import anisotropic_similarity, top_k_weights  # noqa: E402
from vos_deploy.models.shared_keys import normalize, others_of  # noqa: E402
from vos_deploy.models.xmem import XMem  # noqa: E402

FEATURES, KEYS, VALUES, HIDDEN = 5e-5, 2e-4, 2e-4, 3e-4
NARROW = {"backbone": "resnet18", "key_dim": 16, "value_dim": 32, "decoder_width": 16}


@pytest.mark.parametrize("hidden", [64, 0])
@needs_golden
def test_keys_and_shapes_are_the_official_ones(hidden: int) -> None:
    with torch.device("meta"):
        found = {k: list(v.shape) for k, v in XMem(hidden_dim=hidden).state_dict().items()}
    expected = dict(golden.keys("xmem")["keys"])
    if not hidden:
        expected |= golden.keys("xmem")["hidden_dim_0"]
    assert found == {key: shape for key, shape in expected.items() if shape is not None}


@pytest.mark.parametrize("config", [{}, {"hidden_dim": 0}, {"backbone": "resnet50"}])
def test_configuration_is_read_off_the_keys(config: dict[str, Any]) -> None:
    with torch.device("meta"):
        model = XMem(**{**NARROW, **config})
        other = create("stcn", **NARROW)
    assert XMem.infer_config(model.state_dict()) == model.config
    assert XMem.infer_config(other.state_dict()) is None


@pytest.mark.parametrize("variant", ["XMem", "XMem-no-sensory", "XMem-s0"])
def test_released_checkpoints_load_strictly(variant: str, tmp_path: Path) -> None:
    model = XMem(**NARROW, hidden_dim=0 if variant == "XMem-no-sensory" else 8)
    state = model.state_dict()
    stem = state["value_encoder.conv1.weight"].clone()
    if variant == "XMem-s0":
        state["value_encoder.conv1.weight"] = stem[:, :4].clone()
        stem[:, 4] = 0  # nothing of the other objects
    torch.save(state, tmp_path / "weights.pth")
    loaded = load_model(tmp_path / "weights.pth")
    assert isinstance(loaded, XMem) and loaded.config == model.config
    assert torch.equal(loaded.state_dict()["value_encoder.conv1.weight"], stem)
    for key, value in model.state_dict().items():
        if key != "value_encoder.conv1.weight":
            assert torch.equal(loaded.state_dict()[key], value), key
    del state["decoder.pred.bias"]
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=r"decoder\.pred\.bias"):
        load_model(tmp_path / "weights.pth")


@needs_golden
@pytest.mark.slow
def test_every_intermediate_is_the_official_one() -> None:
    network = recorded_network()
    recorded, clip = golden.arrays("xmem"), RUNS["main"].clip()
    frames = np.stack([frame for frame, _ in clip])
    images = normalize(torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255)
    masks = torch.stack([torch.from_numpy(clip[0][1] == i) for i in (1, 2)]).float()

    def holds(found: Any, name: str, tolerance: float) -> None:
        assert error(found, recorded[name].reshape(found.shape)) < tolerance, name

    encoder, decoder = network.value_encoder, network.decoder
    with torch.inference_mode():
        soft = aggregated_odds(masks[None])[:, 1:]
        first, query = (network.encode_key(images[t : t + 1]) for t in (0, 1))
        holds(first.f4[:, ::16, ::4, ::4], "f0.f4_c16_s4", FEATURES)
        holds(first.f8[:, ::16, ::2, ::2], "f0.f8_c16_s2", FEATURES)
        holds(first.f16[:, ::16], "f0.f16_c16", FEATURES)
        holds(first.key, "f0.key", KEYS)
        holds(first.shrinkage, "f0.shrinkage", 1e-4)
        holds(first.selection, "f0.selection", 2e-5)
        holds(query.key, "f1.key", KEYS)
        holds(query.selection, "f1.selection", 2e-5)
        own = encoder.features(images[:1], soft, others_of(soft))
        holds(own[:, ::8], "f0.v_trunk_c8", VALUES)
        joined = encoder.fuser.block1(torch.cat([first.f16.expand(2, -1, -1, -1), own], 1))
        holds(joined[:, ::16], "f0.v_block1_c16", VALUES)
        holds(encoder.fuser.attention(joined)[:, ::16], "f0.v_cbam_c16", VALUES)
        hidden = torch.zeros(2, 64, 15, 27)
        value, hidden = network.encode_value(images[:1], first.f16, soft[0], hidden, True)
        holds(value[:, ::8], "f0.value_c8", VALUES)
        holds(hidden[:, ::2], "f0.hidden_c2", HIDDEN)

        rows = [x[0].flatten(1).T for x in (first.key, first.shrinkage, query.key, query.selection)]
        scores = anisotropic_similarity(*rows)
        holds(scores.T[::8], "f1.similarity_rows", 2e-3)
        holds(scores.sort(1, descending=True).values[:, :31].T, "f1.top31", 2e-3)
        values = value.flatten(2).permute(2, 0, 1).flatten(1)
        readouts = []
        for top_k in (30, None):
            weights = top_k_weights(scores, top_k)
            read = (weights @ values).unflatten(1, (2, -1)).permute(1, 2, 0)
            readouts.append(read.unflatten(2, (15, 27)))
            if top_k:
                # At one position the 30th and the 31st are as similar as rounding can tell.
                difference = np.abs(
                    read.numpy()[:, ::8] - recorded["f1.readout_c8"].reshape(2, 64, -1)
                )
                assert (difference.max((0, 1)) > VALUES).sum() <= 1
                assert error(weights.sum(0), recorded["f1.use_count"].ravel()) < 1e-1
        readout = readouts[1]
        holds(readout[:, ::16], "strict.f1.readout_c16", VALUES)
        joined = decoder.fuser.block1(
            torch.cat([query.f16.expand(2, -1, -1, -1), readout, hidden], 1)
        )
        holds(joined[:, ::32], "strict.f1.d_block1_c32", VALUES)
        g16 = decoder.fuser.attend(joined)
        holds(g16[:, ::16], "strict.f1.g16_c16", VALUES)
        skip8, skip4 = decoder.skips(query.f8, query.f4)
        g8 = decoder.up_16_8(skip8, g16)
        holds(g8[:, ::16, ::2, ::2], "strict.f1.g8_c16_s2", VALUES)
        g4 = decoder.up_8_4(skip4, g8)
        holds(g4[:, ::16, ::4, ::4], "strict.f1.g4_c16_s4", VALUES)
        logits, updated = decoder.refine(joined, skip8, skip4, hidden)
        holds(logits, "strict.f1.pred", VALUES)
        holds(updated[:, ::4], "strict.f1.hidden_c4", HIDDEN)
