from __future__ import annotations

from pathlib import Path

import torch

from vos_deploy.models import create
from vos_deploy.train.clips import ClipMixture, VideoClips
from vos_deploy.train.keys import align_keys


def test_positions_find_themselves_after_alignment(davis: Path) -> None:
    source = VideoClips(davis, crop=64, frames=2, objects=1)
    clips = ClipMixture([], [source], 1.0, (0, 1), 1, 100, 0)
    torch.manual_seed(0)
    model = create("stm", backbone="resnet18", key_dim=16, value_dim=8, decoder_width=8)
    align_keys(model, clips, samples=30)
    found = []
    with torch.inference_mode():
        for index in range(30, 35):
            frame, masks = clips[index]["frames"][:1], clips[index]["masks"][:1]
            query = model.encode_query(frame).key[0].flatten(1)
            memory = model.memorize(frame, masks)[0][0, 0].flatten(1)
            found.append((query.T @ memory).argmax(1) == torch.arange(query.shape[1]))
    assert torch.stack(found).float().mean() > 0.6
    # Whitened: the average score of a position with itself is the sharpness.
    assert 4 < (query * query).sum(0).mean() / 16**0.5 < 16
