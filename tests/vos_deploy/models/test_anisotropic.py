"""The similarity of XMem and Cutie against its formula."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from tests.support.golden import error  # noqa: E402
from vos_deploy.models.anisotropic import anisotropic_similarity, top_k_weights  # noqa: E402


def test_similarity_is_the_weighted_squared_distance() -> None:
    torch.manual_seed(0)
    query, weight, memory = torch.randn(5, 16), torch.rand(5, 16), torch.randn(7, 16)
    shrinkage = 1 + torch.rand(7, 1)
    squares = (memory[None] - query[:, None]).double() ** 2
    expected = -(weight[:, None] * squares).sum(2) * shrinkage.T / 4
    assert error(anisotropic_similarity(memory, shrinkage, query, weight), expected) < 1e-5
    half = [x.half() for x in (memory, shrinkage, query, weight)]
    assert anisotropic_similarity(*half).dtype == torch.float32


def test_weights_are_a_softmax_over_the_best() -> None:
    torch.manual_seed(0)
    scores = -5 * torch.rand(4, 9)
    for top_k in (None, 9, 100):
        assert error(top_k_weights(scores, top_k), scores.softmax(1)) < 1e-6
    kept = top_k_weights(scores, 3)
    assert error(kept.sum(1), 1) < 1e-6 and ((kept > 0).sum(1) == 3).all()
    best = scores.topk(3, 1)
    assert error(kept.gather(1, best.indices), best.values.softmax(1)) < 1e-6
