from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

SIZE = (96, 128)


def disc(centre: tuple[float, float], radius: float) -> np.ndarray:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2


def picture(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A textured scene whose objects have their own colours."""
    image = rng.integers(0, 80, (*SIZE, 3))
    colours = np.array([[40, 90, 40], [220, 60, 40], [40, 60, 220]])
    return (image + colours[np.minimum(mask, 2)]).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def stills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures of one disc each, masks as 0/255 like saliency sets write them."""
    root = tmp_path_factory.mktemp("stills")
    rng = np.random.default_rng(0)
    for name in ("image", "mask"):
        (root / name).mkdir()
    for i in range(6):
        mask = disc((40 + 3 * i, 50 + 5 * i), 24).astype(np.uint8)
        Image.fromarray(picture(mask, rng)).save(root / f"image/{i}.jpg")
        Image.fromarray(mask * 255).save(root / f"mask/{i}.png")
    return root


@pytest.fixture(scope="session")
def davis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sequences of eight frames in the DAVIS layout, two objects that move."""
    root = tmp_path_factory.mktemp("davis")
    rng = np.random.default_rng(1)
    for sequence in ("one", "two"):
        for name in ("JPEGImages", "Annotations"):
            (root / name / "480p" / sequence).mkdir(parents=True)
        for t in range(8):
            mask = disc((48, 30 + 4 * t), 18).astype(np.uint8)
            mask[disc((30, 100 - 4 * t), 12)] = 2
            Image.fromarray(picture(mask, rng)).save(
                root / f"JPEGImages/480p/{sequence}/{t:05d}.jpg"
            )
            indexed = Image.fromarray(mask)
            indexed.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
            indexed.save(root / f"Annotations/480p/{sequence}/{t:05d}.png")
    return root


@pytest.fixture(scope="session")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet-18 by torchvision's names: random, but the same for every test."""
    import torch
    from safetensors.torch import save_file

    from vos_deploy.models.gfrtm.network import FullTrunk
    from vos_deploy.models.imagenet import STAGES
    from vos_deploy.models.resnet import BACKBONES

    torch.manual_seed(1)
    names = {own: name for name, own in STAGES.items()}
    state = {}
    for key, value in FullTrunk(BACKBONES["resnet18"]).state_dict().items():
        first, _, rest = key.partition(".")
        state[f"{names.get(first, first)}.{rest}"] = value.contiguous()
    path = tmp_path_factory.mktemp("imagenet") / "resnet18.safetensors"
    save_file(state, path)
    return path
