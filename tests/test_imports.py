"""Imports run downward only, and the package imports without any engine or framework."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from vos_deploy.methods import METHODS

ROOT = Path(__file__).parent.parent

# Folder -> what nothing in it may import.
FORBIDDEN = {
    "vos_deploy": ["vos_deploy.runtime", "vos_deploy.export", "vos_deploy.train"],
    "runtime": ["torch", "vos_deploy.models", "vos_deploy.export", "vos_deploy.train"],
    "export": ["vos_deploy.train"],
    "train": ["vos_deploy.runtime", "vos_deploy.export"],
}
NOTHING_IMPORTS = "vos_deploy.benchmarks"
ENGINES = ["torch", "onnx", "onnxscript", "onnxruntime"]
ENGINES += ["tensorrt", "tensorrt_rtx", "pycuda", "cuda"]
# The public class is looked up lazily there, so that `import vos_deploy` stays light.
# So is PyTorch, by the one backend that runs it.
LAZY = {
    (ROOT / "vos_deploy" / "__init__.py", "vos_deploy.runtime"),
    (ROOT / "runtime" / "backends" / "torch.py", "torch"),
}


def imported(path: Path) -> set[str]:
    """Every module a file imports by its absolute name, in functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            # `from vos_deploy import runtime` imports a module by the name after the import.
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def is_own_part(path: Path, name: str) -> bool:
    """Whether a file of a method imports the NumPy parts of the same method's tracker."""
    parts = (*path.parent.parts, path.stem)
    return any(
        is_within(name, f"vos_deploy.runtime.trackers.{method}")
        for method in METHODS
        if method in parts
    )


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_imports_run_downward(folder: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name in sorted(imported(path))
        for package in [*FORBIDDEN[folder], NOTHING_IMPORTS]
        if is_within(name, package) and (path, package) not in LAZY
        if not is_own_part(path, name)
    ]
    assert not wrong


def test_engine_neutral_folders_name_no_framework() -> None:
    """Outside `models/`, the shared package needs neither PyTorch nor an engine."""
    # onnx_runtime.py is where the engine is imported, when somebody first asks for it.
    shared = [p for p in (ROOT / "vos_deploy").glob("*.py") if p.name != "onnx_runtime.py"]
    wrong = [path.name for path in shared if imported(path) & set(ENGINES)]
    assert shared
    assert not wrong


@pytest.mark.parametrize(
    "statement",
    [
        "import vos_deploy; vos_deploy.__version__; vos_deploy.Segmenter",
        "import vos_deploy.runtime, vos_deploy.runtime.run.command",
        "import vos_deploy.bundle, vos_deploy.writers",
        "import vos_deploy.onnx_runtime, vos_deploy.runtime.backends.ort",
        "import vos_deploy.runtime.backends.torch",
        "import vos_deploy.runtime.trackers.stm, vos_deploy.runtime.build",
        "import vos_deploy.runtime.trackers.gfrtm.tracker, vos_deploy.benchmarks.fps",
        "import vos_deploy.runtime.backends.tensorrt.backend, vos_deploy.runtime.backends.ort_cuda",
    ],
)
def test_imports_without_engines(statement: str) -> None:
    blocker = (
        "import sys\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {ENGINES!r}:\n"
        "            raise ImportError(f'{name} is blocked')\n"
        "sys.meta_path.insert(0, Blocker())\n"
    )
    command = [sys.executable, "-c", blocker + statement]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_benchmarks_start_without_pyav() -> None:
    """On a bare GPU machine there is no room for FFmpeg, and no video that it would decode."""
    code = "import sys; sys.modules['av'] = None; import vos_deploy.benchmarks.cli"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_importing_the_package_imports_no_runtime() -> None:
    """Training and export import `vos_deploy` too, and should not pay for the runtime."""
    code = "import sys, vos_deploy; print([m for m in sys.modules if m.startswith('vos_deploy.')])"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "runtime" not in result.stdout


def test_unknown_attribute() -> None:
    import vos_deploy

    with pytest.raises(AttributeError, match="no attribute 'Tracker'"):
        vos_deploy.Tracker  # noqa: B018
