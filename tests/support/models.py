"""Exported models for tests. Each is exported once, for all processes and for later runs, until a
source or a version changes."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any
from unittest.mock import patch

import pytest

torch = pytest.importorskip("torch")

from sympy import Expr  # noqa: E402
from torch._export import utils as export_utils  # noqa: E402
from torch.onnx._internal._lazy_import import onnxscript_apis  # noqa: E402
from torch.onnx._internal.exporter import _schemas  # noqa: E402

from tests.support import golden  # noqa: E402
from vos_deploy.bundle import Bundle, Graph, MemoryDefaults, TensorSpec  # noqa: E402
from vos_deploy.export.cli import main  # noqa: E402
from vos_deploy.export.clip import sample_clip  # noqa: E402
from vos_deploy.export.export import graph_specs, versions  # noqa: E402
from vos_deploy.export.graph import MethodExport, TensorType  # noqa: E402
from vos_deploy.methods import METHODS, find_part  # noqa: E402
from vos_deploy.models import Network, create  # noqa: E402
from vos_deploy.runtime.backends.base import Backend  # noqa: E402
from vos_deploy.runtime.backends.torch import TorchBackend  # noqa: E402

# For every graph torch's exporter reads the sources of five hundred operators, and their types, and
# looks through all operators of torch: once is enough.
onnxscript_apis.get_torchlib_ops = cache(onnxscript_apis.get_torchlib_ops)
_schemas.op_signature_from_function = cache(_schemas.op_signature_from_function)
export_utils._materialize_cpp_cia_ops = cache(export_utils._materialize_cpp_cia_ops)
# torch's tracer asks this a hundred thousand times for every graph, of few expressions.
Expr.is_number = property(cache(Expr.is_number.fget))

# What exports are compared on here, if they are of any size: a fifth of the pixels of the real one.
CLIP_SIZE = (111, 195)

# Who runs a recorded run. An export of the official widths takes a minute or more: by default the
# same Segmenter runs the modules that are exported, which `tests/export/test_methods.py` holds
# against their graphs, over the first frames.
ENGINES = ["pytorch", pytest.param("exported", marks=pytest.mark.slow)]
FRAMES = {"pytorch": golden.START, "exported": None}

# Methods whose exports a test looks at. By default that is STM; `-m exports` exports them all.
EXPORTED = [m if m == "stm" else pytest.param(m, marks=pytest.mark.exports) for m in METHODS]

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "build" / "test-models"
SOURCES = ("vos_deploy", "export", "runtime", "tests/support")
KEEP = 24 * 3600.0  # seconds that models of other sources are kept

# Every part of the network, few blocks and few channels: an export takes as long as it has layers.
_NARROW = {"backbone": "resnet10", "key_dim": 16, "value_dim": 32, "decoder_width": 16}
SMALL: dict[str, dict[str, Any]] = {
    "stm": _NARROW,
    "rmnet": {**_NARROW, "flow_width": 8},
    "stcn": {**_NARROW, "decoder_width": 32},
    "rde": {**_NARROW, "repeat": 1},
    "xmem": {**_NARROW, "hidden_dim": 8},
    "cutie": {"backbone": "resnet10", "width": 16, "blocks": 1},
    "imsfr": {"backbone": "resnet10", "dim": 32, "decoder_width": 32},
    "gfrtm": {"backbone": "resnet10"},
}


def small(method: str, **config: Any) -> Network:
    """A small network; random weights, norms included."""
    torch.manual_seed(0)
    network = create(method, **{**SMALL[method], **config})
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.05)
            module.running_var.uniform_(0.8, 1.2)
    return network


def model(method: str, *arguments: str) -> Path:
    """The small network as a model folder; `arguments` are the command's."""
    name = "-".join([method, *(argument.strip("-") for argument in arguments)])
    return exported(name, method, lambda: small(method).state_dict(), *arguments)


def exported(name: str, method: str, content: Callable[[], Any], *arguments: str) -> Path:
    """The folder that the command writes for a checkpoint file of this content.

    name: stands for the content and the arguments. It must not be used for others.
    """
    clip = patch("vos_deploy.export.export.sample_clip", lambda s: sample_clip(s or CLIP_SIZE))
    folder = CACHE / _key() / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{name}.lock").open("w") as lock:
        while not _locked(lock) and _exported_ahead():
            pass
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _drop_old()
            checkpoint = folder.parent / f"{name}.checkpoint" / "weights.pth"
            checkpoint.parent.mkdir(exist_ok=True)
            torch.save(content(), checkpoint)
            command = ["--method", method, "--checkpoint", str(checkpoint), *arguments]
            printed = io.StringIO()
            with clip, contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                code = main([*command, "--output", str(folder)])
            shutil.rmtree(checkpoint.parent)
            if code:
                shutil.rmtree(folder, ignore_errors=True)
            assert code == 0, printed.getvalue()
    return folder


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _exported_ahead() -> bool:
    """Instead of waiting for another process to export a model, in a run of all tests: export the
    next one that is wanted. Whether there was any."""
    if "EXPORT_AHEAD" not in os.environ:
        return False
    for method in SMALL:
        if method == "gfrtm" or (CACHE / _key() / f"{method}.lock").exists():
            continue
        model(method)
        return True
    return False


def in_pytorch(
    network: Network,
    folder: Path,
    backend: Callable[[Bundle, dict[str, torch.nn.Module]], Backend] = TorchBackend,
) -> dict[str, Any]:
    """What makes a Segmenter run a network's modules in place of graphs: its arguments `model`, a
    folder that is made, and `device`."""
    export: MethodExport = find_part(network.method, "EXPORT")
    specs = graph_specs(network.eval(), "fp32")

    def declared(tensors: Mapping[str, TensorType]) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(name, str(tensor.dtype or torch.float32).split(".")[1], tensor.shape)
            for name, tensor in tensors.items()
        )

    bundle = Bundle(
        method=network.method,
        config=network.config,
        precision="fp32",
        graphs={n: Graph(declared(s.inputs), declared(s.outputs)) for n, s in specs.items()},
        memory=MemoryDefaults(export.memory.every, export.memory.frames),
    )
    bundle.save(folder, dict.fromkeys(specs, b""))
    modules = {name: spec.module for name, spec in specs.items()}
    return {"model": folder, "device": lambda bundle, threads: backend(bundle, modules)}


@cache
def _key() -> str:
    digest = hashlib.sha256()
    files = [p for folder in SOURCES for p in (ROOT / folder).rglob("*") if p.suffix != ".pyc"]
    for path in sorted(path for path in files if path.is_file()):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    packages = {**versions(), **{name: version(name) for name in ("onnxscript", "numpy")}}
    digest.update(repr((packages, platform.machine(), platform.python_version())).encode())
    return digest.hexdigest()[:16]


def _drop_old() -> None:
    for folder in CACHE.iterdir():
        if folder.name != _key() and time.time() - folder.stat().st_mtime > KEEP:
            shutil.rmtree(folder, ignore_errors=True)
