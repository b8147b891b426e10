"""What `import vos_deploy` offers."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

import vos_deploy


@pytest.mark.parametrize("name", sorted(vos_deploy._HOMES))
def test_names_are_those_of_their_modules(name: str) -> None:
    home = import_module(f"vos_deploy.{vos_deploy._HOMES[name]}")
    assert getattr(vos_deploy, name) is getattr(home, name)
    assert name in dir(vos_deploy) and name in vos_deploy.__all__


def test_there_is_nothing_else() -> None:
    assert sorted(vos_deploy.__all__) == sorted([*vos_deploy._HOMES, "__version__"])
    with pytest.raises(AttributeError, match="no attribute 'segmenter'"):
        vos_deploy.segmenter  # noqa: B018


def test_importing_loads_nothing() -> None:
    script = (
        "import sys, vos_deploy\n"
        "dir(vos_deploy)\n"
        "print({'numpy', 'cv2', 'onnxruntime', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
