"""From the float graphs of a model to INT8, and what the manifest says of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from onnx import ModelProto

from vos_deploy.bundle import Bundle
from vos_deploy.methods import find_part
from vos_deploy.models import Network

from ..graph import MethodExport
from ..mixed.calibration import Calibration
from ..mixed.closed_loop import ClosedLoop
from ..mixed.search import Search
from .lowering import Int8Lowering
from .quantize import PERCENTILE


def to_int8(
    model: Network,
    draft: Bundle,
    models: Mapping[str, ModelProto],
    calibration: Calibration,
    stage: Callable[[str], None],
) -> tuple[dict[str, ModelProto], dict[str, Any]]:
    """The graphs, in INT8 where that costs no more than it may, and the table of the search.

    draft: the float model as written; models: its graphs.
    """
    method: MethodExport = find_part(model.method, "EXPORT")
    clip = calibration.read(draft)
    stage(f"following the objects in {len(clip.frames)} frames in float32")
    loop = ClosedLoop(draft, clip, method.verified(model))
    stage("measuring the ranges of activations")
    lowering = Int8Lowering(models, loop.calls)
    search = Search(lowering, loop.loss, stage)
    if calibration.kept is None:
        table = search.run(calibration.allowed("int8"))
    else:
        table = search.given(calibration.kept)
    made = {**models, **lowering.lowered(search.without(table.kept))}
    about = {**calibration.described(clip, "int8"), "percentile": PERCENTILE}
    return made, {**about, **table.described("int8")}
