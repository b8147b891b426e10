"""The PyTorch side of `fps` does what the reference loop does."""

from itertools import islice

import numpy as np
import pytest

from vos_deploy.benchmarks.scene import scene
from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError

torch = pytest.importorskip("torch")

from vos_deploy.benchmarks.eager import EagerSTM, load_network  # noqa: E402
from vos_deploy.models import save_checkpoint  # noqa: E402
from vos_deploy.models.stm import STM  # noqa: E402
from vos_deploy.reference.stm import segment_stm  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread():
    """On a busy machine, threads that wait for each other take minutes over such small images."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return STM("resnet18", key_dim=8, value_dim=16, decoder_width=16)


@pytest.mark.parametrize("objects", [1, 2])
def test_results_are_those_of_the_reference(network, objects):
    clip = list(islice(scene((24, 40), objects), 4))  # padded to 32×48
    frames = torch.stack([torch.from_numpy(frame) for frame, _ in clip]).permute(0, 3, 1, 2) / 255
    masks = torch.stack([torch.from_numpy(clip[0][1] == i + 1) for i in range(objects)]).float()
    side = EagerSTM(network, memory_frames=10)
    side.step(*clip[0])
    reference = segment_stm(network, frames, masks, memory_every=1)
    for (frame, _), expected in zip(clip[1:], reference, strict=True):
        labels = side.step(frame)
        # Untrained, objects are nearly tied: labels may differ where probabilities hardly do.
        np.testing.assert_allclose(side.probabilities[0], expected[1:], atol=1e-4)
        assert (labels != expected.argmax(0).numpy()).mean() < 0.01
    assert list(side.timings) == ["prepare", "memorize", "encoder", "memory_read", "decoder"]


def test_memory_keeps_the_first_frame_and_the_last(network):
    side = EagerSTM(network, memory_frames=2)
    frames = scene((48, 64), 1)
    side.step(*next(frames))
    held = []
    for frame, _ in islice(frames, 3):
        side.step(frame)
        held.append(list(side._keys))
    assert [len(keys) for keys in held] == [1, 2, 2]
    assert held[2][0] is held[0][0]
    assert held[2][1] is not held[1][1]


def test_one_memory_frame_is_the_annotated_one(network):
    side = EagerSTM(network, memory_frames=1)
    frames = scene((48, 64), 1)
    side.step(*next(frames))
    for frame, _ in islice(frames, 3):
        side.step(frame)
    assert len(side._keys) == 1
    assert "memorize" not in side.timings


def test_checkpoint_of_another_network(network, tmp_path):
    save_checkpoint(tmp_path / "stm.safetensors", network)
    bundle = Bundle("stm", "fp32", graphs={}, config={**network.config, "key_dim": 32})
    with pytest.raises(InputError, match="found another network"):
        load_network(bundle, tmp_path / "stm.safetensors")
