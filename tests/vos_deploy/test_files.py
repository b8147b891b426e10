"""One order everywhere, nothing hidden, and files that appear whole or not at all."""

import errno
import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vos_deploy.errors import VosDeployError
from vos_deploy.files import entries, folders, natural_key, replacing, sha256, writing


@pytest.mark.parametrize(
    "names",
    [
        ["frame1", "frame2", "frame9", "frame10"],
        ["0.25", "0.5", "0.75", "1.0", "1.25"],
        ["0.0", "0.033", "0.066", "0.1", "10.5"],
        ["a", "a1", "a1b", "a2", "B3"],
        ["2024.01.09", "2024.01.10", "2024.02.01"],
        ["clip 9 frame 11", "clip 10 frame 2"],
        ["t-1.5", "t-1.75", "t-2"],
        ["01", "1", "2", "010"],
    ],
)
def test_natural_order(names, tmp_path):
    shuffled = random.Random(0).sample(names, len(names))
    assert sorted(shuffled, key=natural_key) == names
    for name in shuffled:
        (tmp_path / f"{name}.jpg").touch()
    assert [path.stem for path in entries(tmp_path, {".jpg"})] == names


@given(st.lists(st.decimals(0, 10**6, places=4), min_size=2, max_size=20, unique=True))
def test_decimals_sort_as_numbers(numbers):
    names = [f"t{format(number, 'f').rstrip('0')}0" for number in numbers]
    assert sorted(names, key=natural_key) == [name for _, name in sorted(zip(numbers, names))]  # noqa: B905


@given(st.lists(st.integers(0, 10**12), min_size=2, unique=True), st.text(max_size=5))
def test_whole_numbers_sort_as_numbers(numbers, text):
    prefix = text.rstrip("0123456789.") + "_"
    names = [f"{prefix}{number}" for number in numbers]
    expected = [f"{prefix}{number}" for number in sorted(numbers)]
    assert sorted(names, key=natural_key) == expected


@given(st.lists(st.text(max_size=12), min_size=2, unique=True), st.randoms())
def test_any_names_have_one_order(names, generator):
    shuffled = generator.sample(names, len(names))
    assert sorted(names, key=natural_key) == sorted(shuffled, key=natural_key)


def test_hidden_entries_and_other_suffixes_are_no_data(tmp_path):
    for name in ("2.JPG", "10.jpg", "1.Jpeg", "._2.jpg", ".x.jpg", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / "clip10").mkdir()
    (tmp_path / "clip2").mkdir()
    found = entries(tmp_path, {".jpg", ".jpeg"})
    assert [path.name for path in found] == ["1.Jpeg", "2.JPG", "10.jpg"]
    assert [path.name for path in folders(tmp_path)] == ["clip2", "clip10"]
    assert len(entries(tmp_path)) == 6
    assert entries(tmp_path / "nowhere") == []


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "result.json"
    with replacing(path) as temporary:
        temporary.write_text("half")
        assert temporary.suffix == ".json"
        assert not path.exists()
    assert path.read_text() == "half"
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("other")
        raise ZeroDivisionError
    assert [p.name for p in path.parent.iterdir()] == ["result.json"]
    assert path.read_text() == "half"


def test_what_is_in_the_way_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(VosDeployError, match="cannot write"), replacing(tmp_path / "file" / "x"):
        pass


def test_a_full_disk_is_called_that():
    with pytest.raises(VosDeployError, match="no room left on the disk for here"), writing("here"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256(tmp_path / "x") == hashlib.sha256(b"abc").hexdigest()
