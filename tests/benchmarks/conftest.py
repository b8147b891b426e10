"""A DAVIS folder that fits on a thumbnail."""

import numpy as np
import pytest
from PIL import Image

from vos_deploy.masks import write_mask

FRAMES = 5


def draw(frame, ids=(1,)):
    """uint8 [24, 32]: one 8×8 box per id, side by side, moving down by a pixel a frame."""
    labels = np.zeros((24, 32), np.uint8)
    for index, object_id in enumerate(ids):
        labels[4 + frame : 12 + frame, 1 + 10 * index : 9 + 10 * index] = object_id
    return labels


@pytest.fixture
def boxes():
    return draw


@pytest.fixture
def make_davis(tmp_path):
    """A function that writes clips of five frames, {name: ids}, and returns the root folder.

    `level` is the resolution folder, `lists` holds files of ImageSets and their lines.
    """

    def make(clips, level="480p", lists=None):
        root = tmp_path / "DAVIS"
        for name, ids in clips.items():
            annotations = root / "Annotations" / level / name
            images = root / "JPEGImages" / level / name
            images.mkdir(parents=True)
            for frame in range(FRAMES):
                labels = draw(frame, ids)
                write_mask(annotations / f"{frame:05d}.png", labels)
                image = np.repeat(labels[..., None], 3, axis=2)
                Image.fromarray(image).save(images / f"{frame:05d}.jpg")
        for file, lines in (lists or {}).items():
            path = root / "ImageSets" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines) + "\n")
        return root

    return make
