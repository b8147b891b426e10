"""Where the sequences are, and what the ids of their masks mean."""

import numpy as np
import pytest
from PIL import Image

from vos_deploy.benchmarks.davis import find_clips
from vos_deploy.errors import InputError


def names(clips):
    return [clip.name for clip in clips]


def test_folders_without_image_sets(make_davis):
    clips = find_clips(make_davis({"dog": [1], "cat": [1]}))
    assert names(clips) == ["cat", "dog"]
    assert [path.name for path in clips[0].annotations] == [f"{i:05d}.png" for i in range(5)]


def test_first_and_last_frames_do_not_count(make_davis):
    (clip,) = find_clips(make_davis({"cat": [1]}))
    assert [path.stem for path in clip.scored] == ["00001", "00002", "00003"]


def test_another_resolution_is_named(make_davis):
    root = make_davis({"cat": [1]}, level="Full-Resolution")
    with pytest.raises(InputError, match="give --resolution Full-Resolution"):
        find_clips(root)
    assert names(find_clips(root, resolution="Full-Resolution")) == ["cat"]


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".Png"])
def test_natural_order_without_hidden_entries(make_davis, suffix):
    root = make_davis({"clip10": [1], "clip9": [1]})
    for folder in (root / "Annotations" / "480p").iterdir():
        for number, path in enumerate(sorted(folder.iterdir()), start=7):
            path.rename(folder / f"{number}{suffix}")  # 7 to 11
        (folder / f"._8{suffix}").write_bytes(b"of another program")
    (root / "Annotations" / "480p" / ".ipynb_checkpoints").mkdir()
    clips = find_clips(root)
    assert names(clips) == ["clip9", "clip10"]
    assert [path.stem for path in clips[0].scored] == ["8", "9", "10"]


@pytest.mark.parametrize("file", ["2017/val.txt", "480p/val.txt"])
def test_list_of_names_gives_the_order(make_davis, file):
    root = make_davis({"cat": [1], "dog": [1], "owl": [1]}, lists={file: ["owl", "cat", ""]})
    assert names(find_clips(root, 2017)) == ["owl", "cat"]


def test_list_of_frames_as_first_released(make_davis):
    lines = [
        f"/JPEGImages/480p/{name}/{i:05d}.jpg /Annotations/480p/{name}/{i:05d}.png"
        for name in ("owl", "cat")
        for i in range(5)
    ]
    root = make_davis({"cat": [1], "dog": [1], "owl": [1]}, lists={"480p/val.txt": lines})
    assert names(find_clips(root, 2016)) == ["owl", "cat"]


def test_each_year_has_its_list(make_davis):
    lists = {"2016/val.txt": ["cat"], "2017/val.txt": ["dog"], "2017/train.txt": ["owl"]}
    root = make_davis({"cat": [1], "dog": [1], "owl": [1]}, lists=lists)
    assert names(find_clips(root, 2016)) == ["cat"]
    assert names(find_clips(root, 2017)) == ["dog"]
    assert names(find_clips(root, 2017, "train")) == ["owl"]


def test_names_are_taken_as_given(make_davis):
    root = make_davis({"cat": [1], "dog": [1]}, lists={"2016/val.txt": ["cat"]})
    assert names(find_clips(root, names=["dog", "cat"])) == ["dog", "cat"]


@pytest.mark.parametrize("level", ["", "480p", "1080p"])
def test_resolution_level(make_davis, level):
    (clip,) = find_clips(make_davis({"cat": [1]}, level=level), resolution=level or "480p")
    assert clip.annotations[0].is_file()
    assert (clip.frames / "00000.jpg").is_file()


def test_2016_merges_all_ids(make_davis, boxes):
    (clip,) = find_clips(make_davis({"pair": [1, 3]}), 2016)
    np.testing.assert_array_equal(clip.labels(clip.annotations[0]), boxes(0, [1, 3]) > 0)
    assert clip.objects() == [1]


def test_2016_reads_0_255(make_davis, boxes):
    (clip,) = find_clips(make_davis({"cat": [1]}), 2016)
    Image.fromarray(boxes(0) * 255).save(clip.annotations[0])
    np.testing.assert_array_equal(clip.labels(clip.annotations[0]), boxes(0))


def test_2017_keeps_ids(make_davis, boxes):
    (clip,) = find_clips(make_davis({"pair": [1, 3]}), 2017)
    np.testing.assert_array_equal(clip.labels(clip.annotations[2]), boxes(2, [1, 3]))
    assert clip.objects() == [1, 3]


def test_void_is_no_object(make_davis):
    (clip,) = find_clips(make_davis({"pair": [2, 255]}), 2017)
    assert clip.objects() == [2]


def test_not_a_davis_folder(tmp_path):
    with pytest.raises(InputError, match="Annotations/480p"):
        find_clips(tmp_path / "nowhere")


def test_no_sequences(tmp_path):
    (tmp_path / "Annotations" / "480p").mkdir(parents=True)
    with pytest.raises(InputError, match="one folder per sequence"):
        find_clips(tmp_path)


def test_unknown_set_names_those_there_are(make_davis):
    root = make_davis({"cat": [1]}, lists={"2016/val.txt": ["cat"]})
    with pytest.raises(InputError, match=r"2017/val\.txt, found 2016/val\.txt"):
        find_clips(root, 2017)


def test_unknown_sequence(make_davis):
    with pytest.raises(InputError, match="annotations of ape"):
        find_clips(make_davis({"cat": [1]}), names=["ape"])


def test_clip_with_its_first_frame_annotated_only(make_davis):
    root = make_davis({"cat": [1]})
    for path in sorted((root / "Annotations/480p/cat").iterdir())[1:]:
        path.unlink()
    with pytest.raises(InputError, match="test set"):
        find_clips(root)


def test_first_annotation_without_an_object(make_davis):
    (clip,) = find_clips(make_davis({"cat": []}))
    with pytest.raises(InputError, match="at least one object"):
        clip.objects()
