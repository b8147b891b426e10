"""Which TensorRT there is, what it says, and that our stub of it tells the truth."""

from __future__ import annotations

import ast
import logging
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from vos_deploy.errors import InputError
from vos_deploy.extras import install
from vos_deploy.runtime.backends.tensorrt import library
from vos_deploy.runtime.backends.tensorrt.library import Log, import_runtime

STUB = Path(__file__).parents[4] / "typings" / "tensorrt" / "__init__.pyi"
# In the stub, and only in some versions of TensorRT for another GPU; the code asks first.
NOT_IN_RTX = {"ICudaEngine.device_memory_size"}


class Native:
    def __init__(self) -> None:
        pass


@pytest.fixture
def nothing_installed(monkeypatch):
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)


def test_nothing_installed(nothing_installed, monkeypatch):
    monkeypatch.setattr(library, "has_driver", lambda: True)
    with pytest.raises(InputError, match=f"^TensorRT cannot.*{re.escape(install('tensorrt'))}$"):
        import_runtime()
    with pytest.raises(InputError, match=f"{re.escape(install('rtx'))}$"):
        import_runtime("tensorrt_rtx")
    # Without a GPU only TensorRT for RTX is of any use, and the other does not install.
    monkeypatch.setattr(library, "has_driver", lambda: False)
    with pytest.raises(InputError, match=f"{re.escape(install('rtx'))}$"):
        import_runtime()


def test_auto_prefers_tensorrt(nothing_installed, monkeypatch):
    rtx, full = SimpleNamespace(), SimpleNamespace()
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", rtx)
    assert import_runtime() is rtx
    monkeypatch.setitem(sys.modules, "tensorrt", full)
    assert import_runtime() is full
    assert import_runtime("tensorrt_rtx") is rtx


def test_errors_are_kept_and_everything_is_logged(caplog):
    caplog.set_level(logging.DEBUG, "vos_deploy")
    log = Log(SimpleNamespace(ILogger=Native))
    for severity, message in ((1, "first\n  cause"), (2, "careful"), (3, "fyi"), (0, "then this")):
        log.native.log(severity, message)
    assert log.drain() == "first cause; then this"
    assert log.drain() == "TensorRT gave no reason"
    levels = [record.levelno for record in caplog.records]
    assert levels == [logging.INFO, logging.INFO, logging.DEBUG, logging.INFO]


def stub_names() -> list[str]:
    """`Class.member` for everything the stub declares."""
    names = []

    def visit(node: ast.AST, prefix: str) -> None:
        for item in ast.iter_child_nodes(node):
            if isinstance(item, ast.ClassDef):
                names.append(prefix + item.name)
                visit(item, f"{prefix}{item.name}.")
            elif isinstance(item, ast.FunctionDef):
                names.append(prefix + item.name)
            elif isinstance(item, ast.Assign | ast.AnnAssign):
                target = item.targets[0] if isinstance(item, ast.Assign) else item.target
                assert isinstance(target, ast.Name)
                names.append(prefix + target.id)

    visit(ast.parse(STUB.read_text()), "")
    return [name for name in names if not name.endswith(".__buffer__")]


@pytest.mark.parametrize("name", stub_names())
def test_stub_names_what_there_is(name):
    value = pytest.importorskip("tensorrt_rtx")
    if name in NOT_IN_RTX:
        assert not hasattr(value.ICudaEngine, name.split(".")[1])
        return
    for part in name.split("."):
        value = getattr(value, part)


def test_stub_has_not_too_little():
    assert len(stub_names()) > 60
