"""From the float graphs of a model to INT8, and what the manifest says of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from onnx import ModelProto

from vos_deploy.bundle import Bundle
from vos_deploy.methods import find_part
from vos_deploy.models import Network

from ..graph import MethodExport
from .calibration import Calibration
from .closed_loop import ClosedLoop
from .quantize import PERCENTILE
from .search import Search


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
    clip = calibration.read(draft.size)
    stage(f"following the objects in {len(clip.frames)} frames in float")
    loop = ClosedLoop(draft, clip, method.verified(model))
    stage("measuring the ranges of activations")
    search = Search(models, loop, stage)
    if calibration.kept is None:
        table = search.run(calibration.loss)
    else:
        table = search.given(calibration.kept)
    made = {**models, **search.quantized(search.without(table.kept))}
    about = {
        "clip": "sample" if calibration.clip is None else calibration.clip.name,
        "frames": len(clip.frames),
        "size": list(clip.size),
        "percentile": PERCENTILE,
        "allowed": calibration.loss,
    }
    return made, {**about, **asdict(table)}
