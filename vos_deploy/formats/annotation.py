"""Masks as programs for annotation import them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import XMLGenerator
from xml.sax.xmlreader import AttributesImpl

import numpy as np
from numpy.typing import NDArray

from vos_deploy.files import replacing
from vos_deploy.masks import object_ids

from .folder import MaskFolder

# Label Studio packs runs with lengths of these many bits, the shortest that fits.
RUN_BITS = (4, 8, 12, 16)
WORD_BITS = 8


def label_of(object_id: int) -> str:
    """What an object is called; a project needs labels of these names."""
    return f"object {object_id}"


def cvat(masks: MaskFolder, output: Path) -> int:
    """CVAT for images 1.1: a <mask> per frame and object, as run lengths in its bounding box."""
    with replacing(output) as temporary, temporary.open("w", encoding="utf-8") as file:
        xml = XMLGenerator(file, "utf-8", short_empty_elements=True)
        xml.startDocument()
        xml.startElement("annotations", _attributes())
        xml.startElement("version", _attributes())
        xml.characters("1.1")
        xml.endElement("version")
        height, width = masks.size
        for mask in masks:
            about = _attributes(id=mask.index, name=mask.file, width=width, height=height)
            xml.startElement("image", about)
            for object_id in object_ids(mask.labels):
                xml.startElement("mask", _cvat_mask(mask.labels == object_id, object_id))
                xml.endElement("mask")
            xml.endElement("image")
        xml.endElement("annotations")
        xml.endDocument()
    return len(masks)


def label_studio(masks: MaskFolder, output: Path) -> int:
    """Tasks with a finished annotation each: a brush per object."""
    tasks = []
    height, width = masks.size
    for mask in masks:
        result = [
            {
                "id": f"{mask.name}-{object_id}",
                "type": "brushlabels",
                "from_name": "tag",
                "to_name": "image",
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": {
                    "format": "rle",
                    "rle": brush(mask.labels == object_id),
                    "brushlabels": [label_of(object_id)],
                },
            }
            for object_id in object_ids(mask.labels)
        ]
        tasks.append(
            {"data": {"image": masks.prefix + mask.file}, "annotations": [{"result": result}]}
        )
    with replacing(output) as temporary:
        temporary.write_text(json.dumps(tasks) + "\n", encoding="utf-8")
    return len(masks)


def _cvat_mask(mask: NDArray[np.bool_], object_id: int) -> AttributesImpl[str]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    height, width = int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left
    inside = mask[top : top + height, left : left + width].ravel()
    lengths = [length for _, length in _runs(inside)]
    # Runs take turns, and the first is of background.
    counts = [0, *lengths] if inside[0] else lengths
    return _attributes(
        label=label_of(object_id),
        source="auto",
        occluded=0,
        rle=", ".join(map(str, counts)),
        left=left,
        top=top,
        width=width,
        height=height,
        z_order=0,
    )


def _attributes(**values: Any) -> AttributesImpl[str]:
    return AttributesImpl({name: str(value) for name, value in values.items()})


def brush(mask: NDArray[np.bool_]) -> list[int]:
    """A mask as Label Studio packs brushes: RGBA of 0 or 255, as a stream of bits.

    32 bits with the number of values, 5 with the bits of a value less one, four times 4 with the
    bits of a run's length less one; then runs: a bit 1, 2 bits for which of the four, the length
    less one, and the value.
    """
    bits = [_bits(4 * mask.size, 32), _bits(WORD_BITS - 1, 5)]
    bits += [_bits(size - 1, 4) for size in RUN_BITS]
    for value, length in _runs(mask.ravel()):
        for part in _parts(4 * length):
            which = next(i for i, size in enumerate(RUN_BITS) if part <= 1 << size)
            bits += [_bits(1, 1), _bits(which, 2), _bits(part - 1, RUN_BITS[which])]
            bits += [_bits(255 * value, WORD_BITS)]
    packed = np.packbits(np.concatenate(bits))
    return [int(byte) for byte in packed]


def _runs(flat: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Value and length of each run of a row of bool, which is not empty."""
    edges = np.flatnonzero(np.diff(flat.astype(np.int8))) + 1
    starts = np.concatenate([[0], edges])
    for start, length in zip(starts, np.diff(np.append(starts, len(flat))), strict=True):
        yield int(flat[start]), int(length)


def _parts(length: int) -> Iterable[int]:
    longest = 1 << RUN_BITS[-1]
    whole, rest = divmod(length, longest)
    return [longest] * whole + ([rest] if rest else [])


def _bits(number: int, count: int) -> Any:
    """The lowest bits of a number, the highest of them first, uint8 [count]."""
    return np.array([number >> shift & 1 for shift in range(count - 1, -1, -1)], np.uint8)
