"""What a model is measured beside: any program that reads frames and writes masks."""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from vos_deploy.commands import progress
from vos_deploy.errors import InputError

from .davis import Clip
from .result_files import find_results, read_results
from .scores import ClipScore, score_clip
from .spent import Spent

PLACES = ("frames", "mask", "output")
SHOWN = 300  # characters of what a program that failed said last


def check_command(command: str) -> None:
    """Raise InputError for a command that does not say where frames, mask and results go."""
    for place in PLACES:
        if f"{{{place}}}" not in command:
            raise InputError(
                f"expected {{frames}}, {{mask}} and {{output}} in the command, {{{place}}} is "
                f"missing in {command!r}"
            )


def score_command(clips: Sequence[Clip], command: str) -> tuple[list[ClipScore], dict[str, Spent]]:
    """Runs a command once for each clip; scores, and what it took by clip, its start included.

    command: words as a shell would split them, in which {frames} is the folder of the clip's
    frames, {mask} the annotation of the first, and {output} the folder for a PNG of object ids per
    frame, of the frame's name. Raises InputError where it fails, or writes too few.
    """
    check_command(command)
    spent: dict[str, Spent] = {}
    scores = []
    with tempfile.TemporaryDirectory() as scratch:
        for clip in progress(clips, unit="clip"):
            output = Path(scratch) / clip.name
            output.mkdir()
            places = {"frames": clip.frames, "mask": clip.annotations[0], "output": output}
            started = Spent.now()
            _run([_filled(word, places) for word in shlex.split(command)])
            spent[clip.name] = Spent.now() - started
            files = find_results([clip], Path(scratch))[clip.name]
            scores.append(score_clip(clip, read_results(clip, files)))
    return scores, spent


def _filled(word: str, places: dict[str, Path]) -> str:
    # Not str.format: other braces are the command's own.
    for name, path in places.items():
        word = word.replace(f"{{{name}}}", str(path))
    return word


def _run(words: list[str]) -> None:
    try:
        ended = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError as error:
        raise InputError(f"cannot run {words[0]}: {error.strerror}") from error
    if ended.returncode:
        raise InputError(
            f"{words[0]} ended with exit code {ended.returncode}: {ended.stderr[-SHOWN:].strip()}"
        )
