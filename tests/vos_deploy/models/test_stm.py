"""The network against the numbers of the official code, array by array, and its own identities."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.support import golden  # noqa: E402
from tests.support.golden import error, needs_golden  # noqa: E402
from tests.support.stm import VARIANTS, network  # noqa: E402
from vos_deploy.models import create  # noqa: E402
from vos_deploy.models.aggregate import aggregated_odds, soft_aggregate  # noqa: E402
from vos_deploy.models.stm import STM, memory_read  # noqa: E402

# The gates of the specification; the official code itself keeps 3e-6 to 1.1e-5 in float32.
FEATURES, LOGITS = 5e-5, 5e-5


def tensors() -> tuple[torch.Tensor, torch.Tensor]:
    frames, mask = golden.clip()
    masks = torch.stack([torch.from_numpy(mask == i) for i in (1, 2)]).float()
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255, masks


@needs_golden
@pytest.mark.parametrize("name", VARIANTS)
def test_keys_and_shapes_are_the_official_ones(name: str) -> None:
    own = create("stm", **VARIANTS[name]).state_dict()
    assert {k: list(v.shape) for k, v in own.items()} == golden.keys("stm")[name]


@pytest.mark.parametrize("name", VARIANTS)
def test_configuration_is_read_off_the_keys(name: str) -> None:
    model = create("stm", **VARIANTS[name], key_dim=24, value_dim=40, decoder_width=8)
    config = STM.infer_config(model.state_dict())
    assert config is not None
    assert create("stm", **config).config == model.config


@needs_golden
@pytest.mark.slow
def test_every_intermediate_is_the_official_one() -> None:
    model, (frames, masks), recorded = network("stm_original"), tensors(), golden.arrays("stm")
    with torch.inference_mode():
        r4 = model.Encoder_M(frames[:1], masks[None])
        assert error(r4[:, ::16], recorded["stm/mem0_r4"]) < FEATURES
        key, value = model.memorize(frames[:1], masks[None])
        assert error(key[0], recorded["stm/mem0_k4"]) < FEATURES
        assert error(value[0, :, ::8], recorded["stm/mem0_v4"]) < FEATURES
        query = model.encode_query(frames[1:2])
        assert error(query.key, recorded["stm/q1_k4"]) < FEATURES
        assert error(query.value[:, ::8], recorded["stm/q1_v4"]) < FEATURES
        assert error(query.r3[:, ::32], recorded["stm/q1_r3"]) < FEATURES
        assert error(query.r2[:, ::16, ::2, ::2], recorded["stm/q1_r2"]) < FEATURES
        keys, values = key.unsqueeze(3), value.unsqueeze(3)
        readout = model.read(query, keys, values)
        assert error(readout[0, :, ::8], recorded["stm/q1_mem_out"]) < FEATURES
        assert error(model.decode(readout, query)[0], recorded["stm/q1_p2"]) < LOGITS
        _, logits = model.segment(frames[1:2], keys, values)
        assert error(logits[0, :, ::4, ::4], recorded["stm/q1_agg_logit"][:3]) < LOGITS


def test_memory_read_is_the_softmax_weighted_mean() -> None:
    rng = np.random.default_rng(0)
    query, keys = rng.normal(size=(3, 4)), rng.normal(size=(5, 4))
    values = rng.normal(size=(5, 2))
    weights = np.exp(query @ keys.T / 2)
    expected = weights / weights.sum(1, keepdims=True) @ values
    found = memory_read(*(torch.from_numpy(x).float() for x in (query, keys, values)))
    assert error(found, expected) < 1e-5


def test_odds_are_the_softmax_of_the_aggregated_logits() -> None:
    objects = torch.rand(2, 3, 8, 8)
    objects[0, :, 0, 0] = torch.tensor([0.0, 1.0, 1.0])  # two certain claims on one pixel
    odds = aggregated_odds(objects)
    assert error(odds, soft_aggregate(objects).softmax(1)) < 1e-5
    assert error(odds.sum(1), 1) < 1e-6


def test_batch_norms_keep_their_statistics_in_training() -> None:
    model = create("stm", backbone="resnet18", key_dim=8, value_dim=8, decoder_width=8).train()
    before = model.Encoder_Q.bn1.running_mean.clone()
    model.encode_query(torch.rand(1, 3, 32, 32))
    assert torch.equal(model.Encoder_Q.bn1.running_mean, before)
    assert model.Encoder_Q.training


def test_objects_see_each_other_only_through_the_second_stem() -> None:
    torch.manual_seed(0)
    model = create("stm", backbone="resnet18", key_dim=8, value_dim=8, decoder_width=8)
    frame, masks = torch.rand(1, 3, 64, 64), torch.rand(1, 2, 64, 64) / 2
    with torch.inference_mode():
        together, _ = model.memorize(frame, masks)
        alone, _ = model.memorize(frame, masks[:, :1])
        model.Encoder_M.conv1_o.weight.zero_()
        blind, _ = model.memorize(frame, masks)
        blind_alone, _ = model.memorize(frame, masks[:, :1])
    assert error(together[0, 0], alone[0, 0]) > 1e-3
    assert error(blind[0, 0], blind_alone[0, 0]) < 1e-5
