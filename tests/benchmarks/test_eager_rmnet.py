"""The PyTorch side of `fps` does what the reference loop does."""

from itertools import islice

import numpy as np
import pytest

from vos_deploy.benchmarks.scene import scene

torch = pytest.importorskip("torch")

from tests.rmnet import small_network  # noqa: E402
from vos_deploy.benchmarks.eager_rmnet import EagerRMNet  # noqa: E402
from vos_deploy.reference.rmnet import segment_rmnet  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread():
    """On a busy machine, threads that wait for each other take minutes over such small images."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("objects", [1, 2])
def test_results_are_those_of_the_reference(objects):
    network = small_network()
    clip = list(islice(scene((72, 200), objects), 4))  # padded to 80×208
    frames = torch.stack([torch.from_numpy(frame) for frame, _ in clip]).permute(0, 3, 1, 2) / 255
    masks = torch.stack([torch.from_numpy(clip[0][1] == i + 1) for i in range(objects)]).float()
    side = EagerRMNet(network, memory_frames=10)
    side.step(*clip[0])
    for (frame, _), step in zip(
        clip[1:], segment_rmnet(network, frames, {0: masks}, memory_every=1), strict=True
    ):
        labels = side.step(frame)
        # Untrained, objects are nearly tied: labels may differ where probabilities hardly do.
        np.testing.assert_allclose(side.probabilities[0], step.probabilities[1:], atol=1e-4)
        assert (labels != step.probabilities.argmax(0).numpy()).mean() < 0.01
    assert list(side.timings) == [
        *("prepare", "memorize", "flow", "region", "encoder", "memory_read", "decoder")
    ]


def test_memory_keeps_the_first_frame_and_the_last():
    side = EagerRMNet(small_network(), memory_frames=2)
    frames = scene((48, 64), 1)
    side.step(*next(frames))
    held = []
    for frame, _ in islice(frames, 3):
        side.step(frame)
        held.append(list(side._keys))
    assert [len(keys) for keys in held] == [1, 2, 2]
    assert held[2][0] is held[0][0]
    assert held[2][1] is not held[1][1]
