"""vos-deploy-run from end to end, on frames whose labels are known."""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from vos_deploy.masks import read_mask, write_mask
from vos_deploy.options import Options, option
from vos_deploy.runtime.run import command as run
from vos_deploy.runtime.segmenter import Segmenter
from vos_deploy.runtime.trackers.stm import STM

HEIGHT, WIDTH = 48, 64
COLOURS = {1: (200, 30, 30), 2: (30, 200, 30)}
FRAMES = 6


def expected(index: int, ids: tuple[int, ...]) -> np.ndarray:
    """Labels of frame `index`: object 1 moves right in the first row of cells, 2 in the second."""
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    for object_id in ids:
        column = 16 * (index % 4)
        labels[16 * object_id - 16 : 16 * object_id, column : column + 16] = object_id
    return labels


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A folder of frames, `f0.png` and on, with both objects in each."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for index in range(FRAMES):
        frame = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
        for object_id, colour in COLOURS.items():
            frame[expected(index, (object_id,)) > 0] = colour
        Image.fromarray(frame).save(folder / f"f{index}.png")
    return folder


@pytest.fixture
def command(make_model, clip: Path, tmp_path: Path):
    """Runs the command on the clip with further arguments; returns its exit code."""
    write_mask(tmp_path / "first.png", expected(0, (1, 2)))
    model = make_model()

    def call(*arguments: str | Path, mask: Path = tmp_path / "first.png") -> int:
        fixed = ["--engine", model, "--video", clip, "--mask", mask, "--output", tmp_path / "out"]
        return run.main([str(argument) for argument in [*fixed, *arguments, "--threads", 1]])

    return call


def written(tmp_path: Path) -> list[np.ndarray]:
    return [read_mask(path) for path in sorted((tmp_path / "out" / "masks").iterdir())]


def test_masks_and_overlay_are_written(command, tmp_path, capsys):
    assert command() == 0
    masks = written(tmp_path)
    assert len(masks) == FRAMES
    for index, labels in enumerate(masks):
        assert np.array_equal(labels, expected(index, (1, 2)))
    assert sorted(path.stem for path in (tmp_path / "out" / "masks").iterdir())[0] == "f0"
    video = cv2.VideoCapture(str(tmp_path / "out" / "overlay.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == FRAMES
    summary = capsys.readouterr().out
    assert f"{FRAMES} frames of 48x64" in summary
    table = summary.split("ms per frame")[1].split("\n\n")[0]
    stages = [line.split()[0] for line in table.splitlines()[1:]]
    assert stages == [
        "decode", "prepare", "memorize", "encoder", "memory_read", "decoder", "finish", "write",
        "end",
    ]  # fmt: skip
    assert str(tmp_path / "out" / "masks") in summary


def test_json(command, capsys):
    assert command("--json", "--frames", "4") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["frames"] == 4
    assert report["objects"] == 2
    assert report["stages"]["end to end"]["frames"] == 3
    assert report["memory"]["capacity"] == 16
    assert set(report["results"]) == {"masks", "overlay"}


def test_nothing_is_written_on_request(command, tmp_path):
    assert command("--no-masks", "--no-overlay") == 0
    assert not (tmp_path / "out").exists()


def test_chosen_objects(command, tmp_path):
    assert command("--objects", "2", "--no-overlay") == 0
    assert np.array_equal(written(tmp_path)[3], expected(3, (2,)))


def test_binary_mask(command, tmp_path):
    white = tmp_path / "white.png"
    write_mask(white, np.where(expected(0, (1,)) > 0, 255, 0).astype(np.uint8))
    assert command("--no-overlay", mask=white) == 2
    assert command("--no-overlay", "--binary-mask", mask=white) == 0
    assert np.array_equal(written(tmp_path)[3], expected(3, (1,)))


def test_binary_mask_that_is_black_on_white(command, tmp_path, capsys):
    white = tmp_path / "white.png"
    write_mask(white, np.where(expected(0, (1,)) > 0, 0, 255).astype(np.uint8))
    assert command("--no-overlay", "--binary-mask", mask=white) == 0
    assert "invert a mask that is black on white" in capsys.readouterr().err


def test_folder_of_masks_adds_objects_on_the_way(command, tmp_path, capsys):
    folder = tmp_path / "given"
    write_mask(folder / "f0.png", expected(0, (1,)))
    write_mask(folder / "f3.png", expected(3, (2,)))
    assert command("--no-overlay", mask=folder) == 0
    for index, labels in enumerate(written(tmp_path)):
        assert np.array_equal(labels, expected(index, (1, 2) if index >= 3 else (1,)))
    captured = capsys.readouterr()
    assert "2 masks used\n" in captured.out
    assert captured.err.count("taken for object ids") == 1


def test_chosen_objects_of_a_folder_of_masks(command, tmp_path):
    folder = tmp_path / "given"
    write_mask(folder / "f0.png", expected(0, (1,)))
    write_mask(folder / "f3.png", expected(3, (2,)))
    assert command("--no-overlay", "--objects", "1", mask=folder) == 0
    assert np.array_equal(written(tmp_path)[5], expected(5, (1,)))


def test_folder_without_first_mask_starts_where_an_object_is(command, tmp_path, capsys):
    write_mask(tmp_path / "given" / "f3.png", expected(3, (2,)))
    assert command(mask=tmp_path / "given") == 0
    for index, labels in enumerate(written(tmp_path)):
        assert np.array_equal(labels, expected(index, (2,) if index >= 3 else ()))
    assert "object 2: seen in 3 of 3 frames" in capsys.readouterr().out


def test_bad_mask_on_the_way_names_the_file_and_keeps_the_results(command, tmp_path, capsys):
    folder = tmp_path / "given"
    write_mask(folder / "f0.png", expected(0, (1,)))
    write_mask(folder / "f2.png", expected(2, (2,))[:, :-1])
    assert command(mask=folder) == 2
    error = capsys.readouterr().err
    assert "f2.png" in error
    assert "48x64, found 48x63" in error
    assert "Traceback" not in error
    assert len(written(tmp_path)) == 2
    video = cv2.VideoCapture(str(tmp_path / "out" / "overlay.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 2


def test_interrupt_keeps_results_and_reports(command, tmp_path, capsys, monkeypatch):
    step = Segmenter.step

    def interrupted(self, frame, mask=None, objects=None):
        if self.timings.get("memory_read"):
            raise KeyboardInterrupt
        return step(self, frame, mask, objects)

    monkeypatch.setattr(Segmenter, "step", interrupted)
    assert command() == 130
    captured = capsys.readouterr()
    assert "2 frames of 48x64" in captured.out
    assert "interrupted after 2 frames" in captured.err
    assert len(written(tmp_path)) == 2
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["state"] == "interrupted"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--engine", "nowhere"),
        ("--engine", "nowhere.plan"),
        ("--device", "tensorrt"),
        ("--video", "nowhere.mp4"),
        ("--mask", "nowhere.png"),
        ("--objects", "9"),
        ("--size", "8"),
    ],
)
def test_bad_input_is_one_sentence(command, capsys, tmp_path, arguments):
    assert command(*arguments) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if "memory: " not in line]
    assert error.startswith("error: ")
    assert not (tmp_path / "out" / "overlay.mp4").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--frames", "0"),
        ("--threads", "none"),
        ("--memory-frames", "0"),
        ("--size", "48by64"),
        ("--objects", "one"),
        ("--device", "abacus"),
    ],
)
def test_wrong_usage(command, capsys, arguments):
    assert command(*arguments) == 2
    assert arguments[0] in capsys.readouterr().err


