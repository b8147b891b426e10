"""One float graph to one INT8 graph, by ONNX Runtime's static quantisation.

Activations are uint8 with a zero point, one scale per tensor; weights int8 with one scale per
output channel. QuantizeLinear and DequantizeLinear stand around each layer (QDQ), and the runtime
puts integer kernels in their place: any ONNX runtime can execute the file.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
from onnx import ModelProto

from vos_deploy.onnx_runtime import import_onnxruntime

from ..to_onnx import strip_provenance
from .in_bytes import stay_in_bytes
from .layers import with_sums

OPS = ("Conv", "Add", "Relu", "Resize")
# Share of an activation's values, in percent, that its range holds; the rest saturates.
PERCENTILE = 99.99


def ranges(model: ModelProto, calls: Sequence[dict[str, Any]], percentile: float) -> Any:
    """The range of every tensor that may become uint8, for `quantize`; None for a graph that has
    infinite ones.

    calls: inputs by name, of each call of the graph that is calibrated on.
    """
    import_onnxruntime()
    from onnxruntime.quantization import CalibrationMethod, create_calibrator

    with TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):  # it prints
        path = Path(folder) / "float.onnx"
        onnx.save(model, path)
        calibrator = create_calibrator(
            path,
            OPS,
            str(Path(folder) / "augmented.onnx"),
            CalibrationMethod.Percentile,
            extra_options={"percentile": percentile, "symmetric": False},
        )
        for call in calls:  # one at a time: all tensors of all calls would not fit in memory
            try:
                calibrator.collect_data(_Reader(call))
            except ValueError as error:
                if "not finite" not in str(error):
                    raise
                return None
        return calibrator.compute_data()


class _Reader:
    """A CalibrationDataReader of one call."""

    def __init__(self, call: dict[str, Any]) -> None:
        self.calls = [call]

    def get_next(self) -> dict[str, Any] | None:
        return self.calls.pop() if self.calls else None


def quantize(model: ModelProto, found: Any, layers: Iterable[str]) -> ModelProto:
    """A copy of the graph whose convolutions named `layers` compute in INT8; the others in float.

    found: of `ranges`.
    """
    import_onnxruntime()
    from onnxruntime.quantization import QDQQuantizer, QuantType

    copy = ModelProto()
    copy.CopyFrom(model)
    nodes = with_sums(model, layers)
    if not nodes:
        return copy
    quantizer = QDQQuantizer(
        copy,
        per_channel=True,
        # Seven bits of weight: two products of eight bits overflow the 16-bit sums of a processor
        # that has AVX2 and no VNNI.
        reduce_range=True,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=found,
        nodes_to_quantize=nodes,
        nodes_to_exclude=[],
        op_types_to_quantize=OPS,
        extra_options={"QuantizeBias": False},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    made: ModelProto = quantizer.model.model
    stay_in_bytes(made)
    strip_provenance(made)
    onnx.checker.check_model(made, full_check=True)
    return made
