"""A model built for TensorRT in one file: written whole, and refused clearly when it is not."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vos_deploy.bundle import Bundle, Engines, Graph, TensorSpec
from vos_deploy.errors import ModelError, VosDeployError

ENGINES = {"encoder": b"encoder engine" * 100, "memory_read": b"memory engine"}
BUILD = "vos-deploy-build .*stm/ --output .*stm.plan"

Edit = Callable[[dict[str, bytes]], Any]


def make_bundle() -> Bundle:
    image = TensorSpec("image", "uint8", (480, 854, 3))
    key = TensorSpec("memory_key", "float16", ("N", 128))
    return Bundle(
        method="stm",
        precision="fp16",
        size=(480, 854),
        max_objects=4,
        graphs={
            "encoder": Graph((image,), (TensorSpec("query_key", "float16", (1620, 128)),)),
            "memory_read": Graph((key,), ()),
        },
        engine=Engines(
            runtime="tensorrt",
            version="11.4.0.106",
            gpu="NVIDIA L4",
            compute_capability="8.9",
            max_objects=4,
            memory_frames=20,
            profiles={
                "encoder": {},
                "memory_read": {"memory_key": ((1620, 128), (8100, 128), (32400, 128))},
            },
        ),
    )


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return make_bundle().save_plan(tmp_path / "stm.plan", ENGINES).path


def rewrite(plan: Path, edit: Edit, compression: int = zipfile.ZIP_STORED) -> None:
    """Write the members again after `edit` changed them."""
    with zipfile.ZipFile(plan) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    edit(members)
    with zipfile.ZipFile(plan, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def edit_manifest(plan: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    def apply(members: dict[str, bytes]) -> None:
        manifest = json.loads(members["manifest.json"])
        edit(manifest)
        members["manifest.json"] = json.dumps(manifest).encode()

    rewrite(plan, apply)


def test_load_returns_what_was_saved(tmp_path: Path) -> None:
    saved = make_bundle().save_plan(tmp_path / "stm.plan", ENGINES)
    loaded = Bundle.load(tmp_path / "stm.plan")
    assert loaded == saved
    assert loaded.engine == make_bundle().engine
    assert {name: loaded.read(name) for name in loaded.graphs} == ENGINES


def test_read_of_a_folder(tmp_path: Path) -> None:
    bundle = replace(make_bundle(), engine=None).save(tmp_path / "stm", ENGINES)
    assert bundle.read("encoder") == ENGINES["encoder"]


def test_archive_is_stored_and_the_same_every_time(plan: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(plan) as archive:
        assert archive.namelist() == ["manifest.json", "encoder.engine", "memory_read.engine"]
        assert {i.compress_type for i in archive.infolist()} == {zipfile.ZIP_STORED}
    again = make_bundle().save_plan(tmp_path / "again.plan", ENGINES).path
    assert again.read_bytes() == plan.read_bytes()


def test_failed_save_leaves_the_old_plan(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = plan.read_bytes()

    def full_disk(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full_disk)
    with pytest.raises(VosDeployError, match="no room left on the disk"):
        make_bundle().save_plan(plan, ENGINES)
    assert plan.read_bytes() == before
    assert [path.name for path in plan.parent.iterdir()] == ["stm.plan"]


def test_save_wants_every_engine_and_what_it_is_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="memory_read"):
        make_bundle().save_plan(tmp_path / "stm.plan", {"encoder": b""})
    with pytest.raises(ValueError, match="encoder"):
        replace(make_bundle(), engine=None).save_plan(tmp_path / "stm.plan", ENGINES)


def test_missing_plan_beside_its_folder(tmp_path: Path) -> None:
    replace(make_bundle(), engine=None).save(tmp_path / "stm", ENGINES)
    with pytest.raises(ModelError, match=f"no plan at .*folder beside it with: {BUILD}$"):
        Bundle.load(tmp_path / "stm.plan")


def test_missing_plan_without_its_folder(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=f"export a model with: .*--output .*stm && {BUILD} --size 480x854$"
    ):
        Bundle.load(tmp_path / "stm.plan")


@pytest.mark.parametrize("share", [0, 0.3, 0.9, 0.999])
def test_truncated(plan: Path, share: float) -> None:
    content = plan.read_bytes()
    plan.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelError, match=f"damaged or cut short.*{BUILD}"):
        Bundle.load(plan)


@pytest.mark.parametrize("content", [b"not an archive", b"ptrt" * 1000])
def test_foreign_file(plan: Path, content: bytes) -> None:
    plan.write_bytes(content)
    with pytest.raises(ModelError, match=f"is not a plan.*{BUILD}"):
        Bundle.load(plan)


def test_flipped_byte(plan: Path) -> None:
    content = bytearray(plan.read_bytes())
    content[content.index(b"encoder engine") + 50] ^= 1
    plan.write_bytes(content)
    with pytest.raises(ModelError, match=f"damaged.*CRC.*{BUILD}"):
        Bundle.load(plan)


def test_replaced_engine(plan: Path) -> None:
    rewrite(plan, lambda members: members.update({"encoder.engine": b"other"}))
    with pytest.raises(ModelError, match=f"encoder.engine.*sha256 differs.*{BUILD}"):
        Bundle.load(plan)


def test_missing_engine(plan: Path) -> None:
    rewrite(plan, lambda members: members.pop("encoder.engine"))
    with pytest.raises(ModelError, match=f"lacks encoder.engine; .*{BUILD}"):
        Bundle.load(plan)


def test_other_archive(plan: Path) -> None:
    rewrite(plan, lambda members: members.pop("manifest.json"))
    with pytest.raises(ModelError, match=f"has no manifest.json; .*{BUILD}"):
        Bundle.load(plan)


def test_member_that_the_manifest_does_not_name(plan: Path) -> None:
    rewrite(plan, lambda members: members.update({"extra.so": b""}))
    with pytest.raises(ModelError, match=f"'extra.so', which its manifest does not name.*{BUILD}"):
        Bundle.load(plan)


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/b.engine", "a\\b", ".."])
def test_paths_out_of_the_archive(plan: Path, name: str) -> None:
    rewrite(plan, lambda members: members.update({name: b""}))
    with pytest.raises(ModelError, match=f"not a plain file name.*{BUILD}"):
        Bundle.load(plan)


@pytest.mark.parametrize("name", ["../encoder.engine", "/etc/passwd", "", "a\\b"])
def test_manifest_that_points_out_of_the_archive(plan: Path, name: str) -> None:
    edit_manifest(plan, lambda manifest: manifest["graphs"]["encoder"].update(file=name))
    with pytest.raises(ModelError, match=f"not a plain file name.*{BUILD}"):
        Bundle.load(plan)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_member_twice(plan: Path) -> None:
    with zipfile.ZipFile(plan, "a") as archive:
        archive.writestr("encoder.engine", b"another")
    with pytest.raises(ModelError, match=f"'encoder.engine' more than once.*{BUILD}"):
        Bundle.load(plan)


def test_compressed(plan: Path) -> None:
    rewrite(plan, lambda members: None, zipfile.ZIP_DEFLATED)
    with pytest.raises(ModelError, match=f"compressed.*{BUILD}"):
        Bundle.load(plan)


def test_manifest_of_absurd_size(plan: Path) -> None:
    rewrite(plan, lambda members: members.update({"manifest.json": b" " * (2**24 + 1)}))
    with pytest.raises(ModelError, match=f"absurd size.*{BUILD}"):
        Bundle.load(plan)


def test_newer_plan(plan: Path) -> None:
    edit_manifest(plan, lambda manifest: manifest.update(version=2))
    with pytest.raises(ModelError, match=r"version 2.*up to version 1.*git pull"):
        Bundle.load(plan)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[]", b'{"format": "other"}'])
def test_manifest_that_is_none(plan: Path, content: bytes) -> None:
    rewrite(plan, lambda members: members.update({"manifest.json": content}))
    with pytest.raises(ModelError, match=f"(not valid JSON|does not describe).*{BUILD}"):
        Bundle.load(plan)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("runtime", 3),
        ("version", None),
        ("memory_frames", True),
        ("gpu", ["L4"]),
        ("profiles", None),
        ("profiles", {"memory_read": {"memory_key": [[1, 128], [2, 128]]}}),
        ("profiles", {"memory_read": {"memory_key": [[1], [2], [3, 4]]}}),
        ("profiles", {"memory_read": {"memory_key": [["1"], [2], [3]]}}),
        ("profiles", {"memory_read": {"memory_key": "1"}}),
    ],
)
def test_damaged_engine_section(plan: Path, field: str, value: Any) -> None:
    edit_manifest(plan, lambda manifest: manifest["engine"].update({field: value}))
    with pytest.raises(ModelError, match=f"manifest.json is damaged.*{BUILD}"):
        Bundle.load(plan)


def test_plan_without_engine_section(plan: Path) -> None:
    edit_manifest(plan, lambda manifest: manifest.pop("engine"))
    with pytest.raises(ModelError, match=f"'engine' must be a dict.*{BUILD}"):
        Bundle.load(plan)
