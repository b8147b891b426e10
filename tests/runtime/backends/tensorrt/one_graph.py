"""Plans of a single graph, written as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnx.parser

from vos_deploy.bundle import Bundle, Engines, Graph, TensorSpec


def plan_of(tmp_path: Path, text: str, profiles: dict[str, Any]) -> Bundle:
    """A plan with one graph, called `graph`."""
    parsed = onnx.parser.parse_graph(text)
    model = onnx.helper.make_model(
        parsed, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )

    def specs(values: Any) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(
                v.name,
                onnx.helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type).name,
                tuple(d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim),
            )
            for v in values
        )

    bundle = Bundle(
        method="test",
        precision="fp32",
        graphs={"graph": Graph(specs(parsed.input), specs(parsed.output))},
        engine=Engines("tensorrt", "11.4.0.106", None, None, 4, 8, {"graph": profiles}),
    )
    return bundle.save_plan(tmp_path / "test.plan", {"graph": model.SerializeToString()})
