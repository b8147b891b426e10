"""G-FRTM in PyTorch does what the runtime does, and the benchmark of reuse measures both ways."""

from __future__ import annotations

import argparse
from itertools import islice

import numpy as np
import pytest

from vos_deploy.benchmarks import reuse
from vos_deploy.benchmarks.scene import scene
from vos_deploy.errors import InputError

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from tests import gfrtm  # noqa: E402
from vos_deploy.benchmarks.eager_gfrtm import EagerGFRTM  # noqa: E402
from vos_deploy.bundle import Bundle  # noqa: E402
from vos_deploy.runtime.segmenter import Segmenter  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("threshold", [-1.0, 1.0])
def test_results_are_those_of_the_runtime(threshold):
    options = {"reuse_threshold": threshold, "update_every": 2}
    eager = EagerGFRTM(gfrtm.network(), **options)
    with Segmenter(gfrtm.exported(), threads=1, **options) as segmenter:
        for index, (frame, mask) in enumerate(islice(scene((64, 90), 2), 5)):
            drawn = None if index else mask
            labels, expected = eager.step(frame, drawn), segmenter.step(frame, drawn)
            assert (labels != expected).mean() < 2e-3
            # Where two objects are as sure as each other, either may keep the pixel.
            close = np.abs(eager.probabilities[0].numpy() - segmenter.probabilities[1:]) < 1e-2
            assert close.mean() > 0.99
        runs = segmenter.timings.keys() - {"prepare", "finish"}
    assert set(eager.timings) == runs


def test_reuse_is_timed_beside_computing():
    options = {"size": (48, 64), "threads": 1}
    rows, saved = reuse.measure(Bundle.load(gfrtm.exported()), options, 1, 3)
    times = {row["work"]: row for row in rows}
    assert times["reused frame"]["samples"] == 3
    assert all(row["p50 ms"] > 0 for row in rows)
    assert saved < 1


def test_reuse_wants_a_model_with_a_gate():
    parser = argparse.ArgumentParser()
    reuse.add_arguments(parser)
    from vos_deploy.bundle import demonstration_model

    arguments = parser.parse_args(["--model", str(demonstration_model())])
    with pytest.raises(InputError, match="no reuse gate"):
        reuse.run(arguments)
