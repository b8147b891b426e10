"""How every method's graphs begin and end: bytes in, token-major features, label maps out."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vos_deploy.models.aggregate import aggregated_odds
from vos_deploy.models.padding import crop, padding
from vos_deploy.models.upsample import upsample


class FrameEncoder(nn.Module, ABC):
    """What is computed of a frame alone, or of several frames at once: with a leading axis of B
    frames, every output has it, too."""

    @abstractmethod
    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """uint8 [H, W, 3] or [B, H, W, 3] -> tokens [B, hw, C] and maps [B, C, h, w]."""

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Of a frame, tokens [hw, C] and maps [1, C, h, w]; of several, these with a leading B."""
        several, found = image.dim() == 4, self.encode(image)
        if several:
            return tuple(x.unsqueeze(1) if x.dim() == 4 else x for x in found)
        return tuple(x if x.dim() == 4 else x[0] for x in found)


def as_frame(image: Tensor) -> Tensor:
    """uint8 [H, W, 3] or [B, H, W, 3] -> float32 [B, 3, H, W] in [0, 1]; B is 1 for one frame."""
    scaled = image.float().div(255)
    if image.dim() == 4:
        return scaled.permute(0, 3, 1, 2)
    return scaled.permute(2, 0, 1).unsqueeze(0)


def tokens(features: Tensor) -> Tensor:
    """[K, C, h, w] -> [K, h*w, C], the layout of the memory."""
    return features.flatten(2).transpose(1, 2)


def full_size(logits: Tensor, image: Tensor, stride: int) -> Tensor:
    """Logits [K, 1, H'/4, W'/4] of the frame padded to H'xW', multiples of `stride`, to float32
    [K, H, W]."""
    height, width = image.shape[:2]
    if stride == 1:
        logits = upsample(logits, (height, width))
    else:  # a padded frame is four times the map: a fixed factor, which TensorRT asks for
        logits = F.interpolate(logits, scale_factor=4.0, mode="bilinear")
    return crop(logits, padding(height, width, stride), (height, width))[:, 0].float()


def label_map(probabilities: Tensor) -> Tensor:
    """Labels uint8 [H, W] of probabilities [1+K, H, W]."""
    # TensorRT casts to bytes from floats only.
    return probabilities.argmax(0).float().to(torch.uint8)


def estimate(logits: Tensor, image: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Logits, as `full_size` takes them, to probabilities float32 [1+K, H, W] and labels uint8
    [H, W]."""
    objects = full_size(logits, image, stride).sigmoid()
    probabilities = aggregated_odds(objects.unsqueeze(0))[0]
    return probabilities, label_map(probabilities)
