from __future__ import annotations

from pathlib import Path

import torch

from vos_deploy.models import create
from vos_deploy.train.data.files import BadFiles
from vos_deploy.train.data.mixture import build_clips
from vos_deploy.train.keys import align_keys
from vos_deploy.train.options import Options


def test_positions_find_themselves_after_alignment(davis: Path) -> None:
    options = Options(davis=(davis,), crop="64", frames=2, objects=1, skip=("0", "1"))
    clips = build_clips(options, BadFiles())
    clips.total = 100
    torch.manual_seed(0)
    model = create("stm", backbone="resnet18", key_dim=16, value_dim=8, decoder_width=8)
    align_keys(model, clips, samples=30)
    found = []
    with torch.inference_mode():
        for index in range(30, 35):
            clip = clips[index].tensors
            frame, masks = clip["frames"][:1], clip["masks"][:1]
            query = model.encode_query(frame).key[0].flatten(1)
            memory = model.memorize(frame, masks)[0][0, 0].flatten(1)
            found.append((query.T @ memory).argmax(1) == torch.arange(query.shape[1]))
    assert torch.stack(found).float().mean() > 0.6
    # Whitened: the average score of a position with itself is the sharpness.
    assert 4 < (query * query).sum(0).mean() / 16**0.5 < 16
