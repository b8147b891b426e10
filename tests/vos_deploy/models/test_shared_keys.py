"""The blocks that RDE-VOS and IMSFR share, against their formulas."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from tests.support.golden import error  # noqa: E402
from vos_deploy.models.shared_keys import (  # noqa: E402
    CBAM,
    Decoder,
    Fusion,
    ResBlock,
    memory_read,
    normalize,
    others_of,
    similarity,
    widen_stem,
)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


def test_normalised_by_the_imagenet_statistics() -> None:
    frame = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1) + torch.tensor([0.0, 0.1])
    found = normalize(frame)[0, :, 0]
    assert error(found[:, 0], 0) < 1e-6
    assert error(found[:, 1], 0.1 / np.array([0.229, 0.224, 0.225])) < 1e-5
    assert normalize(frame.half()).dtype == torch.float32


def test_similarity_is_the_negative_squared_distance_but_for_the_query() -> None:
    query, memory = torch.randn(5, 16), torch.randn(7, 16)
    distance = torch.cdist(query, memory) ** 2
    expected = -distance / 4 + (query**2).sum(1, keepdim=True) / 4
    assert error(similarity(query, memory), expected) < 1e-5
    assert similarity(query.half(), memory.half()).dtype == torch.float32


@pytest.mark.parametrize("top_k", [None, 1, 3, 7, 100])
def test_memory_read_is_the_mean_over_the_most_similar(top_k: int | None) -> None:
    query, memory, value = torch.randn(5, 16), torch.randn(7, 16), torch.randn(7, 6)
    scores = similarity(query, memory).double().numpy()
    expected = []
    for row in scores:
        chosen = np.argsort(-row)[: top_k or len(row)]
        weights = np.exp(row[chosen] - row.max())
        expected.append(weights / weights.sum() @ value.numpy()[chosen])
    assert error(memory_read(query, memory, value, top_k), np.stack(expected)) < 1e-5


def test_token_that_is_held_twice_counts_twice() -> None:
    query, memory, value = torch.randn(3, 8), torch.randn(4, 8), torch.randn(4, 2)
    twice = [0, 0, 1, 2, 3]
    weights = similarity(query, memory).exp()
    weights[:, 0] *= 2
    expected = weights / weights.sum(1, keepdim=True) @ value
    assert error(memory_read(query, memory[twice], value[twice], 5), expected) < 1e-5


def test_others_are_the_sum_without_oneself() -> None:
    masks = torch.rand(2, 3, 4, 5)
    assert error(others_of(masks)[:, 1], masks[:, 0] + masks[:, 2]) < 1e-6
    assert error(others_of(masks[:, :1]), 0) == 0


@pytest.mark.parametrize("channels", [(6, 4), (4, 4)])
def test_residual_block(channels: tuple[int, int]) -> None:
    block, x = ResBlock(*channels), torch.randn(1, channels[0], 5, 6)
    assert (block.downsample is None) == (channels[0] == channels[1])
    shortcut = x if block.downsample is None else block.downsample(x)  # of x without its ReLU
    y = block.conv2(F.relu(block.conv1(F.relu(x))))
    assert error(block(x), shortcut + y) < 1e-6


def test_attention_gates_channels_then_positions() -> None:
    cbam, x = CBAM(32).eval(), torch.randn(2, 32, 5, 7)
    _, first, _, second = cbam.ChannelGate.mlp
    both = F.relu(first(x.mean((2, 3)))) + 0, F.relu(first(x.flatten(2).max(2).values))
    gated = x * torch.sigmoid(second(both[0]) + second(both[1]))[:, :, None, None]
    # The maximum over the channels comes before their mean.
    planes = torch.stack([gated.max(1).values, gated.mean(1)], 1)
    conv = next(m for m in cbam.SpatialGate.modules() if isinstance(m, nn.Conv2d))
    assert error(cbam(x), gated * torch.sigmoid(conv(planes))) < 1e-5


def test_fusion_adds_its_attention_before_the_second_block() -> None:
    fusion = Fusion(6 + 4, 32).eval()
    x, f16 = torch.randn(2, 6, 5, 7), torch.randn(2, 4, 5, 7)
    joined = fusion.block1(torch.cat([x, f16], 1))
    assert error(fusion(x, f16), fusion.block2(joined + fusion.attention(joined))) < 1e-5


def test_decoder_doubles_twice_and_takes_one_skip_for_all_objects() -> None:
    decoder = Decoder(in_channels=12, f8=6, f4=5, width=8).eval()
    skips = decoder.skips(torch.randn(1, 6, 8, 12), torch.randn(1, 5, 16, 24))
    x = torch.randn(3, 12, 4, 6)
    logits = decoder(x, *skips)
    assert logits.shape == (3, 1, 16, 24)
    assert error(logits[1:2], decoder(x[1:2], *skips)) < 1e-5


def test_single_object_stem_is_widened_by_zeros() -> None:
    key = "value_encoder.conv1.weight"
    state = {key: torch.randn(64, 4, 7, 7), "other": torch.ones(1)}
    widened = widen_stem(state)
    assert widened[key].shape == (64, 5, 7, 7)
    assert torch.equal(widened[key][:, :4], state[key])
    assert not widened[key][:, 4].any()
    assert widen_stem(widened) is widened
