"""The file format of a `.plan`: a zip archive, stored, of `manifest.json` and one engine per graph.

What the manifest says is the business of `vos_deploy.bundle`; here is only the archive around it.
"""

import json
import shlex
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from vos_deploy.errors import ModelError
from vos_deploy.files import replacing

MANIFEST = "manifest.json"
SUFFIX = ".plan"
# A manifest is some kilobytes. One that claims more is not read into memory.
LARGEST_MANIFEST = 16 * 2**20

# What zipfile raises for an archive that is not whole, or is not one.
_DAMAGED = (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, RuntimeError)


def build_command(plan: Path, *options: str) -> str:
    """The command that builds a plan from the model folder of the same name beside it."""
    folder = plan.with_suffix("")
    if not any(option.startswith("--size") for option in options) and not _is_fixed(folder):
        options = ("--size 480x854", *options)
    words = ["vos-deploy-build", shlex.quote(f"{folder}/"), "--output", shlex.quote(str(plan))]
    return " ".join([*words, *options])


def _is_fixed(folder: Path) -> bool:
    """Whether the model in a folder is fixed to one size, which a build then need not name."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("size") is not None


def mend(plan: Path) -> str:
    """How an error about a plan ends."""
    return f"build it again with: {build_command(plan)}"


def read_manifest(plan: Path) -> bytes:
    """The manifest. Raises ModelError if the file is no archive, not whole, or has none."""
    try:
        with zipfile.ZipFile(plan) as archive:
            _check_names(plan, archive.namelist())
            if MANIFEST not in archive.namelist():
                raise ModelError(
                    f"{plan} is not a plan of this package: it has no {MANIFEST}; {mend(plan)}"
                )
            if archive.getinfo(MANIFEST).file_size > LARGEST_MANIFEST:
                raise ModelError(f"{plan} has a {MANIFEST} of absurd size; {mend(plan)}")
            return archive.read(MANIFEST)
    except ModelError:
        raise
    except _DAMAGED as error:
        raise _unreadable(plan, error) from None


def check_members(plan: Path, files: Iterable[str]) -> None:
    """Raise ModelError unless the archive holds the manifest, `files` and nothing else, all of it
    stored as it is."""
    try:
        with zipfile.ZipFile(plan) as archive:
            members = {info.filename: info for info in archive.infolist()}
    except _DAMAGED as error:
        raise _unreadable(plan, error) from None
    expected = {MANIFEST, *files}
    for name in sorted(expected - members.keys()):
        raise ModelError(f"{plan} lacks {name}; {mend(plan)}")
    for name in sorted(members.keys() - expected):
        raise ModelError(f"{plan} holds {name!r}, which its manifest does not name; {mend(plan)}")
    for name, info in members.items():
        if info.compress_type != zipfile.ZIP_STORED:
            raise ModelError(
                f"{plan} holds {name!r} compressed, and a plan stores its members as they are; "
                f"{mend(plan)}"
            )


def read_member(plan: Path, name: str) -> bytes:
    """A member, its checksum verified. Raises ModelError if it cannot be read whole."""
    try:
        with zipfile.ZipFile(plan) as archive:
            return archive.read(name)
    except KeyError:
        raise ModelError(f"{plan} lacks {name}; {mend(plan)}") from None
    except _DAMAGED as error:
        raise _unreadable(plan, error) from None


def write(plan: Path, manifest: bytes, members: Mapping[str, bytes]) -> None:
    """Write the archive whole or not at all. Raises VosDeployError where it cannot be written."""
    with replacing(plan) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        # The manifest first: what a plan is can be read off its first bytes.
        for name, content in {MANIFEST: manifest, **members}.items():
            # A date of its own, so that the same contents are the same file.
            archive.writestr(zipfile.ZipInfo(name), content)


def _check_names(plan: Path, names: list[str]) -> None:
    for name in names:
        if not is_plain(name):
            raise ModelError(f"{plan} holds {name!r}, which is not a plain file name; {mend(plan)}")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ModelError(f"{plan} holds {twice[0]!r} more than once; {mend(plan)}")


def is_plain(name: str) -> bool:
    """Whether this is the name of a file in its folder, and not a way out of it."""
    return bool(name) and Path(name).name == name and name != ".." and "\\" not in name


def _unreadable(plan: Path, error: Exception) -> ModelError:
    return ModelError(f"{plan} is not a plan, damaged or cut short ({error}); {mend(plan)}")
