"""An exported model on disk: a folder of ONNX graphs and a `manifest.json` that describes them.

Loading checks the whole folder before anything runs, so that a damaged, foreign or newer model is
one clear sentence instead of a failure deep inside an inference engine.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Self, TypeVar

from vos_deploy.errors import ModelError

FORMAT = "vos_deploy model"
VERSION = 1
MANIFEST = "manifest.json"

T = TypeVar("T")


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph. A dimension that varies is given by its name."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class Graph:
    """One ONNX file of the model and its interface. `Bundle.save` fills in `file` and `sha256`."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    file: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class MemoryDefaults:
    """Memorise every `every`-th frame for good, hold at most `frames` frames per object."""

    every: int = 5
    frames: int = 8


@dataclass(frozen=True)
class Bundle:
    """A model folder: what its manifest says, and where it lies.

    size: (H, W) of the image the graphs are fixed to; None if they take any size.
    short_side: working size of a model of any size, as the length of the shorter side in pixels;
        None for the frame's own size.
    max_objects: None for no limit.
    checkpoint: `name` and `sha256` of the weights the graphs were exported from.
    """

    method: str
    precision: str
    graphs: dict[str, Graph]
    config: dict[str, Any] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    short_side: int | None = None
    max_objects: int | None = None
    memory: MemoryDefaults = MemoryDefaults()
    parity: dict[str, Any] = field(default_factory=dict)
    checkpoint: dict[str, Any] = field(default_factory=dict)
    licence: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    folder: Path = Path()

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read and verify a model folder.

        Raises ModelError, saying how to mend it, if the folder or its manifest is missing,
        unreadable, of another format or a newer version, or if a graph is missing or changed.
        """
        folder = Path(path)
        bundle = cls._from_manifest(_read_manifest(folder), folder)
        for graph in bundle.graphs.values():
            _check_file(bundle, graph)
        return bundle

    def save(self, folder: str | os.PathLike[str], contents: Mapping[str, bytes | Path]) -> Self:
        """Write the model whole or not at all; return it as `load` would.

        contents: the ONNX file of each graph, as bytes or as a path to copy from.
        A model that is already there is replaced; any other non-empty folder raises ModelError.
        """
        if contents.keys() != self.graphs.keys():
            raise ValueError(f"contents hold {sorted(contents)}, not {sorted(self.graphs)}")
        folder = Path(folder)
        check_replaceable(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
            new = Path(scratch) / "new"
            new.mkdir()
            graphs = {
                name: _write_graph(new / f"{name}.onnx", contents[name], graph)
                for name, graph in self.graphs.items()
            }
            saved = replace(self, graphs=graphs, folder=folder)
            (new / MANIFEST).write_text(json.dumps(saved._manifest(), indent=2) + "\n")
            if folder.exists():
                folder.rename(Path(scratch) / "old")
            new.rename(folder)
        return saved

    def path(self, graph: str) -> Path:
        """Where the file of a graph lies."""
        return self.folder / self.graphs[graph].file

    def output(self, graph: str, name: str) -> TensorSpec:
        """An output of a graph. Raises ModelError if the graph has none of this name."""
        for spec in self.graphs[graph].outputs:
            if spec.name == name:
                return spec
        raise ModelError(f"graph {graph!r} in {self.folder} has no output {name!r}")

    def _manifest(self) -> dict[str, Any]:
        manifest = asdict(self)
        del manifest["folder"]
        return {"format": FORMAT, "version": VERSION, **manifest}

    @classmethod
    def _from_manifest(cls, manifest: dict[str, Any], folder: Path) -> Self:
        top = _Fields(manifest, folder)
        memory = _Fields(top.required("memory", dict), folder)
        return cls(
            method=top.required("method", str),
            precision=top.required("precision", str),
            graphs={
                name: _graph(_Fields(graph, folder))
                for name, graph in top.required("graphs", dict).items()
            },
            config=top.optional("config", dict) or {},
            size=_size(top),
            short_side=top.optional("short_side", int),
            max_objects=top.optional("max_objects", int),
            memory=MemoryDefaults(memory.required("every", int), memory.required("frames", int)),
            parity=top.optional("parity", dict) or {},
            checkpoint=top.optional("checkpoint", dict) or {},
            licence=top.optional("licence", str) or "",
            versions=top.optional("versions", dict) or {},
            folder=folder,
        )


def demonstration_model() -> Path:
    """The folder of the model that ships with the package. Raises ModelError if there is none."""
    folder = Path(str(resources.files("vos_deploy"))) / "weights" / "stm"
    if not folder.is_dir():
        raise ModelError(
            f"no model was named, and this installation has no demonstration model; {_mend('stm/')}"
        )
    return folder


class _Fields:
    """Typed reading of one JSON object, with an error that names the field and the folder."""

    def __init__(self, values: Any, folder: Path) -> None:
        self.values = values if isinstance(values, dict) else {}
        self.folder = folder

    def required(self, name: str, kind: type[T]) -> T:
        value = self.values.get(name)
        # bool is an int to Python, but never a size or a count.
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ModelError(
                f"{self.folder / MANIFEST} is damaged: {name!r} should be a {kind.__name__} and is "
                f"{value!r}; {_mend(self.folder)}"
            )
        return value

    def optional(self, name: str, kind: type[T]) -> T | None:
        return None if self.values.get(name) is None else self.required(name, kind)


def _size(fields: _Fields) -> tuple[int, int] | None:
    size = fields.optional("size", list)
    if size is None:
        return None
    sides = _Fields(dict(zip(("height", "width"), size, strict=False)), fields.folder)
    return sides.required("height", int), sides.required("width", int)


def _graph(fields: _Fields) -> Graph:
    def tensors(name: str) -> tuple[TensorSpec, ...]:
        specs = [_Fields(spec, fields.folder) for spec in fields.required(name, list)]
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


def _read_manifest(folder: Path) -> dict[str, Any]:
    if not folder.exists():
        raise ModelError(f"no model at {folder}; {_mend(folder.with_suffix(''))}")
    if not folder.is_dir():
        raise ModelError(
            f"{folder} is a file, and this version opens model folders; {_mend(folder.stem)}"
        )
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{folder} is not a model folder: it has no {MANIFEST}; {_mend(folder)}"
        ) from None
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON ({error}); {_mend(folder)}") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ModelError(f"{path} does not describe a {FORMAT}; {_mend(folder)}")
    version = _Fields(manifest, folder).required("version", int)
    if version > VERSION:
        raise ModelError(
            f"{folder} is a model of format version {version}, and this vos_deploy reads up to "
            f"version {VERSION}; upgrade with: pip install --upgrade vos_deploy"
        )
    return manifest


def _check_file(bundle: Bundle, graph: Graph) -> None:
    folder, mend = bundle.folder, _mend(bundle.folder, bundle.method)
    # A manifest from elsewhere must not make us read outside the folder.
    if not graph.file or Path(graph.file).name != graph.file or "\\" in graph.file:
        raise ModelError(
            f"{folder / MANIFEST} names the graph file {graph.file!r}, which is not a plain file "
            f"name; {mend}"
        )
    path = folder / graph.file
    if not path.is_file():
        raise ModelError(f"the model in {folder} lacks {graph.file}; {mend}")
    if _sha256(path) != graph.sha256:
        raise ModelError(
            f"{path} is not the file its manifest describes (its sha256 differs): damaged or "
            f"replaced; {mend}"
        )


def check_replaceable(folder: Path) -> None:
    """Raise ModelError unless `folder` is new, empty, or a model that may be replaced."""
    if folder.is_file() or (
        folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file()
    ):
        raise ModelError(f"{folder} exists and is not a model folder; choose another --output")


def _write_graph(path: Path, content: bytes | Path, graph: Graph) -> Graph:
    if isinstance(content, Path):
        shutil.copyfile(content, path)
    else:
        path.write_bytes(content)
    return replace(graph, file=path.name, sha256=_sha256(path))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _mend(folder: str | Path, method: str = "stm") -> str:
    return f"export it with: python -m vos_deploy.export --method {method} --output {folder}"
