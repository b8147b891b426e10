"""Which videos a page may open: those of one folder by their names, cameras and streams."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vos_deploy.errors import InputError
from vos_deploy.files import entries
from vos_deploy.images import IMAGE_SUFFIXES
from vos_deploy.video import STREAM_SCHEMES

VIDEO_SUFFIXES = frozenset(
    {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"}
)
MOST_CAMERAS = 16
LONGEST_ADDRESS = 2000


class Catalogue:
    """What can be opened. Nothing outside the folder is, whatever name is asked for."""

    def __init__(self, folder: Path | None, given: str | None = None) -> None:
        """folder: of videos, and of folders of images. given: what the command line names.

        Raises InputError where the folder is none.
        """
        if folder is not None and not folder.is_dir():
            raise InputError(f"--videos must be a folder of videos, found none at {folder}")
        self._folder, self.given = folder, given

    def names(self) -> list[str]:
        """The videos of the folder, as they are now."""
        return list(self._listed())

    @property
    def given_label(self) -> str | None:
        """What the page calls the video of the command line, if there is one."""
        return None if self.given is None else _label(self.given)

    def source(self, choice: Mapping[str, Any]) -> tuple[str, str]:
        """What `open_source` opens and what the page calls it, for {"video": name}, {"camera": n},
        {"stream": address} or {"given": true}. Raises InputError for all else."""
        match dict(choice):
            case {"given": True} if self.given is not None:
                return self.given, _label(self.given)
            case {"video": str(name)}:
                return self._video(name), name
            case {"camera": int(number)} if 0 <= number < MOST_CAMERAS:
                return str(number), f"camera {number}"
            case {"stream": str(address)}:
                return _stream(address), _label(address)
        raise InputError(
            'choose {"video": name}, {"camera": number} or {"stream": address}, got '
            f"{str(dict(choice))[:80]}"
        )

    def _video(self, name: str) -> str:
        listed = self._listed()
        if name not in listed:
            raise InputError(f"no video {name[:80]!r} in the folder: reload the list")
        return str(listed[name])

    def _listed(self) -> dict[str, Path]:
        """Videos by name. A link that leads out of the folder is left out."""
        if self._folder is None:
            return {}
        root = self._folder.resolve()
        return {
            path.name: path
            for path in entries(root)
            if root in path.resolve().parents and _is_video(path)
        }


def _is_video(path: Path) -> bool:
    if path.is_dir():
        return bool(entries(path, IMAGE_SUFFIXES))
    return path.suffix.lower() in VIDEO_SUFFIXES


def _label(spec: str) -> str:
    """A name without folders, and an address without a password in it."""
    if "://" in spec:
        return re.sub(r"://[^/@]*@", "://", spec)
    return f"camera {spec}" if spec.isdecimal() else Path(spec).name


def _stream(address: str) -> str:
    scheme = address.partition("://")[0].lower()
    if scheme not in STREAM_SCHEMES or len(address) > LONGEST_ADDRESS:
        raise InputError(
            f"the address of a stream must begin with {', '.join(sorted(STREAM_SCHEMES))}://, "
            f"got {address[:80]!r}"
        )
    return address
