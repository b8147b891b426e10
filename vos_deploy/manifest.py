"""What a manifest says, in types, and how it is read from JSON."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from . import plan
from .errors import ModelError
from .extras import UPGRADE
from .methods import BUNDLED_WEIGHTS
from .plan import MANIFEST

T = TypeVar("T")

# What graphs compute in. INT8 graphs take and give float32, and are partly in float32.
PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph. A dimension that varies is given by its name."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Graph:
    """One ONNX graph or engine and its interface. Saving fills in `file` and `sha256`."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    file: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class MemoryDefaults:
    """Memorise every `every`-th frame for good, hold at most `frames` frames per object."""

    every: int = 5
    frames: int = 8


# Of each dimension of an input, or of each value of an input that decides on shapes: the smallest,
# the one that is tuned for, and the largest.
Profile = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Engines:
    """What the engines of a plan were built with and for. They run with and on nothing else.

    runtime: "tensorrt" or "tensorrt_rtx"; `version` is its version.
    gpu, compute_capability: of the GPU they were tuned on, such as "8.9"; None for engines that
        are finished on the GPU that runs them.
    max_objects, memory_frames: the most that the profiles have room for.
    profiles: graph -> input that varies -> what its shape may be; for an input whose value decides
        on shapes, what its values may be.
    fused_read: reads of the memory are one kernel. tf32: FP32 layers may multiply in TF32.
    """

    runtime: str
    version: str
    gpu: str | None
    compute_capability: str | None
    max_objects: int
    memory_frames: int
    profiles: dict[str, dict[str, Profile]]
    fused_read: bool = False
    tf32: bool = False


class Fields:
    """Typed reading of one JSON object, with an error that names the field and the model."""

    def __init__(self, values: Any, path: Path) -> None:
        self.values = values if isinstance(values, dict) else {}
        self.path = path

    def required(self, name: str, kind: type[T]) -> T:
        value = self.values.get(name)
        # bool is an int to Python, but never a size or a count.
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ModelError(
                f"{self.path / MANIFEST} is damaged: {name!r} must be a {kind.__name__}, got "
                f"{value!r}; {mend(self.path)}"
            )
        return value

    def optional(self, name: str, kind: type[T]) -> T | None:
        return None if self.values.get(name) is None else self.required(name, kind)

    def table(self, name: str, read: "Callable[[Fields], T]") -> dict[str, T]:
        """A JSON object of JSON objects, each read by `read`."""
        rows = self.required(name, dict)
        return {key: read(Fields(row, self.path)) for key, row in rows.items()}


def read_precision(fields: Fields) -> str:
    """One of `PRECISIONS`."""
    precision = fields.required("precision", str)
    if precision not in PRECISIONS:
        raise ModelError(
            f"{fields.path} is of precision {precision!r}, and this vos_deploy knows "
            f"{', '.join(PRECISIONS)}; upgrade with: {UPGRADE}"
        )
    return precision


def read_size(fields: Fields) -> tuple[int, int] | None:
    """(height, width); None for a model of any size."""
    size = fields.optional("size", list)
    if size is None:
        return None
    sides = Fields(dict(zip(("height", "width"), size, strict=False)), fields.path)
    return sides.required("height", int), sides.required("width", int)


def read_graph(fields: Fields) -> Graph:
    def tensors(name: str) -> tuple[TensorSpec, ...]:
        specs = [Fields(spec, fields.path) for spec in fields.required(name, list)]
        return tuple(
            TensorSpec(
                spec.required("name", str),
                spec.required("dtype", str),
                tuple(spec.required("shape", list)),
            )
            for spec in specs
        )

    return Graph(
        inputs=tensors("inputs"),
        outputs=tensors("outputs"),
        file=fields.required("file", str),
        sha256=fields.required("sha256", str),
    )


def read_engines(top: Fields) -> Engines | None:
    """The `engine` section of a plan; None for a folder, which has none."""
    if not is_plan(top.path):
        return None
    fields = Fields(top.required("engine", dict), top.path)
    return Engines(
        runtime=fields.required("runtime", str),
        version=fields.required("version", str),
        gpu=fields.optional("gpu", str),
        compute_capability=fields.optional("compute_capability", str),
        max_objects=fields.required("max_objects", int),
        memory_frames=fields.required("memory_frames", int),
        profiles=fields.table("profiles", _read_profiles),
        fused_read=fields.values.get("fused_read") is True,
        tf32=fields.values.get("tf32") is True,
    )


def _read_profiles(graph: Fields) -> dict[str, Profile]:
    return {name: _read_profile(graph, name) for name in graph.values}


def _read_profile(graph: Fields, name: str) -> Profile:
    rows = [tuple(row) for row in graph.required(name, list) if isinstance(row, list)]
    numbers = [type(side) is int for row in rows for side in row]
    if len(rows) != 3 or len({len(row) for row in rows}) != 1 or not all(numbers):
        raise ModelError(
            f"{graph.path / MANIFEST} is damaged: the profile of {name!r} must be three lists "
            f"of numbers, got {graph.values[name]!r}; {mend(graph.path)}"
        )
    return rows[0], rows[1], rows[2]


def is_plan(path: Path) -> bool:
    """Whether a model is to be read as a `.plan` file: it is one, or is named like one."""
    return path.is_file() or (path.suffix == plan.SUFFIX and not path.is_dir())


def export_command(folder: Path, method: str = BUNDLED_WEIGHTS, *options: str) -> str:
    """The command that exports a model to a folder; for a method whose weights do not ship, with
    a place for them."""
    weights = [] if method == BUNDLED_WEIGHTS else ["--checkpoint", "WEIGHTS.pth"]
    output = ["--output", shlex.quote(str(folder))]
    return " ".join(["python -m vos_deploy.export --method", method, *weights, *options, *output])


def mend(model: Path, method: str = BUNDLED_WEIGHTS) -> str:
    """How an error about a model ends."""
    if is_plan(model):
        return plan.mend(model)
    return f"export it with: {export_command(_free(model), method)}"


def _free(folder: Path) -> Path:
    """The folder, or a name beside it where something else than a model lies under this one."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        return folder.with_name(f"{folder.name}-model")
    return folder
