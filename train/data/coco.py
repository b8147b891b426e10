"""COCO's instances as masks on disk: its annotations are polygons in one large file."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vos_deploy.commands import progress
from vos_deploy.errors import InputError
from vos_deploy.masks import write_mask
from vos_deploy.palette import VOID

from .files import Image

SPLIT = "train2017"


def draw_masks(root: Path) -> int:
    """Write masks_train2017/ beside train2017/, an indexed PNG with one id per instance for each
    picture that has any; the number of masks. Masks that are there already stay."""
    source = root / "annotations" / f"instances_{SPLIT}.json"
    if not source.is_file():
        raise InputError(f"{root} is not a COCO folder: it has no annotations/{source.name}")
    try:
        content = json.loads(source.read_text(encoding="utf-8"))
        pictures = {p["id"]: p for p in content["images"]}
        instances: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for instance in content["annotations"]:
            instances[instance["image_id"]].append(instance)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{source} is not COCO's list of instances: {error!r}") from error
    folder = root / f"masks_{SPLIT}"
    folder.mkdir(exist_ok=True)
    for number, found in progress(instances.items(), unit="mask"):
        picture = pictures[number]
        path = folder / f"{Path(picture['file_name']).stem}.png"
        if not path.is_file():
            write_mask(path, draw(found, picture["height"], picture["width"]))
    return len(instances)


def draw(instances: list[dict[str, Any]], height: int, width: int) -> Image:
    """Ids uint8 [H, W], 1 for the largest instance; smaller ones lie on top. Crowds are void."""
    mask = np.zeros((height, width), np.uint8)
    for crowd in (i for i in instances if i.get("iscrowd")):
        mask[run_lengths(crowd["segmentation"]["counts"], height, width)] = VOID
    single = [i for i in instances if not i.get("iscrowd")]
    ordered = sorted(single, key=lambda i: i["area"], reverse=True)
    for number, instance in enumerate(ordered[: VOID - 1], 1):
        for polygon in instance["segmentation"]:
            points = np.array(polygon).reshape(-1, 1, 2).round().astype(np.int32)
            cv2.fillPoly(mask, [points], number)
    return mask


def run_lengths(counts: list[int], height: int, width: int) -> Any:
    """bool [H, W] of run lengths, outside and inside in turn, column by column."""
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T
