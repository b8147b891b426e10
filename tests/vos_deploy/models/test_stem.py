"""What memory encoders see: colours, then the masks of one object."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from vos_deploy.models.stem import with_masks  # noqa: E402


def test_every_object_sees_its_clip_and_its_own_masks() -> None:
    frame, masks, others = torch.rand(2, 3, 4, 6), torch.rand(2, 5, 4, 6), torch.rand(2, 5, 4, 6)
    planes = with_masks(frame, masks, others).unflatten(0, (2, 5))
    assert planes.shape == (2, 5, 5, 4, 6)
    for clip in range(2):
        for k in range(5):
            assert torch.equal(planes[clip, k, :3], frame[clip])
            assert torch.equal(planes[clip, k, 3], masks[clip, k])
            assert torch.equal(planes[clip, k, 4], others[clip, k])


def test_frame_sets_the_type() -> None:
    planes = with_masks(torch.rand(1, 3, 4, 6).half(), torch.rand(1, 2, 4, 6))
    assert planes.shape == (2, 4, 4, 6) and planes.dtype == torch.float16
