"""The boxes and points a run is given on its command line: `1=40,30,200,160`, `2=70,80@25`."""

import argparse
import itertools
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vos_deploy.errors import InputError
from vos_deploy.files import replacing
from vos_deploy.palette import VOID
from vos_deploy.prompts import Prompt, PromptError, explain

logger = logging.getLogger(__name__)


KIND = "cut out by GrabCut"


@dataclass(frozen=True)
class PointedAt:
    """What a frame was given in place of a mask. index: which frame."""

    index: int
    prompts: tuple[Prompt, ...]

    def describe(self, labels: NDArray[np.uint8]) -> str:
        """What came of it, with the labels of the frame, uint8 [H, W]."""
        parts = [
            f"object {prompt.object_id} of {int((labels == prompt.object_id).sum())} pixels"
            for prompt in self.prompts
        ]
        return f"frame {self.index}: {KIND}: {', '.join(parts)}"


@dataclass(frozen=True)
class Part:
    """One box or point: of which frame and object, and its numbers."""

    frame: int
    object_id: int
    numbers: tuple[int, ...]


def add_prompt_arguments(parser: argparse.ArgumentParser) -> None:
    """`--box`, `--point` and `--not-point`."""
    group = parser.add_argument_group(
        "objects that are pointed at (in pixels, x to the right and y down; GrabCut cuts them out "
        "by their colours; ID= is the object, default 1, and @N the frame, default 0, the first)"
    )
    for option, numbers, help in (
        ("--box", 4, "an object within X,Y (its corner at the top left), WIDTH,HEIGHT"),
        ("--point", 2, "a point on an object"),
        ("--not-point", 2, "a point off an object"),
    ):
        group.add_argument(
            option,
            type=_part(numbers),
            action="append",
            default=[],
            metavar="[ID=]X,Y,W,H[@N]" if numbers == 4 else "[ID=]X,Y[@N]",
            help=f"{help}; give it several times for several",
        )


def given_prompts(args: argparse.Namespace) -> "GivenPrompts":
    """The prompts among parsed arguments."""
    return GivenPrompts(args.box, args.point, args.not_point)


class GivenPrompts:
    """Prompts by frame; what is said of one object in one frame is one prompt.

    given: how many frames were marked so far.
    """

    def __init__(
        self,
        boxes: Iterable[Part] = (),
        points: Iterable[Part] = (),
        not_points: Iterable[Part] = (),
    ) -> None:
        """Raises InputError for two boxes of one object in one frame."""
        self.given = 0
        self._at: dict[int, dict[int, Prompt]] = {}
        for part in boxes:
            prompt = self._prompt(part)
            if prompt.box is not None:
                raise InputError(
                    f"two boxes are given for object {part.object_id} in frame {part.frame}: "
                    "write other objects as --box 2=X,Y,W,H"
                )
            self._put(part, replace(prompt, box=part.numbers))
        for part in points:
            prompt = self._prompt(part)
            self._put(part, replace(prompt, points=(*prompt.points, part.numbers)))
        for part in not_points:
            prompt = self._prompt(part)
            self._put(part, replace(prompt, not_points=(*prompt.not_points, part.numbers)))

    def __bool__(self) -> bool:
        return bool(self._at)

    @property
    def frames(self) -> list[int]:
        """Numbers of the frames that something is given for."""
        return [*self._at]

    @property
    def about(self) -> dict[int, list[dict[str, Any]]]:
        """All of them by frame, for JSON."""
        return {
            frame: [asdict(prompt) for prompt in prompts.values()]
            for frame, prompts in self._at.items()
        }

    def of(self, index: int) -> PointedAt | None:
        """What a frame is given; None for nothing."""
        if index not in self._at:
            return None
        self.given += 1
        return PointedAt(index, tuple(self._at[index].values()))

    def warn_of_unused(self, frames: int) -> None:
        """Name the frames beyond the last that prompts were given for."""
        beyond = sorted(index for index in self._at if index >= frames)
        if beyond:
            logger.warning(
                "the video has %d frames, counted from 0: nothing was marked in frame %s",
                frames, ", ".join(map(str, beyond)),
            )  # fmt: skip

    def _prompt(self, part: Part) -> Prompt:
        return self._at.get(part.frame, {}).get(part.object_id, Prompt(part.object_id))

    def _put(self, part: Part, prompt: Prompt) -> None:
        self._at.setdefault(part.frame, {})[part.object_id] = prompt


def shown(error: PromptError, index: int, folder: Path) -> InputError:
    """Write the picture that shows why nothing was cut out in a frame; an error that names it."""
    path = folder / f"prompt_{index:05d}.png"
    for number in itertools.count(2):
        if not path.exists():
            break
        path = folder / f"prompt_{index:05d}_{number}.png"
    with replacing(path) as temporary:
        Image.fromarray(explain(error)).save(temporary, format="PNG")
    return InputError(f"frame {index}: {error}; {path} shows it")


def _part(count: int) -> Callable[[str], Part]:
    """`2=40,30@25`: an object, numbers and a frame, as the type of an argument."""
    numbers = ",".join([r"\s*(-?\d+)\s*"] * count)
    pattern = re.compile(rf"(?:(\d+)=)?{numbers}(?:@(\d+))?")
    example = "1=40,30,200,160" if count == 4 else "1=40,30"

    def part(text: str) -> Part:
        match = pattern.fullmatch(text)
        if match is None:
            raise argparse.ArgumentTypeError(
                f"must be whole numbers such as {example}, or {example}@25 for frame 25, "
                f"got {text!r}"
            )
        object_id, *found, frame = match.groups()
        if object_id is not None and not 0 < int(object_id) < VOID:
            raise argparse.ArgumentTypeError(f"object ids must be from 1 to 254, got {text!r}")
        return Part(int(frame or 0), int(object_id or 1), tuple(map(int, found)))

    return part