def test_plan_that_is_missing_beside_its_folder(command, tmp_path, capsys):
    assert command("--engine", tmp_path / "model.plan") == 2
    build = f"vos-deploy-build {tmp_path}/model/ --output {tmp_path}/model.plan"
    assert f"build it from the model folder beside it with: {build}" in capsys.readouterr().err


def test_settings_reach_the_segmenter(command, monkeypatch, capsys):
    given = {}
    create = Segmenter.__init__

    def recording(self, model=None, **arguments):
        given.update(arguments)
        create(self, model, **arguments)

    monkeypatch.setattr(Segmenter, "__init__", recording)
    assert command("--memory-frames", "unlimited", "--memory-every", "2", "--size", "32x48") == 0
    assert given["memory_frames"] == "unlimited"
    assert given["memory_every"] == 2
    assert given["size"] == (32, 48)
    assert "bank 6/unlimited frames" in capsys.readouterr().out


def test_methods_declare_their_options(command, monkeypatch, capsys):
    given = {}

    @dataclass(frozen=True)
    class TunedOptions(Options):
        top_k: int = option(50, "memory tokens read per pixel")
        mode: str = option("update", "what is memorised", choices=("update", "query"))
        fast: bool = option(False, "skip")

    class Tuned(STM):
        option_type = TunedOptions

        def __init__(self, backend, size, policy, options):
            given.update(vars(options))
            super().__init__(backend, size, policy, options)

    monkeypatch.setattr("vos_deploy.runtime.trackers.stm.TRACKER", Tuned)
    assert command("--top-k", "3", "--fast", "--frames", "2") == 0
    assert given == {"top_k": 3, "mode": "update", "fast": True}
    assert command("--mode", "nonsense") == 2
    with pytest.raises(SystemExit):
        run.main(["--help"])
    help = " ".join(capsys.readouterr().out.split())
    assert "stm: memory tokens read per pixel" in help
    assert "(default: stm 50, " in help
