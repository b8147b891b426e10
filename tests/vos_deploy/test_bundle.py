"""A model on disk: written whole, and refused with a clear sentence when something is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from vos_deploy import bundle as bundle_module
from vos_deploy.bundle import Bundle, Graph, MemoryDefaults, TensorSpec, demonstration_model
from vos_deploy.errors import ModelError
from vos_deploy.methods import DEMONSTRATION

MEND = "python -m vos_deploy.export --method stm --output"

CONTENTS = {"encoder": b"encoder bytes", "decoder": b"decoder bytes"}


def make_bundle(**fields: Any) -> Bundle:
    graph = Graph(
        inputs=(TensorSpec("image", "uint8", ("H", "W", 3)),),
        outputs=(TensorSpec("query_key", "float32", ("hw", 128)),),
    )
    return Bundle(
        **{
            "method": "stm",
            "precision": "fp32",
            "graphs": {"encoder": graph, "decoder": graph},
        }
        | fields
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_bundle().save(tmp_path / "stm", CONTENTS).path


def edit(folder: Path, **fields: Any) -> None:
    """Change top-level fields of a manifest; None removes one."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({k: v for k, v in manifest.items() if v is not None}))


def test_load_returns_what_was_saved(tmp_path: Path) -> None:
    saved = make_bundle(
        config={"backbone": "resnet18"},
        size=(480, 854),
        max_objects=4,
        memory=MemoryDefaults(every=3, frames=6),
        parity={"decoder": {"labels": 0.0}},
        checkpoint={"name": "stm.pth", "sha256": "00"},
        licence="MIT",
        versions={"torch": "2.13.0"},
    ).save(tmp_path / "stm", CONTENTS)
    loaded = Bundle.load(tmp_path / "stm")
    assert loaded == saved
    assert loaded.size == (480, 854)
    assert loaded.graph_path("encoder").read_bytes() == CONTENTS["encoder"]
    assert loaded.output("encoder", "query_key").shape == ("hw", 128)


def test_manifest_is_the_documented_one(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["format"] == "vos_deploy model"
    assert manifest["version"] == 1
    assert manifest["size"] is None
    assert manifest["memory"] == {"every": 5, "frames": 8}
    encoder = manifest["graphs"]["encoder"]
    assert encoder["file"] == "encoder.onnx"
    assert encoder["inputs"] == [{"name": "image", "dtype": "uint8", "shape": ["H", "W", 3]}]


def test_save_takes_files_too(tmp_path: Path) -> None:
    (tmp_path / "big.onnx").write_bytes(b"big")
    bundle = make_bundle().save(tmp_path / "stm", CONTENTS | {"encoder": tmp_path / "big.onnx"})
    assert bundle.graph_path("encoder").read_bytes() == b"big"


def test_save_replaces_a_model(folder: Path) -> None:
    make_bundle(method="rde").save(folder, CONTENTS)
    assert Bundle.load(folder).method == "rde"
    assert [path.name for path in folder.parent.iterdir()] == ["stm"]


def test_save_spares_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(ModelError, match="exists and is not a model folder"):
        make_bundle().save(tmp_path, CONTENTS)


def test_failed_save_leaves_the_old_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*arguments: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(bundle_module, "sha256", full_disk)
    with pytest.raises(OSError, match="no space"):
        make_bundle(method="rde").save(folder, CONTENTS)
    monkeypatch.undo()
    assert Bundle.load(folder).method == "stm"
    assert [path.name for path in folder.parent.iterdir()] == ["stm"]


def test_save_wants_every_graph(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="decoder"):
        make_bundle().save(tmp_path / "stm", {"encoder": b""})


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"no model at .*; export it with: {MEND} .*nowhere"):
        Bundle.load(tmp_path / "nowhere")


def test_folder_without_manifest(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"has no manifest.json.*{MEND}"):
        Bundle.load(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00", b""])
def test_manifest_that_is_no_json(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(ModelError, match=f"not valid JSON.*{MEND}"):
        Bundle.load(folder)


@pytest.mark.parametrize("content", ["[]", "3", "{}", '{"format": "something else"}'])
def test_foreign_manifest(folder: Path, content: str) -> None:
    (folder / "manifest.json").write_text(content)
    with pytest.raises(ModelError, match=f"does not describe a vos_deploy model.*{MEND}"):
        Bundle.load(folder)


def test_newer_version(folder: Path) -> None:
    edit(folder, version=2)
    with pytest.raises(ModelError, match=r"version 2.*up to version 1.*git pull"):
        Bundle.load(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("method", None),
        ("short_side", "480"),
        ("max_objects", True),
        ("size", [480]),
        ("size", "480x854"),
        ("graphs", []),
        ("graphs", {"encoder": 1}),
        ("memory", {"every": 5}),
    ],
)
def test_damaged_field_is_named(folder: Path, field: str, value: Any) -> None:
    edit(folder, **{field: value})
    with pytest.raises(ModelError, match=f"manifest.json is damaged.*{MEND}"):
        Bundle.load(folder)


def test_precision_that_is_not_known(folder: Path) -> None:
    edit(folder, precision="int4")
    with pytest.raises(ModelError, match=r"precision 'int4'.* knows fp32, fp16, int8; upgrade"):
        Bundle.load(folder)


def test_missing_graph_file(folder: Path) -> None:
    (folder / "decoder.onnx").unlink()
    with pytest.raises(ModelError, match=f"lacks decoder.onnx.*{MEND}"):
        Bundle.load(folder)


def test_changed_graph_file(folder: Path) -> None:
    (folder / "decoder.onnx").write_bytes(b"decoder bytez")
    with pytest.raises(ModelError, match=rf"decoder.onnx is not the file.*sha256.*{MEND}"):
        Bundle.load(folder)


@pytest.mark.parametrize("name", ["../secret.onnx", "/etc/passwd", "a/b.onnx", "a\\b.onnx", ""])
def test_graph_file_outside_the_folder(folder: Path, name: str) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["graphs"]["encoder"]["file"] = name
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match="not a plain file name"):
        Bundle.load(folder)


def test_unknown_output(folder: Path) -> None:
    with pytest.raises(ModelError, match="no output 'readout'"):
        Bundle.load(folder).output("encoder", "readout")


def test_demonstration_model_is_a_model_or_a_clear_error() -> None:
    try:
        path = demonstration_model()
    except ModelError as error:
        assert MEND in str(error)
    else:
        assert Bundle.load(path).method == DEMONSTRATION
