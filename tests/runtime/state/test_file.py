"""Files that are no state of this model: one sentence each, and nothing is left open."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

import vos_deploy
from tests.runtime.scenes import SIZE, scene
from vos_deploy.errors import InputError, VosDeployError
from vos_deploy.runtime.state import file as state_file


@pytest.fixture
def saved(make_segmenter, tmp_path: Path) -> Path:
    path = tmp_path / "saved"
    segmenter = make_segmenter(memory_every=1)
    for index in range(3):
        frame, mask = scene({1: (0, index), 7: (2, 3)})
        segmenter.step(frame, None if index else mask)
    segmenter.save(path)
    return path


def rewritten(path: Path, **changes: Any) -> Path:
    """The file with other fields in its manifest and an honest digest; arrays by dotted name."""
    with safe_open(str(path), framework="numpy") as file:
        manifest = json.loads(file.metadata()["manifest"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, value in changes.items():
        if isinstance(value, np.ndarray):
            arrays[name] = value
        elif "." in name and value is None:
            del arrays[name]
        elif "." in name:
            manifest["values"][name] = value
        else:
            manifest[name] = value
    text = json.dumps(manifest)
    new = path.with_name("changed")
    save_file(arrays, str(new), {"manifest": text, "sha256": state_file._digest(text, arrays)})
    return new


def test_the_short_form(saved, make_model):
    with vos_deploy.Segmenter.load(saved, make_model(), threads=1) as segmenter:
        assert segmenter.objects == [1, 7]
        frame, expected = scene({1: (1, 1), 7: (0, 3)})
        assert np.array_equal(segmenter.step(frame), expected)
        with pytest.raises(InputError, match="the frame must be 48x64"):
            segmenter.step(np.zeros((32, 32, 3), np.uint8))


def test_nothing_to_save_yet(make_segmenter, tmp_path):
    with pytest.raises(InputError, match="no state to save before the first step"):
        make_segmenter().save(tmp_path / "state")


def test_files_hold_what_is_held_and_no_more(saved):
    """Two of eight memory frames: the room for the others is not written."""
    with safe_open(str(saved), framework="numpy") as file:
        keys = file.get_tensor("_tracker.banks.0.keys")
    assert len(keys) == 2 * 12  # two frames of 3 x 4 cells


@pytest.mark.parametrize("cut", [0, 4, 100, -1])
def test_truncated(saved, make_model, cut):
    saved.write_bytes(saved.read_bytes()[:cut])
    with pytest.raises(InputError, match="saved is not a complete state file"):
        vos_deploy.Segmenter.load(saved, make_model())


def test_a_flipped_bit(saved, make_model):
    content = bytearray(saved.read_bytes())
    content[-1000] ^= 1
    saved.write_bytes(content)
    with pytest.raises(InputError, match="saved is damaged: its contents are not what was saved"):
        vos_deploy.Segmenter.load(saved, make_model())


def test_other_files(tmp_path, make_model):
    with pytest.raises(InputError, match="no state at"):
        vos_deploy.Segmenter.load(tmp_path / "missing", make_model())
    save_file({"weight": np.zeros(3)}, str(tmp_path / "weights"))
    with pytest.raises(InputError, match="weights is not a vos_deploy state"):
        vos_deploy.Segmenter.load(tmp_path / "weights", make_model())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, r"a state of version 2, and 1 is what"),
        ({"method": "rde"}, r"is a state of 'rde', and .* a model of 'stm'"),
        ({"graphs": {"encoder": "0"}}, "another model than .*: its graphs differ"),
        ({"_tracker.banks.0.frames": 3}, "does not fit the model: .*banks.0.order|.*keys"),
        ({"_tracker.rows": "two"}, "does not fit the model"),
        ({"_tracker.image": np.zeros((4, 4, 3), np.uint8)}, r"image is uint8 \[4, 4, 3\], and not"),
        ({"_tracker.probabilities": None}, "_tracker.probabilities is missing"),
        ({"batches": [300]}, "it has 2 objects, and not 300"),
        ({"frame": [32, 32]}, "does not fit the model"),
    ],
)
def test_states_that_do_not_fit(saved, make_model, changes, message):
    with pytest.raises(InputError, match=message):
        vos_deploy.Segmenter.load(rewritten(saved, **changes), make_model(), threads=1)


def test_arguments_are_in_the_file(saved, make_model):
    with pytest.raises(InputError, match="top_k was saved with the state: do not give it again"):
        vos_deploy.Segmenter.load(saved, make_model(), top_k=3)


def test_a_folder_that_cannot_be_written(make_segmenter, tmp_path):
    segmenter = make_segmenter()
    segmenter.step(*scene({1: (0, 0)}, SIZE))
    (tmp_path / "file").write_text("")
    with pytest.raises(VosDeployError, match="cannot write"):
        segmenter.save(tmp_path / "file" / "state")


def test_a_full_disk(make_segmenter, monkeypatch, tmp_path):
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    segmenter = make_segmenter()
    segmenter.step(*scene({1: (0, 0)}))
    with pytest.raises(VosDeployError, match="no room left on the disk"):
        segmenter.save(tmp_path / "state")
