"""A baseline without a learned memory: labels carried over by the nearest ImageNet features.

Each position of a frame takes the labels of the positions of the first and the previous frame that
look most like it: cosine similarity of a ResNet's features at strides 8 and 16 side by side, top k,
softmax. What a trained model has to be better than.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vos_deploy.frames import Size, resize_frame, working_size
from vos_deploy.masks import object_ids, one_hot
from vos_deploy.models.imagenet import load_imagenet
from vos_deploy.models.resnet import BACKBONES
from vos_deploy.models.shared_keys import KeyEncoder, normalize

# Stages by torchvision's names -> the trunk's.
TORCHVISION_NAMES = {"layer1": "res2", "layer2": "layer2", "layer3": "layer3"}

Labels = NDArray[np.uint8]

SIZE = 240  # of the shorter side


class NearestFeatures:
    """Follows objects as `Segmenter` does, by features alone."""

    def __init__(
        self,
        imagenet: Path,
        backbone: str = "resnet18",
        size: int | Size = SIZE,
        top_k: int = 10,
        sharpness: float = 20.0,
    ) -> None:
        """imagenet: weights of the trunk by torchvision's names. size: as `Segmenter` takes it.

        Raises InputError for weights that are not the trunk's.
        """
        self._trunk = KeyEncoder(BACKBONES[backbone]).eval()
        load_imagenet(self._trunk, imagenet, TORCHVISION_NAMES)
        self._size, self._top_k, self._sharpness = size, top_k, sharpness
        self.reset()

    def reset(self) -> None:
        """Forget the objects: the next frame starts another video."""
        self._ids: list[int] = []
        self._memory: list[tuple[Tensor, Tensor]] = []  # features [hw, C], labels [hw, 1+K]

    @torch.inference_mode()
    def step(self, frame: NDArray[np.uint8], mask: Labels | None = None) -> Labels:
        """frame uint8 [H, W, 3] RGB, mask uint8 [H, W] ids in the first step -> ids [H, W]."""
        size = frame.shape[:2]
        image = resize_frame(frame, working_size((size[0], size[1]), self._size))
        features, grid = self._features(image)
        if mask is not None:
            self._ids = object_ids(mask)
            planes = [
                cv2.resize(p, grid[::-1], interpolation=cv2.INTER_AREA)
                for p in one_hot(mask, self._ids)
            ]
            labels = torch.from_numpy(np.stack(planes, -1)).flatten(0, 1)
            self._memory = [(features, labels)]
            return mask
        keys, values = (torch.cat(parts) for parts in zip(*self._memory, strict=True))
        best, index = (features @ keys.T).topk(min(self._top_k, len(keys)), -1)
        weights = (best * self._sharpness).softmax(-1)
        labels = (weights[..., None] * values[index]).sum(1)
        self._memory = [self._memory[0], (features, labels)]
        maps = labels.T.reshape(1, -1, *grid)
        full = F.interpolate(maps, size, mode="bilinear")[0]
        found: Labels = np.array([0, *self._ids], np.uint8)[full.argmax(0).numpy()]
        return found

    def _features(self, image: NDArray[np.uint8]) -> tuple[Tensor, tuple[int, int]]:
        """Unit features [hw, C] at stride 8 and their grid (h, w)."""
        frame = torch.from_numpy(image).permute(2, 0, 1).unsqueeze(0).float() / 255
        f16, f8, _ = self._trunk(normalize(frame))
        coarse = F.interpolate(f16, f8.shape[-2:], mode="bilinear")
        found = torch.cat([F.normalize(f8), F.normalize(coarse)], 1)
        return F.normalize(found[0].flatten(1).T), (found.shape[-2], found.shape[-1])
