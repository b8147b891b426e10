"""Where an object may be: boxes around masks, the token maps they give, and masks moved by flow.

Xie et al., "Efficient Regional Memory Network for Video Object Segmentation" (CVPR 2021), section
3.2. Boxes are (x_min, x_max, y_min, y_max) in pixels, inclusive.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vos_deploy.padding import STRIDE
from vos_deploy.runtime.trackers.rmnet.tokens import MARGIN

# A pixel belongs to the object from this probability on; NaN does not.
THRESHOLD = 0.5
# With fewer pixels the object counts as lost, and the whole frame is its region.
POINTS = 10
# A warped pixel is valid if this share of it comes from within the frame.
VALID = 0.9999


def region_boxes(masks: Tensor) -> Tensor:
    """Boxes int32 [..., 4] of masks [..., H, W] in [0, 1], grown by MARGIN and cut to the frame."""
    height, width = masks.shape[-2:]
    hits = masks >= THRESHOLD
    columns, rows = hits.sum(-2), hits.sum(-1)
    found = columns.sum(-1) >= POINTS

    def extent(counts: Tensor, size: int) -> list[Tensor]:
        place = torch.arange(size, device=masks.device)
        low = torch.where(counts > 0, place, size).amin(-1) - MARGIN
        high = torch.where(counts > 0, place, -1).amax(-1) + MARGIN
        return [
            torch.where(found, low.clamp(min=0), 0),
            torch.where(found, high.clamp(max=size - 1), size - 1),
        ]

    return torch.stack([*extent(columns, width), *extent(rows, height)], -1).int()


def region_map(boxes: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """float32 [..., h, w] of boxes [..., 4]: 1 where the pixel (rows[i], columns[j]) is inside."""
    x_min, x_max, y_min, y_max = (side.unsqueeze(-1) for side in boxes.unbind(-1))
    across = (columns >= x_min) & (columns <= x_max)
    down = (rows >= y_min) & (rows <= y_max)
    return (down.unsqueeze(-1) & across.unsqueeze(-2)).float()


def token_pixels(size: int, before: int, device: torch.device | None = None) -> Tensor:
    """The pixel whose membership decides on each token of an axis, int64 [ceil(size / 16)].

    `size` pixels with `before` pixels of padding on their leading side: a token stands for the
    first pixel of its cell, which may lie in the padding and then has a negative number.
    """
    return torch.arange((size + STRIDE - 1) // STRIDE, device=device) * STRIDE - before


def flow_warp(masks: Tensor, flow: Tensor) -> Tensor:
    """Masks [..., K, H, W] of one frame moved into the next by its backward flow [..., 2, H, W].

    Pixel (x, y) takes the mask at (x + dx, y + dy), bilinearly; it is 0 where that lies outside
    the frame and NaN where the flow is.
    """
    height, width = flow.shape[-2:]
    x = torch.arange(width, device=flow.device) + flow[..., 0, :, :]
    y = torch.arange(height, device=flow.device)[:, None] + flow[..., 1, :, :]
    grid = torch.stack([2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1], -1)

    def sample(image: Tensor) -> Tensor:
        return F.grid_sample(image, grid, "bilinear", "zeros", align_corners=True)

    return sample(masks) * (sample(torch.ones_like(masks[:, :1])) >= VALID)
