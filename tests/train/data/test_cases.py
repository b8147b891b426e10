"""Training data that people reported trouble with; the files lie beside the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

from vos_deploy.train.data.check import main
from vos_deploy.train.data.files import BadFiles, read_pair
from vos_deploy.train.data.layouts import find_videos

CASES = Path(__file__).parents[3].parent / "shared" / "cases"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="the files are not here")


@pytest.mark.parametrize(
    "case", ["train_appledouble", "train_fullres", "train_png_frames", "train_upper_JPG"]
)
def test_all_frames_are_read(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    bad = BadFiles()
    (video,) = find_videos(CASES / case, "davis", 3, bad)
    assert [image.stem for image, _ in video.frames] == [f"{i:05d}" for i in range(6)]
    assert not bad.found
    assert all(read_pair(*pair)[1].max() == 1 for pair in video.frames)
    assert main(["--davis", str(CASES / case), "--read"]) == 0
    assert "1 videos, 6 annotated frames, 6 good" in capsys.readouterr().out
