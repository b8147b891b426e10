"""Folders of results: no input is overwritten, and nothing of an older run stays among a new one's.

A small record beside the results, `run.json`, says which run they are of, and what it wrote:

    results = ResultFolder("out", ("masks", "overlay.mp4"))
    results.keep_apart({"--video": "in.mp4", "--mask": "first.png"})
    results.start({"video": "in.mp4"})   # now the older run's files go
    ...
    results.note(path, content)          # before each file that is written
    ...
    results.finish("finished")
"""

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from .errors import InputError
from .files import replacing, sha256, writing

RECORD = "run.json"
FORMAT = "vos_deploy results 1"
# What `files.replacing` calls a file that is not whole yet.
UNFINISHED = re.compile(r"\..+\.\d+(\.\w+)?")

AnyPath = str | Path
Paths = Mapping[str, AnyPath | Sequence[AnyPath] | None]


def keep_apart(
    reads: Paths, writes: Sequence[AnyPath], *, trees: Paths | None = None, option: str = "--output"
) -> None:
    """Refuse to write where something is read. Links are followed.

    Args:
        reads: option or name -> files or folders that are read; None and what is not there (a
            camera, a stream) are passed over.
        writes: files to write, and folders to write files into.
        trees: as `reads`, folders that are read with all that lies in them, however deep.
        option: what says where to write, for the message.

    Raises:
        InputError: one of `writes` is one of `reads`, holds it or lies directly in it.
    """
    for name, read in _existing(reads):
        for target in writes:
            _keep_one_apart(name, read, Path(target), option, deep=False)
    for name, read in _existing(trees or {}):
        for target in writes:
            _keep_one_apart(name, read, Path(target), option, deep=True)


def _keep_one_apart(name: str, given: AnyPath, target: Path, option: str, *, deep: bool) -> None:
    read, written = Path(given).resolve(), target.resolve()
    if written == read or _same_file(written, read) or written in read.parents:
        raise InputError(f"{target} would be written over {name} {given}: choose another {option}")
    if read.is_dir() and (written.parent == read or (deep and read in written.parents)):
        raise InputError(
            f"{target} would lie among what {name} {given} is read from: choose another {option}"
        )


def _existing(paths: Paths) -> Iterable[tuple[str, AnyPath]]:
    """Every path that is there, with its option."""
    for name, given in paths.items():
        several = [given] if given is None or isinstance(given, (str, Path)) else given
        for path in several:
            if path is not None and _exists(path):
                yield name, path


def _exists(path: AnyPath) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # a URL that is no possible name
        return False


def _same_file(a: Path, b: Path) -> bool:
    """Whether two names are one file on disk, a hard link for one."""
    return a.exists() and a.samefile(b)


