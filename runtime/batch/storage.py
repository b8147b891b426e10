"""Files on storage, such as s3://bucket/videos: whatever fsspec opens.

An address is used like a path: a `UPath` of universal-pathlib has the methods of `pathlib.Path`.
Videos, masks and models are copied to this machine to be read. Results are written here, and then
there, so that storage is never in a state that a run could not go on from.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Self, cast

from vos_deploy.errors import InputError, VosDeployError
from vos_deploy.extras import install


def location(text: str) -> Path:
    """A path, or an address with its scheme (s3://, gs://, memory://, ...), used like a path.

    Raises InputError for an unknown scheme. What opens it is imported when it is first used.
    """
    if "://" not in text:
        return Path(text)
    try:
        from upath import UPath
    except ImportError as error:
        raise InputError(
            f"{text} is an address on storage, which needs: {install('ray')}"
        ) from error
    try:
        return cast(Path, UPath(text))
    except ValueError as error:
        raise InputError(f"cannot open {text}: {error}") from error


def location_argument(text: str) -> Path:
    """`location` as the type of an argument."""
    try:
        return location(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def is_stored(path: Path | None) -> bool:
    """Whether a path is an address on storage."""
    return path is not None and not isinstance(path, Path)


@contextmanager
def reaching(path: Path) -> Iterator[None]:
    """Turn whatever keeps the block from reading or writing an address into one sentence: every
    storage has errors of its own."""
    try:
        yield
    except VosDeployError:
        raise
    except Exception as error:
        if not is_stored(path):
            raise
        detail = str(error) or type(error).__name__
        raise VosDeployError(f"cannot reach {path}: {detail}") from error


@contextmanager
def at_hand(path: Path | None) -> Iterator[Path | None]:
    """The path, or for an address a copy of what is there, for as long as the block lasts."""
    if path is None or not is_stored(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="vos_deploy-") as scratch:
        yield fetch(path, Path(scratch))


def fetch(source: Path, into: Path) -> Path:
    """Copy a file, or a folder with all that is in it, into a folder; returns the copy.

    Raises VosDeployError if nothing is there, or it cannot be read.
    """
    target = into / source.name
    with reaching(source):
        fs, root = _file_system(source)
        files = fs.find(root)
        if not files:
            raise InputError(f"found nothing at {source}")
        for file in files:
            inside = file.removeprefix(root).strip("/")
            path = target / inside
            if not path.resolve().is_relative_to(target.resolve()):
                raise InputError(f"{source} holds {inside!r}, which is no name of a file")
            path.parent.mkdir(parents=True, exist_ok=True)
            fs.get_file(file, str(path))
    return target


def store(path: Path, folder: Path) -> Path:
    """Copy a file into a folder on storage; returns where it is. Raises VosDeployError."""
    with reaching(folder):
        fs, root = _file_system(folder)
        _put(fs, path, f"{root}/{path.name}")
    return folder / path.name


def store_text(text: str, path: Path) -> None:
    """Write a file on storage. Raises VosDeployError."""
    with tempfile.TemporaryDirectory(prefix="vos_deploy-") as scratch:
        (Path(scratch) / path.name).write_text(text, encoding="utf-8")
        store(Path(scratch) / path.name, path.parent)


def keep_apart_there(trees: Mapping[str, Path | None], output: Path) -> None:
    """Raise InputError if results on storage would lie among what is read from it."""
    for name, tree in trees.items():
        if is_stored(output) and is_stored(tree):
            read, written = (f"{str(path).rstrip('/')}/" for path in (tree, output))
            if written.startswith(read) or read.startswith(written):
                raise InputError(
                    f"{output} would lie among what {name} {tree} is read from, or over it: choose "
                    "another --output"
                )


class Stage:
    """What the work on a video reads and writes, on this machine.

        with Stage(job.video, job.mask, output / job.name) as stage:
            ...   # reads stage.video and stage.mask, writes into stage.results
            stage.push()

    Paths stay as they are. Of an address there is a copy, made when it is asked for; `results`
    begins as what an older run has left there.
    """

    def __init__(self, video: Path, mask: Path, results: Path) -> None:
        self._video, self._mask, self._there = video, mask, results
        self._scratch: Path | None = None
        self._pushed: dict[str, tuple[int, int]] = {}

    def __enter__(self) -> Self:
        if any(map(is_stored, (self._video, self._mask, self._there))):
            self._scratch = Path(tempfile.mkdtemp(prefix="vos_deploy-"))
        return self

    def __exit__(self, *exception: object) -> None:
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    @cached_property
    def video(self) -> Path:
        return self._copy(self._video, "video")

    @cached_property
    def mask(self) -> Path:
        return self._copy(self._mask, "mask")

    @cached_property
    def results(self) -> Path:
        if not is_stored(self._there):
            return self._there
        with suppress(InputError):  # there are none yet
            self._copy(self._there, "results")
        folder = self._folder("results") / self._there.name
        self._pushed = {name: _stamp(path) for name, path in _files(folder).items()}
        return folder

    def push(self) -> None:
        """Bring an address to the state of `results`.

        As on a disk, what is gone or replaced goes first, then comes the record, and then the files
        that it lists with their digests: a run that is killed in between leaves nothing that the
        next one could not account for.
        """
        if not is_stored(self._there):
            return
        with reaching(self._there):
            fs, root = _file_system(self._there)
            here = {name: _stamp(path) for name, path in _files(self.results).items()}
            changed = {name for name in here if here[name] != self._pushed.get(name)}
            records = {name for name in here.keys() | self._pushed.keys() if "/" not in name}
            for name in sorted(self._pushed.keys() - (here.keys() - changed) - records):
                fs.rm_file(f"{root}/{name}")
            for name in (*sorted(changed & records), *sorted(changed - records)):
                _put(fs, self.results / name, f"{root}/{name}")
            for name in sorted((self._pushed.keys() - here.keys()) & records):
                fs.rm_file(f"{root}/{name}")
            self._pushed = here

    def named(self, message: str) -> str:
        """A message with the addresses in place of their copies."""
        for part, given in ("video", self._video), ("mask", self._mask), ("results", self._there):
            if is_stored(given) and self._scratch is not None:
                message = message.replace(str(self._folder(part) / given.name), str(given))
        return message

    def _copy(self, path: Path, part: str) -> Path:
        return fetch(path, self._folder(part)) if is_stored(path) else path

    def _folder(self, part: str) -> Path:
        assert self._scratch is not None, "the stage is not entered"
        return self._scratch / part


def _file_system(path: Path) -> tuple[Any, str]:
    """What opens an address, and how it calls it."""
    address: Any = path
    return address.fs, str(address.path).rstrip("/")


def _put(fs: Any, path: Path, target: str) -> None:
    try:
        fs.put_file(str(path), target)
    except FileNotFoundError:  # where folders exist by themselves
        fs.makedirs(target.rpartition("/")[0], exist_ok=True)
        fs.put_file(str(path), target)


def _files(folder: Path) -> dict[str, Path]:
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path for path in found}


def _stamp(path: Path) -> tuple[int, int]:
    """Another content has another stamp: files of results appear whole, by renaming."""
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_ino
