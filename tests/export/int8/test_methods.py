"""Every method in INT8: which graphs have layers in it, and that objects are followed with them."""

from __future__ import annotations

import onnx
import pytest

from tests.support import gfrtm, int8, models
from vos_deploy.bundle import Bundle
from vos_deploy.export.clip import sample_clip
from vos_deploy.export.int8.closed_loop import ClosedLoop
from vos_deploy.export.int8.layers import candidates
from vos_deploy.export.int8.search import Search
from vos_deploy.methods import METHODS, find_part


def exported(method: str) -> tuple[Bundle, dict[str, onnx.ModelProto]]:
    folder = gfrtm.exported() if method == "gfrtm" else models.model(method)
    bundle = Bundle.load(folder)
    return bundle, {name: onnx.load(bundle.graph_path(name)) for name in bundle.graphs}


@pytest.mark.parametrize("method", METHODS)
def test_trunks_and_decoders_have_layers_and_reads_have_none(method: str) -> None:
    layers = {name: candidates(graph) for name, graph in exported(method)[1].items()}
    assert sum(map(len, layers.values())) > 15
    assert sum(bool(names) for names in layers.values()) > 2
    assert not any(names for graph, names in layers.items() if "memory_read" in graph)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_follows_objects(method: str) -> None:
    bundle, graphs = exported(method)
    options = find_part(method, "EXPORT").verified(models.small(method))
    loop = ClosedLoop(bundle, sample_clip((48, 80)), options)
    search = Search(graphs, loop)
    made = search.quantized(search.layers)
    for name, graph in made.items():
        assert sorted(int8.in_int8(graph)) == sorted(search.layers[name])
    # Weights that are not trained follow noise, which any rounding changes.
    assert 0 < loop.loss(made) < 1
