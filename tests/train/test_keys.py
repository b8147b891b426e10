from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from vos_deploy.models import create
from vos_deploy.models.rde.compress import Compression
from vos_deploy.models.shared_keys import normalize, similarity
from vos_deploy.train.data.files import BadFiles
from vos_deploy.train.data.mixture import build_clips
from vos_deploy.train.keys import align_keys, align_shared_key
from vos_deploy.train.methods.rde.start import compress_to_mean
from vos_deploy.train.methods.stm.task import key_parts
from vos_deploy.train.options import TrainOptions


def test_positions_find_themselves_after_alignment(davis: Path) -> None:
    options = TrainOptions(davis=(davis,), crop="64", frames=2, objects=1, skip=("0", "1"))
    clips = build_clips(options, BadFiles())
    clips.total = 100
    torch.manual_seed(0)
    model = create("stm", backbone="resnet10", key_dim=16, value_dim=8, decoder_width=8)
    align_keys(key_parts(model), clips, samples=30)
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


def test_shared_keys_after_alignment(davis: Path) -> None:
    """A position scores that much more with itself than with the others on average."""
    options = TrainOptions(davis=(davis,), crop="64", frames=2, objects=1, skip=("0", "1"))
    clips = build_clips(options, BadFiles())
    clips.total = 100
    torch.manual_seed(0)
    model = create("rde", backbone="resnet10", key_dim=16, value_dim=16, decoder_width=8)
    align_shared_key(model.key_encoder, model.key_proj.key_proj, clips, samples=30, sharpness=6.0)
    gaps, found = [], []
    with torch.inference_mode():
        for index in range(30, 40):
            frame = clips[index].tensors["frames"][:1]
            clean = model.encode_key(normalize(frame)).key[0].flatten(1).T
            noise = 0.02 * torch.randn(frame.shape)
            noisy = model.encode_key(normalize(frame + noise)).key[0].flatten(1).T
            scores = similarity(clean, clean)
            gaps.append(scores.diagonal().mean() - scores.mean())
            found.append(similarity(noisy, clean).argmax(1) == torch.arange(len(clean)))
    assert torch.stack(found).float().mean() > 0.8
    # Positions of one frame are more alike than those of many.
    assert 2 < torch.stack(gaps).mean() < 9


def test_keys_of_one_length_after_alignment(davis: Path) -> None:
    """Positions find themselves again in a frame of other contrast; a right angle costs the
    sharpness."""
    options = TrainOptions(davis=(davis,), crop="64", frames=2, objects=1, skip=("0", "1"))
    clips = build_clips(options, BadFiles())
    clips.total = 100
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"key_dim": 16, "value_dim": 16, "decoder_width": 8}
    model = create("stcn", backbone="resnet18", **sizes, unit_keys=True)
    projection = model.key_proj
    align_shared_key(
        model.key_encoder,
        projection.key_proj,
        clips,
        samples=30,
        length=projection.length,
        unit_sharpness=20.0,
    )
    assert torch.isclose(2 * projection.length**2 / 16**0.5, torch.tensor(20.0))
    found = []
    with torch.inference_mode():
        for index in range(30, 40):
            frame = clips[index].tensors["frames"][:1]
            key, paler = (
                model.encode_key(normalize(f)).key[0].flatten(1).T for f in (frame, 0.8 * frame)
            )
            found.append(similarity(paler, key).argmax(1) == torch.arange(len(key)))
    assert torch.stack(found).float().mean() > 0.6


def test_compression_starts_as_the_mean() -> None:
    torch.manual_seed(0)
    compression = Compression(16, 32, 0)
    compress_to_mean(compression, faint=0.02)
    with torch.inference_mode():
        for branch, channels in (("keys", 16), ("values", 32)):
            old, new = torch.randn(2, 3, channels, 6, 6)
            found = getattr(compression, branch)(old, new)
            mean = (old + new) / 2
            assert (found - mean).norm() < 0.1 * mean.norm()
    old, new = torch.randn(2, 1, 16, 6, 6)
    compression.keys(old, new).square().sum().backward()
    for name, parameter in compression.key_encoder.named_parameters():
        if not name.startswith(("non_local.theta", "non_local.phi", "non_local.g")):
            assert parameter.grad is not None and parameter.grad.any(), name
