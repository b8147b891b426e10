"""A model on disk: ONNX graphs or TensorRT engines, and a `manifest.json` that describes them.

An exported model is a folder, one built for TensorRT a single `.plan` file. Loading checks all of
it before anything runs, so that a damaged, foreign or newer model is one clear sentence instead of
a failure deep inside an inference engine.
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
from typing import Any, Self

from . import plan
from .errors import ModelError
from .extras import UPGRADE
from .files import sha256
from .manifest import (
    Engines,
    Fields,
    Graph,
    MemoryDefaults,
    TensorSpec,
    export_command,
    is_plan,
    mend,
    read_engines,
    read_graph,
    read_precision,
    read_size,
)
from .methods import DEMONSTRATION
from .plan import MANIFEST

__all__ = [
    "Bundle",
    "Engines",
    "Graph",
    "MemoryDefaults",
    "TensorSpec",
    "bundled_weights",
    "check_replaceable",
    "demonstration_model",
]

FORMAT = "vos_deploy model"
VERSION = 1


@dataclass(frozen=True)
class Bundle:
    """A model: what its manifest says, and where it lies.

    size: (H, W) of the image the graphs are fixed to; None if they take any size.
    short_side: working size of a model of any size, as the length of the shorter side in pixels;
        None for the frame's own size.
    max_objects: None for no limit.
    checkpoint: `name` and `sha256` of the weights the graphs were exported from.
    int8, fp16: what a model of this precision was followed on, what it loses by that, and which
        layers are in float32; empty for others.
    engine: what a plan was built with and for; None for a folder of ONNX graphs.
    path: the model folder, or the `.plan` file.
    """

    method: str
    precision: str
    graphs: dict[str, Graph]
    config: dict[str, Any] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    short_side: int | None = None
    max_objects: int | None = None
    memory: MemoryDefaults = field(default_factory=MemoryDefaults)
    parity: dict[str, Any] = field(default_factory=dict)
    int8: dict[str, Any] = field(default_factory=dict)
    fp16: dict[str, Any] = field(default_factory=dict)
    checkpoint: dict[str, Any] = field(default_factory=dict)
    licence: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    engine: Engines | None = None
    path: Path = Path()

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read and verify a model folder or a `.plan` file.

        Raises ModelError, saying how to mend it, if the model or its manifest is missing,
        unreadable, of another format or a newer version, or if a graph is missing or changed.
        """
        folder = Path(path)
        bundle = cls._from_manifest(_read_manifest(folder), folder)
        for graph in bundle.graphs.values():
            _check_name(bundle, graph)
        if bundle.engine is not None:
            plan.check_members(folder, [graph.file for graph in bundle.graphs.values()])
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
            saved = replace(self, graphs=graphs, path=folder)
            (new / MANIFEST).write_bytes(saved._json())
            if folder.exists():
                folder.rename(Path(scratch) / "old")
            new.rename(folder)
        return saved

    def save_plan(self, path: str | os.PathLike[str], engines: Mapping[str, bytes]) -> Self:
        """Write a `.plan` file whole or not at all; return it as `load` would.

        engines: the serialized engine of each graph. The bundle says what they were built for.
        A file that is already there is replaced.
        """
        if self.engine is None or engines.keys() != self.graphs.keys():
            raise ValueError(f"engines are {sorted(engines)}, not those of {sorted(self.graphs)}")
        path = Path(path)
        graphs = {
            name: replace(
                graph, file=f"{name}.engine", sha256=hashlib.sha256(engines[name]).hexdigest()
            )
            for name, graph in self.graphs.items()
        }
        saved = replace(self, graphs=graphs, path=path)
        plan.write(path, saved._json(), {f"{name}.engine": engines[name] for name in graphs})
        return saved

    def graph_path(self, graph: str) -> Path:
        """Where the file of a graph lies, in a model folder."""
        return self.path / self.graphs[graph].file

    def read(self, graph: str) -> bytes:
        """The ONNX file or the engine of a graph."""
        if self.engine is None:
            return self.graph_path(graph).read_bytes()
        return plan.read_member(self.path, self.graphs[graph].file)

    def output(self, graph: str, name: str) -> TensorSpec:
        """An output of a graph. Raises ModelError if the graph has none of this name."""
        for spec in self.graphs[graph].outputs:
            if spec.name == name:
                return spec
        raise ModelError(f"graph {graph!r} in {self.path} has no output {name!r}")

    def _json(self) -> bytes:
        manifest = asdict(self)
        del manifest["path"]
        for section in ("engine", "int8", "fp16"):
            if not manifest[section]:
                del manifest[section]
        return (
            json.dumps({"format": FORMAT, "version": VERSION, **manifest}, indent=2) + "\n"
        ).encode()

    @classmethod
    def _from_manifest(cls, manifest: dict[str, Any], folder: Path) -> Self:
        top = Fields(manifest, folder)
        memory = Fields(top.required("memory", dict), folder)
        return cls(
            method=top.required("method", str),
            precision=read_precision(top),
            graphs=top.table("graphs", read_graph),
            config=top.optional("config", dict) or {},
            size=read_size(top),
            short_side=top.optional("short_side", int),
            max_objects=top.optional("max_objects", int),
            memory=MemoryDefaults(memory.required("every", int), memory.required("frames", int)),
            parity=top.optional("parity", dict) or {},
            int8=top.optional("int8", dict) or {},
            fp16=top.optional("fp16", dict) or {},
            checkpoint=top.optional("checkpoint", dict) or {},
            licence=top.optional("licence", str) or "",
            versions=top.optional("versions", dict) or {},
            engine=read_engines(top),
            path=folder,
        )


