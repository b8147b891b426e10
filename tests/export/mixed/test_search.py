"""Which layers the search keeps in float, given what each costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from tests.support import int8
from vos_deploy.errors import InputError
from vos_deploy.export.int8.lowering import Int8Lowering
from vos_deploy.export.mixed.search import Search


class Costs:
    """Stands for the loop: a layer in INT8 costs what the table says, by graph and layer."""

    def __init__(self, costs: Mapping[str, Mapping[str, float]]) -> None:
        self.costs = costs
        self.calls = {graph: int8.calls(1) for graph in costs}
        self.measured = 0

    def loss(self, graphs: Mapping[str, ModelProto]) -> float:
        self.measured += 1
        return sum(
            self.costs[graph][layer]
            for graph, model in graphs.items()
            for layer in int8.in_int8(model)
        )


def search(costs: Costs, said: list[str] | None = None) -> Search:
    stage = (lambda text: None) if said is None else said.append
    return Search(lowering(costs), costs.loss, stage)


def lowering(costs: Costs) -> Int8Lowering:
    return Int8Lowering({graph: int8.residual() for graph in costs.costs}, costs.calls)


COSTS = {
    "encoder": {"first": 0.01, "second": 0.2, "wide": 0.02},
    "decoder": {"first": 0.001, "second": 0.001, "wide": 0.002},
}


def test_nothing_is_searched_for_where_all_of_it_will_do() -> None:
    costs = Costs(COSTS)
    table = search(costs).run(0.5)
    assert (table.kept, table.layers, costs.measured) == ({}, {}, 1)
    assert table.loss == table.whole == pytest.approx(0.234)


@pytest.mark.parametrize(
    ("allowed", "kept"),
    [(0.05, ["second"]), (0.02, ["second", "wide"]), (0.004, ["first", "second", "wide"])],
)
def test_the_worst_layers_stay_and_no_more_of_them(allowed: float, kept: list[str]) -> None:
    said: list[str] = []
    table = search(Costs(COSTS), said).run(allowed)
    assert {graph: sorted(names) for graph, names in table.kept.items()} == {"encoder": kept}
    assert table.loss <= allowed
    assert table.graphs["encoder"] == pytest.approx(0.23)
    assert table.layers.keys() == {"encoder"}  # the other graph costs little as it is
    assert table.layers["encoder"]["second"] == pytest.approx(0.2)
    assert "INT8: part of encoder, from first on" in said


def test_layers_that_cost_nothing_are_measured_together() -> None:
    class Many:
        precision = "INT8"

        def __init__(self) -> None:
            self.known = self.layers = {"encoder": [f"layer{number}" for number in range(64)]}

        def lowered(self, layers: Mapping[str, Iterable[str]]) -> Any:
            return layers

    passes = []

    def loss(graphs: Mapping[str, Any]) -> float:
        passes.append(graphs)
        return sum(name in ("layer9", "layer40") for name in graphs.get("encoder", ()))

    many = Many()
    table = Search(many, loss).run(0.01)
    assert table.kept == {"encoder": ["layer9", "layer40"]}
    assert {name for name, cost in table.layers["encoder"].items() if cost} == {"layer9", "layer40"}
    assert list(table.layers["encoder"]) == many.layers["encoder"]
    assert len(passes) < 40


def test_a_loss_of_nothing_leaves_what_costs_in_float() -> None:
    costs = {**COSTS, "decoder": {"first": 0.0, "second": 0.0, "wide": 0.002}}
    table = search(Costs(costs)).run(0)
    assert table.kept["decoder"] == ["wide"]
    assert sorted(table.kept["encoder"]) == ["first", "second", "wide"]
    assert table.loss == 0


def test_nothing_is_kept_where_not_even_all_layers_would_do() -> None:
    class Lost(Costs):
        def loss(self, graphs: Mapping[str, ModelProto]) -> float:
            return 0.1 + super().loss(graphs)

    costs = Lost(COSTS)
    table = search(costs).run(0.05)
    assert (table.kept, costs.measured) == ({}, 2)
    assert (table.loss, table.least) == (pytest.approx(0.334), pytest.approx(0.1))


def test_a_graph_that_the_clip_does_not_run_stays_in_float() -> None:
    costs = Costs(COSTS)
    costs.calls.pop("decoder")
    assert lowering(costs).layers.keys() == {"encoder"}
    # Another clip may have run it: its layers are known, all the same.
    assert search(costs).given({"decoder": ["wide"]}).loss == pytest.approx(0.23)


def test_a_graph_with_infinite_activations_stays_in_float() -> None:
    costs = Costs(COSTS)
    costs.calls["decoder"][0] = {"x": np.full((1, int8.CHANNELS, 8, 8), np.inf, np.float32)}
    assert lowering(costs).layers.keys() == {"encoder"}


def test_layers_that_are_given_stay_in_float() -> None:
    costs = Costs(COSTS)
    made = search(costs)
    table = made.given({"encoder": ["second"]})
    assert table.loss == pytest.approx(0.034)
    graphs = lowering(costs).lowered(made.without(table.kept))
    assert int8.in_int8(graphs["encoder"]) == ["first", "wide"]


def test_layers_of_another_model_are_refused() -> None:
    with pytest.raises(InputError, match=r"graph 'encoder' of this model has no layer 'third'"):
        search(Costs(COSTS)).given({"encoder": ["third"]})