class ResultFolder:
    """What a run writes into a folder, and the record of it.

    Each file is noted before it is written, in a journal that becomes part of the record. So a run
    that was killed has a list of its files too, and what somebody else put among them, or changed,
    is never taken for the run's.

    Args:
        folder: where; made when something is written.
        names: the files and folders in it that the run writes.
        record: the name of the record.
        durable: record and journal survive a power cut, too, which costs a few ms per file.

    Raises:
        InputError: one of them is there already, and no record accounts for it as it is.
    """

    def __init__(
        self, folder: AnyPath, names: Sequence[str], record: str = RECORD, *, durable: bool = False
    ) -> None:
        self.folder, self._durable = Path(folder), durable
        self.names = tuple(names)
        self.record = self.folder / record
        self._journal = self.folder / f".{record}.files"
        self._notes: IO[str] | None = None
        self._about: dict[str, Any] = {}
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{folder} is a file: give a folder to write results to")
        self._old = self._owned()

    @property
    def paths(self) -> list[Path]:
        """Where the run writes, its record included."""
        return [*(self.folder / name for name in self.names), self.record]

    def keep_apart(self, reads: Paths, *, trees: Paths | None = None) -> None:
        """As the function of this name, for everything that the run writes."""
        if self.names:
            keep_apart(reads, self.paths, trees=trees)

    def start(self, about: Mapping[str, Any], keep: Collection[Path] = ()) -> None:
        """Remove the results of the run before but those of `keep`, which this run goes on from,
        and begin the record with `about`.

        Calling it again does nothing.
        """
        if not self.names or self._notes is not None:
            return
        known = self._known()
        for path in self._old:
            if path not in keep:
                path.unlink(missing_ok=True)
        for name in self.names:
            _remove_empty(self.folder / name)
        self._about = {
            "format": FORMAT,
            "version": version("vos_deploy"),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            **about,
        }
        kept = {name: known[name] for name in sorted(self._name(path) for path in keep)}
        # A run that is killed between the two still has a list of what it kept.
        self._write("running", files=kept)
        with writing(self._journal):
            self._notes = self._journal.open("w", encoding="utf-8")
            self._notes.writelines(f"{digest} {name}\n" for name, digest in kept.items())
            self._settle(self._notes)

    def note(self, path: Path, content: bytes | None = None) -> None:
        """Say that `path` is about to be written: with `content`, or with what grows meanwhile."""
        if self._notes is None:
            return
        digest = "-" if content is None else hashlib.sha256(content).hexdigest()
        with writing(self._journal):
            self._notes.write(f"{digest} {self._name(path)}\n")
            self._settle(self._notes)

    def finish(self, state: str, **about: Any) -> None:
        """Complete the record: "finished", "interrupted" or "failed", and what was written.

        Without a start, or after another finish, it does nothing.
        """
        if self._notes is None:
            return
        self._notes.close()
        self._notes = None
        self._about |= about
        files = _noted(self._journal)
        there = {self._name(path) for path in self._present()}
        self._write(state, files={name: files[name] for name in sorted(there & files.keys())})
        self._journal.unlink(missing_ok=True)

    @property
    def before(self) -> dict[str, Any]:
        """The record of the run before; empty without one."""
        return _read(self.record) or {}

    def intact(self) -> set[Path]:
        """The files of the run before that are as it wrote them, by their contents."""
        whole = set()
        for name, digest in self._known().items():
            path = self.folder / name
            if digest != "-" and path.is_file() and sha256(path) == digest:
                whole.add(path)
        return whole

    def _known(self) -> dict[str, str]:
        return {**_files(self.before), **_noted(self._journal)}

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _write(self, state: str, **more: Any) -> None:
        content = {**self._about, "state": state, **more}
        with replacing(self.record) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=1) + "\n")
            self._settle(file)

    def _settle(self, file: IO[str]) -> None:
        file.flush()
        if self._durable:
            os.fsync(file.fileno())

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
        record = _read(self.record)
        if record is None:
            raise InputError(
                f"{present[0]} is there already, and no {self.record.name} beside it says that a "
                "run wrote it: choose another --output, or move it away"
            )
        known = self._known()
        for path in present:
            digest = known.get(self._name(path))
            if digest is None and not UNFINISHED.fullmatch(path.name):
                raise InputError(
                    f"{path} is not of the run that {self.record} describes: "
                    "choose another --output, or move it away"
                )
            if digest and digest != "-" and _is_another(path, digest):
                raise InputError(
                    f"{path} was changed after the run that {self.record} describes had written "
                    "it: choose another --output, or move it away"
                )
        return present


def _is_another(path: Path, digest: str) -> bool:
    """Whether a file is not the one that was written. A power cut may leave it empty."""
    if path.is_symlink():
        return True
    return path.stat().st_size > 0 and sha256(path) != digest


def _read(path: Path) -> dict[str, Any] | None:
    """The record of a run; None where there is none, or a file of another program."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        return None
    return record


def _files(record: Mapping[str, Any]) -> dict[str, str]:
    """The files that a record lists -> their SHA-256, or "-"."""
    files = record.get("files", {})
    return files if isinstance(files, dict) else dict.fromkeys(files, "-")


def _noted(journal: Path) -> dict[str, str]:
    """The same of a journal; nothing where there is none."""
    try:
        lines = journal.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    return {name: digest for digest, _, name in (line.partition(" ") for line in lines) if name}


def _remove_empty(folder: Path) -> None:
    """Remove a folder and those in it, as far as they are empty."""
    if folder.is_dir() and not folder.is_symlink():
        for inner in [p for p in folder.iterdir() if p.is_dir() and not p.is_symlink()]:
            _remove_empty(inner)
        with suppress(OSError):
            folder.rmdir()
