"""The state of a segmenter as a file: safetensors, with all that is no array in its metadata."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError
from vos_deploy.files import replacing
from vos_deploy.frames import Size

from ..memory.eviction import OLDEST
from ..settings import UNLIMITED, Settings
from .held import State

FORMAT = "vos_deploy state"
VERSION = 1


@dataclass(frozen=True)
class SavedState:
    """What a file says.

    graphs: the SHA-256 of the model's graphs by name. arguments: those of `Segmenter`, but for the
        `missing` ones, whose values were no plain ones. frame: (H, W) of the frames. batches: as
        `Tracker.batches`.
    """

    method: str
    graphs: dict[str, str]
    arguments: dict[str, Any]
    missing: list[str]
    frame: Size
    batches: list[int]
    state: State
    path: Path = Path()

    @classmethod
    def of(
        cls, bundle: Bundle, settings: Settings, frame: Size, batches: list[int], state: State
    ) -> Self:
        options, missing = {}, []
        for field in dataclasses.fields(settings.options):
            value = getattr(settings.options, field.name)
            value = str(value) if isinstance(value, os.PathLike) else value
            if value is None or isinstance(value, bool | int | float | str):
                options[field.name] = value
            else:
                missing.append(field.name)
        frames = settings.policy.frames
        arguments = {
            "memory_every": settings.policy.every,
            "memory_frames": UNLIMITED if frames is None else frames,
            "memory_policy": None if settings.policy.evict == OLDEST else settings.policy.evict,
            "memory_mib": settings.memory_mib,
            "size": settings.size,
            "focus": settings.focus,
            "decode_in_boxes": settings.decode_in_boxes,
            **options,
        }
        return cls(bundle.method, _graphs(bundle), arguments, missing, frame, batches, state)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the file whole or not at all. Raises VosDeployError if it cannot be written."""
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "method": self.method,
            "graphs": self.graphs,
            "arguments": self.arguments,
            "missing": self.missing,
            "frame": self.frame,
            "batches": self.batches,
            "values": self.state.values,
        }
        text = json.dumps(manifest)
        metadata = {"manifest": text, "sha256": _digest(text, self.state.arrays)}
        arrays = {name: np.ascontiguousarray(a) for name, a in self.state.arrays.items()}
        # Not its own `save_file`, whose temporary file nobody could tell if it were left behind.
        content = _safetensors().numpy.save(arrays, metadata)
        with replacing(Path(path)) as temporary:
            temporary.write_bytes(content)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """Raises InputError for a file that is missing, damaged, of another kind or newer."""
        path = Path(path)
        if not path.is_file():
            raise InputError(f"no state at {path}: save one with Segmenter.save")
        try:
            with _safetensors().safe_open(str(path), framework="numpy") as file:
                metadata = file.metadata() or {}
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (_safetensors().SafetensorError, OSError, ValueError) as error:
            raise InputError(f"{path} is not a complete state file: {error}") from error
        text = metadata.get("manifest", "")
        try:
            manifest = json.loads(text)
        except ValueError:
            manifest = None
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise InputError(f"{path} is not a {FORMAT}: save one with Segmenter.save")
        if manifest.get("version") != VERSION:
            raise InputError(
                f"{path} is a state of version {manifest.get('version')}, and {VERSION} is what "
                "this vos_deploy reads: load it with the one that saved it"
            )
        if metadata.get("sha256") != _digest(text, arrays):
            raise InputError(f"{path} is damaged: its contents are not what was saved")
        arguments = manifest["arguments"]
        if isinstance(arguments["size"], list):
            arguments["size"] = tuple(arguments["size"])
        return cls(
            manifest["method"],
            manifest["graphs"],
            arguments,
            manifest["missing"],
            (manifest["frame"][0], manifest["frame"][1]),
            manifest["batches"],
            State(manifest["values"], arrays),
            path,
        )

    def check(self, bundle: Bundle, given: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments for `Segmenter`. given: what was given beside the file.

        Raises InputError if the state is not one of the model, or something must be given, or must
        not.
        """
        if bundle.method != self.method:
            raise InputError(
                f"{self.path} is a state of {self.method!r}, and {bundle.path} a model of "
                f"{bundle.method!r}"
            )
        if _graphs(bundle) != self.graphs:
            raise InputError(
                f"{self.path} was saved with another model than {bundle.path}: its graphs differ"
            )
        needed, extra = set(self.missing) - given.keys(), given.keys() - set(self.missing)
        if needed:
            raise InputError(
                f"{self.path} cannot hold {', '.join(sorted(needed))}: give the same again as when "
                "it was saved"
            )
        if extra:
            raise InputError(
                f"{', '.join(sorted(extra))} was saved with the state: do not give it again"
            )
        return {**self.arguments, **given}


def _graphs(bundle: Bundle) -> dict[str, str]:
    return {name: graph.sha256 for name, graph in sorted(bundle.graphs.items())}


def _digest(text: str, arrays: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}\0{array.dtype}\0{array.shape}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _safetensors() -> Any:
    """The package, imported when it is first needed. Raises InputError where it is missing."""
    try:
        import safetensors.numpy
    except ImportError as error:
        raise InputError(
            f"states need safetensors ({error}); install it with: pip install safetensors"
        ) from error
    return safetensors
