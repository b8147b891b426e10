from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vos_deploy.palette import VOID
from vos_deploy.train.data.check import main
from vos_deploy.train.data.coco import draw
from vos_deploy.train.data.files import BadFiles, read_ids
from vos_deploy.train.data.layouts import find_pairs

LARGE = {"image_id": 7, "area": 60.0, "segmentation": [[1, 1, 8, 1, 8, 8, 1, 8]]}
SMALL = {"image_id": 7, "area": 9.0, "segmentation": [[4, 4, 6, 4, 6, 6, 4, 6], [9, 0, 9, 0, 9, 0]]}
# Columns of 10: the whole third column.
CROWD = {"image_id": 7, "area": 10.0, "iscrowd": 1, "segmentation": {"counts": [20, 10, 90]}}


def test_small_instances_lie_on_large_ones() -> None:
    mask = draw([SMALL, CROWD, LARGE], 10, 12)
    assert mask.shape == (10, 12)
    assert (mask[4:7, 4:7] == 2).all() and mask[0, 9] == 2
    assert mask[1, 1] == mask[8, 8] == 1
    assert (mask[[0, 9], 2] == VOID).all() and mask[5, 2] == 1
    assert (mask == 1).sum() == 64 - 9


def test_masks_are_written_once_and_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {
        "images": [{"id": 7, "file_name": "a.jpg", "height": 10, "width": 12},
                   {"id": 8, "file_name": "b.jpg", "height": 10, "width": 12}],
        "annotations": [SMALL, LARGE],
    }  # fmt: skip
    for folder in ("annotations", "train2017"):
        (tmp_path / folder).mkdir()
    for name in "ab":
        Image.fromarray(np.zeros((10, 12, 3), np.uint8)).save(tmp_path / f"train2017/{name}.jpg")
    assert main(["--draw-coco", str(tmp_path)]) == 2
    (tmp_path / "annotations/instances_train2017.json").write_text(json.dumps(content))
    for _ in range(2):
        assert main(["--draw-coco", str(tmp_path)]) == 0
        assert "1 masks" in capsys.readouterr().out
    bad = BadFiles()
    ((image, mask),) = find_pairs(tmp_path, bad)
    assert image.name == "a.jpg" and not bad.found
    assert set(np.unique(read_ids(mask))) == {0, 1, 2}
    (tmp_path / "annotations/instances_train2017.json").write_text('{"images": 1}')
    assert main(["--draw-coco", str(tmp_path)]) == 2
