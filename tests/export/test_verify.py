"""The comparison that ends an export: what it compares, and what it makes of differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import nn

from tests.support import models
from vos_deploy.bundle import Bundle, Graph, TensorSpec
from vos_deploy.export import verify as verify_module
from vos_deploy.export.clip import sample_clip
from vos_deploy.export.graph import GraphSpec, Slack, float32
from vos_deploy.export.verify import (
    TOLERANCES,
    Comparison,
    Errors,
    SideBySide,
    differing,
    relative_error,
    verify,
)
from vos_deploy.methods import find_part
from vos_deploy.runtime.backends import Array
from vos_deploy.runtime.backends.ort import OnnxRuntimeBackend

KEYS = GraphSpec(nn.Identity(), {"image": float32("K")}, {"key": float32("K")})


class Added(OnnxRuntimeBackend):
    """A graph `add` that adds a number; without a session."""

    def __init__(self, dtype: str, number: float) -> None:
        tensors = tuple(TensorSpec(name, dtype, ("N",)) for name in "xy")
        super().__init__(Bundle("stm", "fp32", {}))
        self.bundle = replace(self.bundle, graphs={"add": Graph(tensors[:1], tensors[1:])})
        self.number = number

    def _run(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        np.asarray(outputs["y"])[:] = np.asarray(inputs["x"]) + self.number


def test_both_get_the_same_inputs_and_the_loop_is_that_of_the_first() -> None:
    seen: list[tuple[str, NDArray[Any], NDArray[Any]]] = []

    def watch(graph: str, expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        seen.append((graph, expected["y"].copy(), found["y"].copy()))

    both = SideBySide(Added("float32", 1), Added("float16", 3), watch)
    x, y = both.empty((2,), np.float32), both.empty((2,), np.float32)
    both.upload(np.array([0, 0.5], np.float32), x)
    both.run("add", {"x": x}, {"y": y})
    both.run("add", {"x": y}, {"y": y})  # in place
    assert both.download(y).tolist() == [2, 2.5]
    assert [graph for graph, _, _ in seen] == ["add", "add"]
    assert [expected.tolist() for _, expected, _ in seen] == [[1, 1.5], [2, 2.5]]
    assert [found.tolist() for _, _, found in seen] == [[3, 3.5], [4, 4.5]]
    assert seen[0][2].dtype == np.float16


def test_worst_error_counts_and_nan_is_never_forgotten() -> None:
    errors = Errors({"encoder": KEYS}, TOLERANCES["fp32"])
    expected = np.ones(4, np.float32)
    for found in (expected, expected + 0.5, expected):
        errors.watch("encoder", {"key": expected}, {"key": found})
    assert errors.worst == {"encoder.key": 0.5}
    errors.watch("encoder", {"key": expected}, {"key": np.full(4, np.nan)})
    errors.watch("encoder", {"key": expected}, {"key": expected})
    errors.note("labels, closed loop", 0)
    row, _ = errors.comparisons()
    assert np.isnan(row.error) and not row.passed
    assert "OUT OF TOLERANCE" in str(row)


def test_slack_is_for_the_output_that_has_it() -> None:
    spec = replace(KEYS, slack={"key": Slack(share=0.25, error=0.01)})
    expected, found = np.ones(4, np.float32), np.array([9, 1, 1, 1.005], np.float32)
    for graph, passes in ((spec, True), (KEYS, False)):
        errors = Errors({"encoder": graph}, TOLERANCES["fp32"])
        errors.watch("encoder", {"key": expected}, {"key": found})
        errors.note("labels, closed loop", 0)
        assert errors.comparisons()[0].passed is passes


def test_graph_that_never_ran_is_named() -> None:
    errors = Errors({"encoder": KEYS, "compress": KEYS}, TOLERANCES["fp32"])
    errors.watch("encoder", {"key": np.ones(1)}, {"key": np.ones(1)})
    with pytest.raises(ValueError, match="run no compress"):
        errors.comparisons()


@pytest.mark.exports
def test_every_option_set_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    # First: an export that is not there yet is verified, too.
    network, bundle = models.small("rmnet").eval(), Bundle.load(models.model("rmnet"))
    followed = []

    class Watched(verify_module.Segmenter):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            followed.append((options["read"], self.device))

    monkeypatch.setattr(verify_module, "Segmenter", Watched)
    rows = verify(network, bundle, sample_clip((64, 96)), TOLERANCES["fp32"])
    assert all(row.passed for row in rows)
    devices = "side by side", "cpu"
    assert followed == [(read, device) for read in ("dense", "sparse") for device in devices]
    specs = find_part("rmnet", "EXPORT").graphs(network)
    outputs = [f"{name}.{output}" for name, spec in specs.items() for output in spec.outputs]
    assert [row.output for row in rows] == [*outputs, "labels, closed loop"]


def test_line_of_a_comparison() -> None:
    row = Comparison("encoder.key", 2e-6, 1e-4)
    assert str(row) == "encoder.key                error 2.0e-06  tolerance 1e-04  ok"


def test_ties_of_labels_are_no_errors() -> None:
    probabilities = np.array([[[0.5, 0.9]], [[0.49, 0.1]]])
    assert differing(np.array([[1, 0]]), probabilities, tie=0.02) == 0
    assert differing(np.array([[0, 1]]), probabilities, tie=0.02) == 0.5


def test_ties_of_reads_are_a_share_of_the_elements() -> None:
    expected = np.linspace(-1, 1, 100, dtype=np.float32)
    found = expected.copy()
    found[:5] += 1
    assert relative_error(found, expected, left_out=0.05) < 1e-6
    found[5] += 0.5
    assert relative_error(found, expected, left_out=0.05) > 0.4
    found[0] = np.nan
    assert not relative_error(found, expected, left_out=0.05) <= 1e9
