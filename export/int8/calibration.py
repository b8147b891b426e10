"""What INT8 is calibrated on, and what it may cost. Imports no inference engine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vos_deploy.errors import InputError
from vos_deploy.frames import Size

from ..clip import Clip, read_clip, sample_clip

# Names of convolutions, by graph.
Layers = dict[str, list[str]]

# Of a clip, at most: the search runs it once or twice per layer.
FRAMES = 8


@dataclass(frozen=True)
class Calibration:
    """What INT8 is calibrated on, and what it may cost.

    clip, mask: as `vos_deploy.export.clip.read_clip` takes them; None for the sample that ships.
    loss: what the IoU with the masks of the float graphs may lose, of 1, on this clip.
    kept: the layers that stay in float, by graph; None to search for them.
    """

    clip: Path | None = None
    mask: Path | None = None
    # What the demonstration model loses, 0.02, costs it nothing in J&F.
    loss: float = 0.03
    kept: Layers | None = None

    def read(self, size: Size | None) -> Clip:
        """At `size`, or at the clip's own for None."""
        if self.clip is None:
            return sample_clip(size)
        return read_clip(self.clip, size, self.mask, FRAMES)


def read_kept(path: Path) -> Layers:
    """The layers to keep in float, from the manifest of an INT8 model or a file of its table.

    Raises InputError for a file that cannot be read, or that is none of them.
    """
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the layers to keep in float from {path}: {error}") from error
    try:
        return kept_of(document)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def kept_of(document: Any) -> Layers:
    """The layers that a manifest, or its part "int8" as a file, keeps in float.

    Raises InputError for a document that says nothing of it.
    """
    table = document.get("int8", document) if isinstance(document, dict) else {}
    kept = table.get("kept") if isinstance(table, dict) else None
    named = isinstance(kept, dict) and all(
        isinstance(names, list) and all(isinstance(name, str) for name in names)
        for names in kept.values()
    )
    if not named or not isinstance(kept, dict):
        raise InputError(
            'expected the manifest of an INT8 model, or {"kept": {GRAPH: [LAYER, ...]}}'
        )
    return kept
