"""Folders of results: no input is overwritten, and nothing of an older run stays among a new one's.

A small record beside the results, `run.json`, says which run they are of, and what it wrote:

    results = ResultFolder("out", ("masks", "overlay.mp4"))
    results.keep_apart({"--video": "in.mp4", "--mask": "first.png"})
    results.start({"video": "in.mp4"})   # now the older run's files go
    ...
    results.finish("finished")
"""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .errors import InputError
from .files import replacing

RECORD = "run.json"
FORMAT = "vos_deploy results 1"
# What `files.replacing` calls a file that is not whole yet.
UNFINISHED = re.compile(r"\..+\.\d+(\.\w+)?")

Paths = Mapping[str, str | Path | None]


def keep_apart(reads: Paths, writes: Sequence[str | Path]) -> None:
    """Refuse to write where something is read. Links are followed.

    Args:
        reads: option or name -> file or folder that is read; None and what is not there (a camera,
            a stream) are passed over.
        writes: files to write, and folders to write files into.

    Raises:
        InputError: one of `writes` is one of `reads`, holds it or lies directly in it.
    """
    for name, given in reads.items():
        if given is None or not _exists(given):
            continue
        read = Path(given).resolve()
        for target in writes:
            written = Path(target).resolve()
            if written == read or _same_file(written, read) or written in read.parents:
                raise InputError(
                    f"{target} would be written over {name} {given}: choose another --output"
                )
            if read.is_dir() and written.parent == read:
                raise InputError(
                    f"{target} would lie among what {name} {given} is read from: "
                    "choose another --output"
                )


def _exists(path: str | Path) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # a URL that is no possible name
        return False


def _same_file(a: Path, b: Path) -> bool:
    """Whether two names are one file on disk, a hard link for one."""
    return a.exists() and a.samefile(b)


class ResultFolder:
    """What a run writes into a folder, and the record of it.

    Args:
        folder: where; made when something is written.
        names: the files and folders in it that the run writes.

    Raises:
        InputError: one of them is there already and no record accounts for it.
    """

    def __init__(self, folder: str | Path, names: Sequence[str]) -> None:
        self.folder = Path(folder)
        self.names = tuple(names)
        self._about: dict[str, Any] = {}
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{folder} is a file: give a folder to write results to")
        self._old = self._owned()

    @property
    def paths(self) -> list[Path]:
        """Where the run writes, its record included."""
        return [self.folder / name for name in (*self.names, RECORD)]

    def keep_apart(self, reads: Paths) -> None:
        """As the function of this name, for everything that the run writes."""
        if self.names:
            keep_apart(reads, self.paths)

    def start(self, about: Mapping[str, Any]) -> None:
        """Remove the results of the run before, and begin the record with `about`."""
        if not self.names:
            return
        for path in self._old:
            path.unlink(missing_ok=True)
        for name in self.names:
            _remove_empty(self.folder / name)
        self._about = {
            "format": FORMAT,
            "version": version("vos_deploy"),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            **about,
        }
        self._write("running")

    def finish(self, state: str, **about: Any) -> None:
        """Complete the record: "finished", "interrupted" or "failed", and what was written."""
        if self._about:
            self._about |= about
            files = [path.relative_to(self.folder).as_posix() for path in self._present()]
            self._write(state, files=sorted(files))

    def _write(self, state: str, **more: Any) -> None:
        with replacing(self.folder / RECORD) as temporary:
            content = {**self._about, "state": state, **more}
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def _present(self) -> list[Path]:
        """Every file there is under the names of the run."""
        found = []
        for path in (self.folder / name for name in self.names):
            if path.is_dir() and not path.is_symlink():
                found += [p for p in path.rglob("*") if p.is_symlink() or not p.is_dir()]
            elif path.is_symlink() or path.exists():
                found.append(path)
        return found

    def _owned(self) -> list[Path]:
        """The files of an older run, which a new one may remove."""
        present = self._present()
        if not present:
            return []
        record = _read(self.folder / RECORD)
        if record is None:
            raise InputError(
                f"{present[0]} is there already, and no {RECORD} beside it says that a run wrote "
                "it: choose another --output, or move it away"
            )
        files = record.get("files")
        # A run that was killed could not list its files: what is there is what it wrote.
        known = None if files is None else {self.folder / name for name in files}
        for path in present:
            if known is not None and path not in known and not UNFINISHED.fullmatch(path.name):
                raise InputError(
                    f"{path} is not of the run that {self.folder / RECORD} describes: "
                    "choose another --output, or move it away"
                )
        return present


def _read(path: Path) -> dict[str, Any] | None:
    """The record of a run; None where there is none, or a file of another program."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        return None
    return record


def _remove_empty(folder: Path) -> None:
    """Remove a folder and those in it, as far as they are empty."""
    if folder.is_dir() and not folder.is_symlink():
        for inner in [p for p in folder.iterdir() if p.is_dir() and not p.is_symlink()]:
            _remove_empty(inner)
        with suppress(OSError):
            folder.rmdir()
