"""Objects that are pointed at: through Segmenter, and on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vos_deploy import Prompt
from vos_deploy.errors import InputError
from vos_deploy.masks import read_mask
from vos_deploy.prompts import PromptError, mask_of
from vos_deploy.runtime.run import command as run
from vos_deploy.runtime.run.given_prompts import add_prompt_arguments, given_prompts

from .conftest import MakeSegmenter

HEIGHT, WIDTH = 48, 64
COLOURS = {1: (200, 30, 30), 2: (30, 200, 30)}


def scene(index: int) -> np.ndarray:
    """Two squares of 16 pixels on grey; they move right from cell to cell."""
    frame = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    for object_id, colour in COLOURS.items():
        frame[truth(index) == object_id] = colour
    return frame


def truth(index: int) -> np.ndarray:
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    column = 16 + 16 * (index % 3)
    for object_id in COLOURS:
        labels[16 * object_id - 16 : 16 * object_id, column : column + 16] = object_id
    return labels


def only(labels: np.ndarray, object_id: int) -> np.ndarray:
    return np.where(labels == object_id, object_id, 0)


def test_step_takes_prompts(make_segmenter: MakeSegmenter) -> None:
    segmenter = make_segmenter()
    labels = segmenter.step(scene(0), prompts=[Prompt(1, box=(12, 0, 24, 18))])
    np.testing.assert_array_equal(labels, only(truth(0), 1))
    np.testing.assert_array_equal(segmenter.step(scene(1)), only(truth(1), 1))
    # A later prompt adds.
    labels = segmenter.step(scene(2), prompts=[Prompt(2, points=[(56, 24)])])
    np.testing.assert_array_equal(labels, truth(2))
    np.testing.assert_array_equal(segmenter.step(scene(3)), truth(3))


def test_prompts_do_what_their_mask_does(make_segmenter: MakeSegmenter) -> None:
    prompts = [Prompt(1, box=(12, 0, 24, 18)), Prompt(2, box=(12, 14, 24, 20))]
    pointed, drawn = make_segmenter(), make_segmenter()
    for segmenter, arguments in (
        (pointed, {"prompts": prompts}),
        (drawn, {"mask": mask_of(scene(0), prompts)}),
    ):
        segmenter.step(scene(0), **arguments)
        segmenter.step(scene(1))
    np.testing.assert_array_equal(pointed.probabilities, drawn.probabilities)


@pytest.mark.parametrize("more", [{"mask": truth(0)}, {"objects": [1]}])
def test_prompts_beside_a_mask(make_segmenter: MakeSegmenter, more: dict[str, object]) -> None:
    with pytest.raises(InputError, match="a mask or prompts in a step, not both"):
        make_segmenter().step(scene(0), prompts=[Prompt(1, box=(12, 0, 24, 18))], **more)


def test_a_prompt_that_fails_changes_nothing(make_segmenter: MakeSegmenter) -> None:
    segmenter = make_segmenter()
    segmenter.step(scene(0), truth(0))
    with pytest.raises(PromptError):
        segmenter.step(scene(1), prompts=[Prompt(3, box=(0, 34, 30, 12))])
    assert segmenter.objects == [1, 2]
    np.testing.assert_array_equal(segmenter.step(scene(1)), truth(1))


def test_marking_the_last_frame_is_as_if_its_step_had_the_mask(
    make_segmenter: MakeSegmenter,
) -> None:
    """Of a size that is resized, and of one that is not."""
    for size in (None, (32, 48)):
        marked, stepped = make_segmenter(size=size), make_segmenter(size=size)
        for segmenter in (marked, stepped):
            segmenter.step(scene(0), only(truth(0), 1))
        marked.step(scene(1))
        labels = marked.mark(truth(1), [2])
        np.testing.assert_array_equal(labels, stepped.step(scene(1), truth(1), [2]))
        for index in (2, 3):
            np.testing.assert_array_equal(marked.step(scene(index)), stepped.step(scene(index)))
        np.testing.assert_array_equal(marked.probabilities, stepped.probabilities)


def test_what_cannot_be_marked(make_segmenter: MakeSegmenter) -> None:
    segmenter = make_segmenter()
    with pytest.raises(InputError, match="no frame to mark yet"):
        segmenter.mark(truth(0))
    segmenter.step(scene(0), truth(0))
    with pytest.raises(InputError, match="48x64, found 48x63"):
        segmenter.mark(truth(0)[:, 1:])
    with pytest.raises(InputError, match="ids of the mask"):
        segmenter.mark(truth(0), [3])


def parsed(*arguments: str):
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_prompt_arguments(parser)
    return given_prompts(parser.parse_args(arguments))


def test_arguments_of_one_object_and_frame_are_one_prompt() -> None:
    given = parsed(
        "--box", "1,2,30,40", "--box=2=5,6,70,80@3", "--point", "1=4,5", "--point=6,7",
        "--not-point", "2=8,9@3",
    )  # fmt: skip
    first, later = given.of(0), given.of(3)
    assert first is not None and later is not None and given.of(1) is None
    assert first.prompts == (Prompt(1, (1, 2, 30, 40), ((4, 5), (6, 7))),)
    assert later.prompts == (Prompt(2, (5, 6, 70, 80), not_points=((8, 9),)),)
    assert given.given == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("--box", "1,2,3"),
        ("--box", "1=2,3,4,5,6"),
        ("--box", "a=1,2,3,4"),
        ("--box", "0=1,2,3,4"),
        ("--box", "255=1,2,3,4"),
        ("--box", "1,2,3,4@-1"),
        ("--point", "1"),
        ("--point", "1.5,2"),
        ("--not-point", ""),
    ],
)
def test_arguments_that_are_none(arguments: tuple[str, ...]) -> None:
    with pytest.raises(argparse.ArgumentError, match="must be"):
        parsed(*arguments)


def test_two_boxes_of_one_object() -> None:
    with pytest.raises(InputError, match="two boxes are given for object 1 in frame 0"):
        parsed("--box", "1,2,30,40", "--box", "5,6,30,40")


@pytest.fixture
def command(make_model, tmp_path: Path):
    """Runs the command on six frames of the scene, without a mask; returns its exit code."""
    folder, model = tmp_path / "frames", make_model()
    folder.mkdir()
    for index in range(6):
        Image.fromarray(scene(index)).save(folder / f"{index}.png")

    def call(*arguments: str) -> int:
        fixed = ["--model", str(model), "--video", str(folder), "--output", str(tmp_path / "out")]
        return run.main([*fixed, *arguments, "--no-overlay", "--threads", "1"])

    return call


def test_a_run_without_a_mask(command, tmp_path, capsys) -> None:
    assert command("--box", "12,0,24,18", "--box", "2=44,14,20,20@2") == 0
    for index in range(6):
        expected = truth(index) if index >= 2 else only(truth(index), 1)
        found = read_mask(tmp_path / "out" / "masks" / f"{index}.png")
        np.testing.assert_array_equal(found, expected)
    captured = capsys.readouterr()
    assert "frame 0: cut out by GrabCut: object 1 of 256 pixels" in captured.err
    assert "2 masks used" in captured.out


def test_a_failure_is_shown(command, tmp_path, capsys) -> None:
    for name in ("prompt_00000.png", "prompt_00000_2.png"):  # nothing is written over
        assert command("--box", "40,40,30,30") == 2
        memory, error = capsys.readouterr().err.splitlines(keepends=True)
        assert memory.startswith("memory: ")
        assert error.startswith("error: frame 0: object 1 has a box 40,40,30,30 that reaches")
        assert len(error.splitlines()) == 1
        picture = tmp_path / "out" / name
        assert f"; {picture} shows it" in error
        assert Image.open(picture).size > (WIDTH, HEIGHT)
    assert not (tmp_path / "out" / "masks").exists()


def test_a_later_failure_keeps_the_results(command, tmp_path, capsys) -> None:
    assert command("--point", "20,8", "--box", "2=0,34,30,12@4") == 2
    assert "error: frame 4: object 2 " in capsys.readouterr().err
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 4


def test_a_mask_and_a_box_of_one_frame(command, tmp_path, capsys) -> None:
    Image.fromarray(truth(0)).save(tmp_path / "first.png")
    mask = ("--mask", str(tmp_path / "first.png"))
    assert command(*mask, "--box", "12,0,24,18") == 2
    assert "keep one of the two" in capsys.readouterr().err
    assert command(*mask, "--box", "3=0,36,20,10@9") == 0
    assert "has 6 frames, counted from 0: nothing was marked in frame 9" in capsys.readouterr().err


def test_neither_mask_nor_prompt(command, capsys) -> None:
    assert command() == 2
    assert "--box" in capsys.readouterr().err