def demonstration_model() -> Path:
    """The folder of the model that ships with the package. Raises ModelError if there is none."""
    folder = _shipped() / DEMONSTRATION
    if not folder.is_dir():
        raise ModelError(
            f"no model given, and this installation has no bundled demo model; "
            f"{mend(Path('model/'))}"
        )
    return folder


def bundled_weights(method: str) -> Path:
    """Where the weights of a method lie if they ship with the package."""
    return _shipped() / f"{method}.safetensors"


def _shipped() -> Path:
    return Path(str(resources.files("vos_deploy"))) / "weights"


def _read_manifest(folder: Path) -> dict[str, Any]:
    if not folder.exists():
        raise ModelError(_missing(folder))
    path = folder / MANIFEST
    try:
        text = plan.read_manifest(folder) if is_plan(folder) else path.read_bytes()
        manifest = json.loads(text.decode("utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{folder} is not a model folder: it has no {MANIFEST}; {mend(folder)}"
        ) from None
    except ValueError as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path} is not valid JSON ({error}); {mend(folder)}") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ModelError(f"{path} does not describe a {FORMAT}; {mend(folder)}")
    version = Fields(manifest, folder).required("version", int)
    if version > VERSION:
        raise ModelError(
            f"{folder} is a model of format version {version}, and this vos_deploy reads up to "
            f"version {VERSION}; upgrade with: {UPGRADE}"
        )
    return manifest


def _missing(path: Path) -> str:
    folder = path.with_suffix("")
    if path.suffix != plan.SUFFIX:
        return f"no model at {path}; export it with: {export_command(folder)}"
    build = plan.build_command(path)
    if (folder / MANIFEST).is_file():
        return f"no plan at {path}; build it from the model folder beside it with: {build}"
    return f"no plan at {path}; export a model with: {export_command(folder)} && {build}"


def _check_name(bundle: Bundle, graph: Graph) -> None:
    # A manifest from elsewhere must not make us read outside the folder.
    if not plan.is_plain(graph.file):
        raise ModelError(
            f"{bundle.path / MANIFEST} names the graph file {graph.file!r}, which is not a plain "
            f"file name; {mend(bundle.path, bundle.method)}"
        )


def _check_file(bundle: Bundle, graph: Graph) -> None:
    folder, how = bundle.path, mend(bundle.path, bundle.method)
    path = folder / graph.file
    if bundle.engine is not None:
        found = hashlib.sha256(plan.read_member(folder, graph.file)).hexdigest()
    elif path.is_file():
        found = sha256(path)
    else:
        raise ModelError(f"the model in {folder} lacks {graph.file}; {how}")
    if found != graph.sha256:
        raise ModelError(
            f"{path} is not the file its manifest describes (its sha256 differs): damaged or "
            f"replaced; {how}"
        )


def check_replaceable(folder: Path) -> None:
    """Raise ModelError unless `folder` is new, empty, or a model that may be replaced.

    A model that holds anything besides its graphs and its manifest is somebody's, and stays.
    """
    if folder.is_file() or (
        folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file()
    ):
        raise ModelError(f"{folder} exists and is not a model folder; choose another --output")
    if folder.is_dir() and (others := _others(folder)):
        raise ModelError(
            f"{folder} would be replaced, and it holds {others[0].name}, which is no part of the "
            "model; choose another --output, or move the file away"
        )


def _others(folder: Path) -> list[Path]:
    """What lies in a model folder besides the model; a damaged manifest names no graphs, and one
    of something else is no part of it."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        if manifest.get("format") != FORMAT:
            return [folder / MANIFEST]
        own = {MANIFEST, *(graph["file"] for graph in manifest["graphs"].values())}
    except (ValueError, KeyError, TypeError, AttributeError):
        own = {MANIFEST, *(path.name for path in folder.glob("*.onnx"))}
    own |= {".DS_Store"}  # of a file manager, in every folder that somebody looked into
    return sorted(path for path in folder.iterdir() if path.name not in own)


def _write_graph(path: Path, content: bytes | Path, graph: Graph) -> Graph:
    if isinstance(content, Path):
        shutil.copyfile(content, path)
    else:
        path.write_bytes(content)
    return replace(graph, file=path.name, sha256=sha256(path))
