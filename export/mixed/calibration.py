"""The clip that a precision is tried on, and what it may cost. Imports no inference engine."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError

from ..clip import Clip, read_clip, sample_clip

# Names of layers, which are nodes, by graph.
Layers = dict[str, list[str]]

# Of a clip, at most: the search runs it once or twice per layer.
FRAMES = 8

# By precision, what the IoU with the masks in float32 may lose by default.
LOSSES = {
    "int8": 0.03,  # what the demonstration model loses, 0.02, costs it nothing in J&F
    "fp16": 0.01,
}


@dataclass(frozen=True)
class Calibration:
    """What a precision is tried on, and what it may cost.

    clip, mask: as `vos_deploy.export.clip.read_clip` takes them; None for the sample that ships.
    loss: what the IoU with the masks in float32 may lose, of 1, on this clip; None for the default
        of the precision.
    kept: the layers that stay in float32, by graph; None to search for them.
    """

    clip: Path | None = None
    mask: Path | None = None
    loss: float | None = None
    kept: Layers | None = None

    def read(self, bundle: Bundle) -> Clip:
        """At the size that the model works at."""
        size = bundle.size or bundle.short_side
        if self.clip is None:
            return sample_clip(size)
        return read_clip(self.clip, size, self.mask, FRAMES)

    def allowed(self, precision: str) -> float:
        return LOSSES[precision] if self.loss is None else self.loss

    def described(self, clip: Clip, precision: str) -> dict[str, Any]:
        """How the manifest's part about `precision` begins. clip: what was read."""
        return {
            "clip": "sample" if self.clip is None else self.clip.name,
            "frames": len(clip.frames),
            "size": list(clip.size),
            "allowed": self.allowed(precision),
        }


def read_kept(path: Path, precision: str) -> Layers:
    """The layers to keep in float32, from the manifest of a model of `precision` or a file of its
    table.

    Raises InputError for a file that cannot be read, or that is none of them.
    """
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read the layers to keep in float32 from {path}: {error}"
        ) from error
    try:
        return kept_of(document, precision)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def kept_of(document: Any, precision: str) -> Layers:
    """The layers that a manifest, or its part about `precision` as a file, keeps in float32.

    Raises InputError for a document that says nothing of it.
    """
    table = document.get(precision, document) if isinstance(document, dict) else {}
    kept = table.get("kept") if isinstance(table, dict) else None
    named = isinstance(kept, dict) and all(
        isinstance(names, list) and all(isinstance(name, str) for name in names)
        for names in kept.values()
    )
    if not named or not isinstance(kept, dict):
        raise InputError(
            f"expected the manifest of a model in {precision.upper()}, or "
            '{"kept": {GRAPH: [LAYER, ...]}}'
        )
    return kept
