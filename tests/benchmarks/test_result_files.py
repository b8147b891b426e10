"""Results as other programs leave them: the right number, or one sentence."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from vos_deploy.benchmarks.davis import find_clips
from vos_deploy.benchmarks.jf import score_results
from vos_deploy.benchmarks.scores import overall
from vos_deploy.errors import InputError
from vos_deploy.masks import read_mask, write_mask
from vos_deploy.palette import PALETTE


@pytest.fixture
def davis(make_davis):
    return make_davis({"cat": [1], "pair": [1, 2]})


def clips_of(davis, year=2017):
    return find_clips(davis, year)


def save_results(clips, folder, change=lambda labels: Image.fromarray(labels), name="{}.png"):
    """Perfect results, each as `change` makes it a picture."""
    for clip in clips:
        for path in clip.annotations:
            file = folder / clip.name / name.format(path.stem, int(path.stem))
            file.parent.mkdir(parents=True, exist_ok=True)
            change(read_mask(path)).save(file)
    return folder


def white(labels):
    return Image.fromarray((labels > 0).astype(np.uint8) * 255)


def soft(labels):
    return white(labels).filter(ImageFilter.GaussianBlur(1))


def rgb(labels):
    return Image.fromarray(PALETTE[labels])


def perfect(clips, folder):
    return overall(score_results(clips, folder)).mean == 1


@pytest.mark.parametrize("name", ["{0}.png", "{0}.PNG", "{1}.png", "frame_{1}.png", "{1:03}.Png"])
def test_names_are_matched_by_number(davis, tmp_path, name):
    clips = clips_of(davis)
    assert perfect(clips, save_results(clips, tmp_path / "results", name=name))


@pytest.mark.parametrize("year", [2016, 2017])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_coloured_results(davis, tmp_path, year, mode):
    clips = clips_of(davis, year)
    folder = save_results(clips, tmp_path / "results", lambda labels: rgb(labels).convert(mode))
    assert perfect(clips, folder)


@pytest.mark.parametrize("change", [white, lambda labels: white(labels).convert("LA")])
def test_black_and_white_results(davis, tmp_path, change):
    folder = save_results(clips_of(davis), tmp_path / "results", change)
    assert perfect(clips_of(davis, 2016), folder)
    with pytest.raises(InputError, match=r"white on black.*--year 2016"):
        score_results(clips_of(davis), folder)


def test_soft_results_are_thresholded_with_a_warning(davis, tmp_path, caplog):
    folder = save_results(clips_of(davis), tmp_path / "results", soft)
    assert overall(score_results(clips_of(davis, 2016), folder)).mean > 0.9
    assert [m for m in caplog.messages if "3 of the 3 results of cat are grey" in m]
    with pytest.raises(InputError, match=r"soft edges|white on black"):
        score_results(clips_of(davis), folder)


def test_the_sequences_that_are_whole_are_named(davis, tmp_path):
    clips = clips_of(davis)
    folder = save_results(clips, tmp_path / "results")
    (folder / "cat" / "00002.png").unlink()
    with pytest.raises(InputError, match=r"1 of them are missing, .*2.png: .* --sequences pair$"):
        score_results(clips, folder)
    (folder / "pair" / "00003.png").unlink()
    with pytest.raises(InputError, match="results lie in a folder per sequence"):
        score_results(clips, folder)
    with pytest.raises(InputError, match="no folder of results"):
        score_results(clips, tmp_path / "nowhere")


def test_masks_saved_as_jpeg_are_named(davis, tmp_path):
    clips = clips_of(davis)
    folder = save_results(clips, tmp_path / "results")
    (folder / "cat" / "00002.png").rename(folder / "cat" / "00002.jpg")
    with pytest.raises(InputError, match=r"00002.jpg is a JPEG, which changes ids: save .* PNG"):
        score_results(clips, folder)


def test_first_and_last_may_be_missing(davis, tmp_path):
    clips = clips_of(davis)
    folder = save_results(clips, tmp_path / "results")
    for clip in clips:
        (folder / clip.name / "00000.png").unlink()
        (folder / clip.name / "00004.png").unlink()
    assert perfect(clips, folder)


def test_two_results_of_one_frame(davis, tmp_path):
    clips = clips_of(davis)
    folder = save_results(clips, tmp_path / "results")
    write_mask(folder / "cat" / "1.png", read_mask(folder / "cat" / "00001.png"))
    with pytest.raises(InputError, match="results of one frame: keep one"):
        score_results(clips, folder)


def test_empty_results_deserve_a_remark(davis, tmp_path, caplog):
    folder = save_results(
        clips_of(davis), tmp_path / "results", lambda labels: Image.fromarray(0 * labels)
    )
    score_results(clips_of(davis), folder)
    assert sum("show no object" in message for message in caplog.messages) == 2


@pytest.mark.parametrize("factor", [2, 0.5])
def test_another_size(davis, tmp_path, factor):
    def resized(labels):
        size = [int(side * factor) for side in labels.shape[::-1]]
        return Image.fromarray(labels).resize(size, Image.Resampling.NEAREST)

    folder = save_results(clips_of(davis), tmp_path / "results", resized)
    with pytest.raises(InputError, match=r"expected the result for cat/00001.png at 24x32, found"):
        score_results(clips_of(davis), folder)


def test_masks_of_davis_2016_have_no_ids(davis, tmp_path):
    clips = clips_of(davis)
    for clip in clips:
        for path in clip.annotations:
            white(read_mask(path)).save(path)
    with pytest.raises(InputError, match="as the masks of DAVIS 2016 do: give --year 2016"):
        score_results(clips, save_results(clips, tmp_path / "results"))
