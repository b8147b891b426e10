"""Tensors are read out of files with classes in them, and none of their code runs."""

from __future__ import annotations

import pickle
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from vos_deploy.models.restricted import Placeholder, load_tensors  # noqa: E402

CALLS: list[str] = []


class Meter:
    """Stands for a class of somebody's repository."""

    def __init__(self) -> None:
        self.average, self.history = 0.5, [1.0, 2.0]

    def __setstate__(self, state: dict[str, Any]) -> None:
        CALLS.append("state")
        self.__dict__.update(state)


class Trap:
    def __reduce__(self) -> Any:
        return CALLS.append, ("called",)


class Shell:
    def __reduce__(self) -> Any:
        import os

        return os.system, ("true",)


def release() -> dict[str, Any]:
    stats: Any = defaultdict(Meter)
    stats["loss"] = Meter()
    return {
        "name": "run",
        "epoch": 260,
        "stats": stats,
        "model": OrderedDict(weight=torch.arange(6.0).view(2, 3), steps=torch.tensor(3)),
    }


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_are_read_and_objects_are_not(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "w.pth"
    torch.save(release(), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    CALLS.clear()
    content = load_tensors(path)
    assert torch.equal(content["model"]["weight"], release()["model"]["weight"])
    assert (content["name"], content["epoch"]) == ("run", 260)
    assert isinstance(content["stats"]["loss"], Placeholder)
    assert not vars(content["stats"]["loss"])
    assert not CALLS


@pytest.mark.parametrize("zipped", [True, False])
def test_no_function_of_the_file_is_called(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "w.pth"
    torch.save({"model": {}, "x": Trap()}, path, _use_new_zipfile_serialization=zipped)
    CALLS.clear()
    try:
        content = load_tensors(path)
    except (pickle.UnpicklingError, AttributeError):
        content = None
    assert not CALLS
    assert content is None or isinstance(content["x"], Placeholder)


def test_modules_that_touch_the_system_are_refused(tmp_path: Path) -> None:
    torch.save({"model": {}, "x": Shell()}, tmp_path / "w.pth")
    with pytest.raises(pickle.UnpicklingError, match="blocked"):
        load_tensors(tmp_path / "w.pth")


def test_state_of_the_reader_is_left_as_it_was(tmp_path: Path) -> None:
    torch.save(release(), tmp_path / "w.pth")
    load_tensors(tmp_path / "w.pth")
    assert not any(
        item is Placeholder or (isinstance(item, tuple) and item[0] is Placeholder)
        for item in torch.serialization.get_safe_globals()
    )
