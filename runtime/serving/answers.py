"""Labels on their way to a client: as a picture, or as COCO's run lengths."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vos_deploy.formats.rle import encoded
from vos_deploy.masks import mask_png, object_ids

from .refusals import Refusal

# The first is what is sent where anything will do.
FORMATS = {"png": "image/png", "rle": "application/json"}


@dataclass(frozen=True)
class Answer:
    """Encoded labels of one frame: index counts from 0, objects are those that are followed."""

    content: bytes
    media_type: str
    index: int
    objects: tuple[int, ...]

    @property
    def headers(self) -> dict[str, str]:
        return {"x-frame": str(self.index), "x-objects": ",".join(map(str, self.objects))}


def wanted(query: str | None, accept: str | None) -> str:
    """The format that a request asks for, by ?format= or else by its Accept header. Raises Refusal
    (422 and 406)."""
    if query is not None:
        if query not in FORMATS:
            raise Refusal(422, f"format must be {' or '.join(FORMATS)}, got {query[:40]!r}")
        return query
    best, weight = None, 0.0
    for part in (accept or "*/*").split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = _quality(parameters)
        for key, kind in FORMATS.items():
            if quality > weight and name in (kind, kind.partition("/")[0] + "/*", "*/*"):
                best, weight = key, quality
    if best is None:
        raise Refusal(406, f"labels come as {' or '.join(FORMATS.values())}: accept one of them")
    return best


def encode(labels: NDArray[np.uint8], kind: str, index: int, objects: tuple[int, ...]) -> Answer:
    """uint8 [H, W] in one of FORMATS. What is not seen has no run lengths."""
    content = mask_png(labels) if kind == "png" else _run_lengths(labels, index)
    return Answer(content, FORMATS[kind], index, objects)


def _run_lengths(labels: NDArray[np.uint8], index: int) -> bytes:
    found = [{"object": i, **encoded(labels == i)} for i in object_ids(labels)]
    return json.dumps({"index": index, "size": list(labels.shape), "objects": found}).encode()


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(1.0, max(0.0, float(value)))
            except ValueError:
                return 0.0
    return 1.0
