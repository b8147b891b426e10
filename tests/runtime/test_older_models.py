"""Models written by the version before load, and give the same labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError
from vos_deploy.runtime.options import configure
from vos_deploy.runtime.run.command import parser
from vos_deploy.runtime.segmenter import Segmenter
from vos_deploy.runtime.trackers.rde import RDE

# The manifest of the demonstration model as it was.
OLD = Path(__file__).parents[1] / "vos_deploy/data/manifest_version_1.json"


def test_folder(make_model: Any, tmp_path: Path) -> None:
    """The graphs are the small ones that follow colours, all else is of the old manifest."""
    folder = make_model()
    new, old = json.loads((folder / "manifest.json").read_text()), json.loads(OLD.read_text())
    assert old["version"] == 1 and old.keys() == new.keys()
    graphs = {"graphs": new["graphs"], "short_side": None}
    (folder / "manifest.json").write_text(json.dumps({**old, **graphs}))
    bundle = Bundle.load(folder)
    assert bundle.config == old["config"] and bundle.path == folder
    frames = [np.full((32, 48, 3), 40, np.uint8) for _ in range(4)]
    for t, frame in enumerate(frames):
        frame[16:, 16 * (t % 3) : 16 * (t % 3) + 16] = 200
    mask = (frames[0][..., 0] == 200).astype(np.uint8)
    with Segmenter(folder, threads=1) as segmenter:
        labels = [segmenter.step(frames[0], mask), *map(segmenter.step, frames[1:])]
        assert str(segmenter.memory).startswith(f"bank 2/{old['memory']['frames']} frames")
    for frame, found in zip(frames, labels, strict=True):
        assert np.array_equal(found, frame[..., 0] == 200)


def test_graphs_of_the_old_manifest() -> None:
    """The tensors of the four graphs are those that the tracker asks for."""
    old = json.loads(OLD.read_text())
    names = {name: [o["name"] for o in graph["outputs"]] for name, graph in old["graphs"].items()}
    assert names["encoder"] == ["query_key", "query_value", "skip8", "skip4"]
    assert names["memorize"] == ["memory_key", "memory_value"]


def test_old_spelling_of_a_mode() -> None:
    assert configure(RDE, {"mode": "stm"}) == configure(RDE, {"mode": "all-frames"})
    given = parser().parse_args(["--video", "v", "--mask", "m", "--mode", "stm"])
    assert given.mode == "all-frames"
    with pytest.raises(InputError, match="mode must be one of two-frames-compress"):
        configure(RDE, {"mode": "stn"})
