"""Files: what is in a folder, in which order, and how results appear there whole.

A hidden entry (a leading dot: thumbnails, `.ipynb_checkpoints`, what macOS and unfinished writes
leave behind) is never data.
"""

import errno
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import VosDeployError

# Folders of the DAVIS releases between JPEGImages or Annotations and the sequences, the usual one
# first.
DAVIS_LEVELS = ("480p", "1080p", "Full-Resolution")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name beside `path` that becomes `path` if the block succeeds.

    The name keeps the suffix, by which writers choose a format. Missing folders are made.

    Raises:
        VosDeployError: the file cannot be written, or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            temporary.replace(path)
        finally:
            with suppress(OSError):
                temporary.unlink()


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn an OSError of the block into one sentence about `path`.

    Raises:
        VosDeployError: the file cannot be written, or the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise VosDeployError(
                f"no room left on the disk for {path}: free some space or write elsewhere"
            ) from error
        raise VosDeployError(f"cannot write {path}: {error.strerror or error}") from error


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def entries(folder: str | Path, suffixes: Iterable[str] = ()) -> list[Path]:
    """What is in a folder, in natural order, without hidden entries; nothing without a folder.

    Args:
        folder: where to look.
        suffixes: in lower case with their dot; a file's own may be in any case. Empty for all.
    """
    # An address on storage is used like a path, and is none.
    folder = Path(folder) if isinstance(folder, str) else folder
    wanted = frozenset(suffixes)
    if not folder.is_dir():
        return []
    found = [
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and (not wanted or path.suffix.lower() in wanted)
    ]
    # The suffix comes last: a before a1, in any format.
    return sorted(found, key=lambda p: (natural_key(p.stem if wanted else p.name), p.name))


def folders(root: str | Path) -> list[Path]:
    """The folders in a folder, in natural order, without hidden ones."""
    return [path for path in entries(root) if path.is_dir()]


def natural_key(name: str) -> tuple[list[Any], str]:
    """A sort key by which frame 2 comes before frame 10, and 0.25 before 0.5.

    A number with one decimal point counts as a decimal fraction; in a row of more than two numbers
    with points between them, as in a date or a version, every one counts by itself.
    """
    parts: list[Any] = []
    # With a group, split alternates text and numbers, so equal positions have equal types.
    for position, part in enumerate(re.split(r"([0-9]+(?:\.[0-9]+)*)", name.casefold())):
        if position % 2 == 0:
            parts.append(part)
            continue
        whole, *rest = part.split(".")
        if len(rest) == 1:
            # Digits after the point compare as text: 0.25 < 0.5 at any length, exactly.
            parts.append((int(whole), rest[0].rstrip("0"), ()))
        else:
            parts.append((int(whole), "", tuple(map(int, rest))))
    # Names that differ in case or leading zeros alone still have one order.
    return parts, name
