"""The one table of methods. All parts of a method are found by its name.

A method NAME consists of these modules (or packages), each with one constant:

    vos_deploy.models.NAME               NETWORK   the network, a `models.Network`
    vos_deploy.reference.NAME            REFERENCE the published frame loop in PyTorch
    vos_deploy.export.methods.NAME       EXPORT    its ONNX graphs, an `export.graph.MethodExport`
    vos_deploy.runtime.trackers.NAME     TRACKER   the frame loop that ships, a `trackers.Tracker`
    vos_deploy.train.methods.NAME.stages TRAINING  stages and options, importable without PyTorch
    vos_deploy.train.methods.NAME.task   TASK      what training does with a clip

docs/new_method.md says what to write for a new one. Nothing else in the package names a method.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .errors import InputError

# Name on the command line -> title.
METHODS = {
    "stm": "STM (Oh et al., ICCV 2019)",
    "rmnet": "RMNet (Xie et al., CVPR 2021)",
    "stcn": "STCN (Cheng et al., NeurIPS 2021)",
    "xmem": "XMem (Cheng and Schwing, ECCV 2022)",
    "cutie": "Cutie (Cheng et al., CVPR 2024)",
    "rde": "RDE-VOS (Li et al., CVPR 2022)",
    "imsfr": "IMSFR (Dang et al., TIP 2023)",
    "gfrtm": "Reuse-VOS, G-FRTM (Park et al., CVPR 2021)",
}

# The method of the demonstration model, which is meant where none is named.
DEMONSTRATION = "stcn"
# The one whose weights ship: it is exported without a checkpoint, and trained where none is named.
BUNDLED_WEIGHTS = "stm"

_PARTS = {
    "NETWORK": "vos_deploy.models.{}",
    "REFERENCE": "vos_deploy.reference.{}",
    "EXPORT": "vos_deploy.export.methods.{}",
    "TRACKER": "vos_deploy.runtime.trackers.{}",
    "TRAINING": "vos_deploy.train.methods.{}.stages",
    "TASK": "vos_deploy.train.methods.{}.task",
}


def find_part(method: str, part: str) -> Any:
    """One part of a method, such as its "TRACKER"; imported now.

    Raises InputError for a method that is not in the table.
    """
    if method not in METHODS:
        raise InputError(f"unknown method {method!r}: expected one of {', '.join(METHODS)}")
    return getattr(import_module(_PARTS[part].format(method)), part)
