"""From graphs in half precision to such as lose and overflow nowhere, and what the manifest says of
it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx
from onnx import ModelProto

from vos_deploy.bundle import Bundle
from vos_deploy.methods import find_part
from vos_deploy.models import Network
from vos_deploy.runtime.backends.torch import TorchBackend

from ..graph import MethodExport
from ..mixed.calibration import Calibration
from ..mixed.closed_loop import ClosedLoop
from ..mixed.search import Search
from ..verify import TOLERANCES, in_float32
from .lowering import HalfLowering


def mend_fp16(
    model: Network,
    draft: Bundle,
    models: Mapping[str, ModelProto],
    floats: Callable[[], Mapping[str, ModelProto]],
    calibration: Calibration,
    stage: Callable[[str], None],
) -> tuple[dict[str, ModelProto], dict[str, Any]]:
    """The graphs, with those nodes in float32 without which more is lost than may be, and the table
    of the search. Where nothing is lost, they are the same.

    model: in float32. draft: the model in half precision as written; models: its graphs; floats:
    makes the same in float32.
    """
    method: MethodExport = find_part(model.method, "EXPORT")
    clip = calibration.read(draft)
    modules = {name: spec.module for name, spec in method.graphs(model).items()}
    full = in_float32(draft)
    stage(f"following the objects in {len(clip.frames)} frames in float32 and in FP16")
    # The loop asks for graphs in float32 when the lowering is there: what ran is known then.
    loop = ClosedLoop(
        draft,
        clip,
        method.verified(model),
        reference=lambda: TorchBackend(full, modules),
        floats=lambda graph: lowering.in_float(graph),
        tie=TOLERANCES["fp16"].error,
    )
    lowering = HalfLowering(models, loop.calls, floats)
    search = Search(lowering, loop.loss, stage)
    if calibration.kept is None:
        table = search.run(calibration.allowed("fp16"))
    else:
        table = search.given(calibration.kept)
    mended = lowering.mended(table.kept)
    for graph in mended.values():
        onnx.checker.check_model(graph, full_check=True)
    about = calibration.described(clip, "fp16")
    return {**models, **mended}, {**about, **table.described("fp16")}
