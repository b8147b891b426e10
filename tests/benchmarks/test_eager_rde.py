"""The PyTorch side of `fps` does what the reference loop does."""

from itertools import islice

import numpy as np
import pytest

from vos_deploy.benchmarks.scene import scene

torch = pytest.importorskip("torch")

from vos_deploy.benchmarks.eager import follower  # noqa: E402
from vos_deploy.models.rde import RDE  # noqa: E402
from vos_deploy.reference.rde import segment_rde  # noqa: E402


@pytest.mark.parametrize("mode", ["two-frames-compress", "stm"])
@pytest.mark.parametrize("objects", [1, 2])
def test_results_are_those_of_the_reference(objects: int, mode: str) -> None:
    torch.manual_seed(0)
    network = RDE("resnet18", key_dim=8, value_dim=16, decoder_width=16)
    clip = list(islice(scene((24, 40), objects), 6))  # padded to 32×48
    frames = torch.stack([torch.from_numpy(frame) for frame, _ in clip]).permute(0, 3, 1, 2) / 255
    masks = torch.stack([torch.from_numpy(clip[0][1] == i + 1) for i in range(objects)]).float()
    side = follower(network, memory_every=2, mode=mode, top_k=5)
    side.step(*clip[0])
    reference = segment_rde(network, frames, {0: masks}, mode, memory_every=2, top_k=5)
    stages = []
    for (frame, _), expected in zip(clip[1:], reference, strict=True):
        labels = side.step(frame)
        stages.append(list(side.timings))
        np.testing.assert_allclose(side.probabilities[0], expected[1:], atol=1e-5)
        assert (labels != expected.argmax(0).numpy()).mean() < 0.01
    every = ["prepare", "encoder", "memory_read", "decoder"]
    memorized = ["prepare", "memorize", "compress", "encoder", "memory_read", "decoder"]
    assert stages == [memorized, every, memorized, every, memorized]
