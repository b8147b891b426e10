"""Run lengths as COCO has them: JSON lines, and YouTube-VOS's JSON of videos (VIS)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vos_deploy.errors import InputError
from vos_deploy.extras import install
from vos_deploy.files import replacing
from vos_deploy.masks import object_ids

from .folder import MaskFolder


def coco(masks: MaskFolder, output: Path) -> int:
    """One line per frame and object: frame, index, object, segmentation, area and bbox."""
    with replacing(output) as temporary, temporary.open("w", encoding="utf-8") as file:
        for mask in masks:
            for object_id in object_ids(mask.labels):
                line = {
                    "frame": mask.name,
                    "index": mask.index,
                    "object": object_id,
                    **encoded(mask.labels == object_id),
                }
                file.write(json.dumps(line) + "\n")
    return len(masks)


def youtube(masks: MaskFolder, output: Path) -> int:
    """One video; per object a segmentation in each of its frames, null where it is not seen."""
    count, height, width = len(masks), *masks.size
    files = []
    found: dict[int, list[Any]] = {}
    for position, mask in enumerate(masks):
        files.append(mask.file)
        for object_id in object_ids(mask.labels):
            frames = found.setdefault(object_id, [None] * count)
            frames[position] = encoded(mask.labels == object_id)
    annotations = [
        {
            "id": number,
            "video_id": 1,
            "category_id": 1,
            "iscrowd": 0,
            "width": width,
            "height": height,
            "object": object_id,
            "segmentations": [frame and frame["segmentation"] for frame in frames],
            "areas": [frame and frame["area"] for frame in frames],
            "bboxes": [frame and frame["bbox"] for frame in frames],
        }
        for number, (object_id, frames) in enumerate(sorted(found.items()), start=1)
    ]
    video = {"id": 1, "width": width, "height": height, "length": count, "file_names": files}
    content = {
        "videos": [video],
        "categories": [{"id": 1, "name": "object"}],
        "annotations": annotations,
    }
    with replacing(output) as temporary:
        temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
    return count


def encoded(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Segmentation (size and counts), area and bbox [x, y, width, height] of a mask, [H, W]."""
    coder = _pycocotools()
    found = coder.encode(np.asfortranarray(mask, np.uint8))
    return {
        "segmentation": {"size": list(mask.shape), "counts": found["counts"].decode("ascii")},
        "area": int(coder.area(found)),
        "bbox": [int(side) for side in coder.toBbox(found)],
    }


def _pycocotools() -> Any:
    """`pycocotools.mask`, imported when it is needed. Raises InputError where it is missing."""
    try:
        from pycocotools import mask
    except ImportError as error:
        raise InputError(
            f"COCO's run lengths need pycocotools ({error}); install it with: {install('formats')}"
        ) from error
    return mask
