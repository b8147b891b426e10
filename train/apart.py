"""What a run reads stays as it is: nothing is written over data, weights or another run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from vos_deploy.errors import InputError
from vos_deploy.results import AnyPath, keep_apart

from .options import TrainOptions

LAST, MODEL, OPTIONS, BAD_FILES = "last.pth", "model.safetensors", "options.toml", "bad_files.txt"


def check_apart(options: TrainOptions, config: Path | None, written: str) -> None:
    """Refuse to write where something is read.

    Args:
        options: of the run.
        config: the configuration file it was given.
        written: what `options.toml` will hold. A run may go on from its own, as long as nothing
            in it changes.

    Raises:
        InputError: an input is one of the files that the run writes, or the folder it writes to
            holds weights that no run left.
    """
    files: dict[str, AnyPath | None] = {}
    trees: dict[str, AnyPath | list[AnyPath] | None] = {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        name = f"--{field.name.replace('_', '-')}"
        if field.name == "output" or value is None:
            continue
        if isinstance(value, Path):
            files[name] = value
        elif isinstance(value, tuple) and all(isinstance(item, Path) for item in value):
            trees[name] = [*value]
    output = options.output
    own = config is not None and config.resolve() == (output / OPTIONS).resolve()
    if not own or config is None or config.read_text(encoding="utf-8") != written:
        files["--config"] = config
    writes = [output / name for name in (LAST, MODEL, OPTIONS, BAD_FILES)]
    keep_apart(files, writes, trees=trees)
    if (output / MODEL).exists() and not (output / LAST).exists():
        raise InputError(
            f"{output / MODEL} is there already, and no {LAST} beside it says that a run wrote it: "
            "choose another --output, or move it away"
        )
