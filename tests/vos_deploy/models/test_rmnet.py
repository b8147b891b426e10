"""The network's identities and its checkpoint; its numbers are in test_rmnet_golden.py."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from tests.support.golden import error  # noqa: E402
from tests.support.rmnet import NARROW, official_state, small_network  # noqa: E402
from vos_deploy.errors import ModelError  # noqa: E402
from vos_deploy.models import create, load_checkpoint, load_model  # noqa: E402
from vos_deploy.models.padding import pad_to_stride  # noqa: E402
from vos_deploy.models.rmnet import RMNet  # noqa: E402
from vos_deploy.models.rmnet.network import (  # noqa: E402
    memory_region,
    query_region,
    regional_memory_read,
)
from vos_deploy.models.rmnet.regions import region_boxes  # noqa: E402
from vos_deploy.models.stm import QueryFeatures  # noqa: E402


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_configuration_is_read_off_the_keys(backbone: str) -> None:
    model = create("rmnet", **{**NARROW, "backbone": backbone})
    config = RMNet.infer_config(model.state_dict())
    assert config == model.config
    assert RMNet.infer_config(create("stm", backbone="resnet18").state_dict()) is None


@pytest.mark.parametrize("module", ["numpy._core", "numpy.core"])
def test_official_layout_loads_without_unpickling_code(module: str, tmp_path: Path) -> None:
    """Two networks in one file, `module.` in front, NumPy's numbers beside them; by NumPy 1 too."""
    model = small_network()
    torch.save(official_state(model), tmp_path / "new.pth")
    with (
        zipfile.ZipFile(tmp_path / "new.pth") as new,
        zipfile.ZipFile(tmp_path / "w.pth", "w") as old,
    ):
        for name in new.namelist():
            content = new.read(name)
            assert not name.endswith("data.pkl") or b"numpy._core.multiarray" in content
            content = content.replace(b"numpy._core.multiarray", f"{module}.multiarray".encode())
            old.writestr(name, content)
    loaded = load_model(tmp_path / "w.pth")
    assert isinstance(loaded, RMNet)
    assert loaded.config == model.config
    state = loaded.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


class Payload:
    """Stands for a pickled class: reading it would run its code."""

    made = 0

    def __setstate__(self, state: object) -> None:
        Payload.made += 1

    def __getstate__(self) -> dict[str, int]:
        return {"any": 1}


def test_code_beside_the_networks_is_not_run(tmp_path: Path) -> None:
    torch.save({**official_state(small_network()), "best_metrics": Payload()}, tmp_path / "w.pth")
    Payload.made = 0
    assert load_checkpoint(tmp_path / "w.pth").method == "rmnet"
    assert Payload.made == 0


@pytest.mark.parametrize("nested", [True, False])
def test_checkpoint_without_the_flow_network_is_refused(nested: bool, tmp_path: Path) -> None:
    state = official_state(small_network())
    torch.save({"rmnet": state["rmnet"]} if nested else state["rmnet"], tmp_path / "w.pth")
    with pytest.raises(ModelError, match="RMNet without TinyFlowNet"):
        load_checkpoint(tmp_path / "w.pth")


@pytest.mark.parametrize("seed", range(3))
def test_sparse_read_is_the_dense_one_on_random_masks(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    model, height, width, frames = small_network(), 208, 320, 3
    h, w = height // 16, width // 16
    masks = torch.zeros(frames + 1, height, width)
    for mask in masks:
        y, x = (int(torch.randint(side - 40, (1,), generator=generator)) for side in mask.shape)
        mask[y : y + 30, x : x + 40] = 1
    key, value = (torch.randn(1, 1, c, frames, h, w, generator=generator) for c in (16, 32))
    on = torch.stack([memory_region(m[None, None])[1][0, 0] for m in masks[:-1]])
    _, region = query_region(masks[None, -1:])
    key, value = key * on, value * on
    features = [torch.randn(1, 16, h, w, generator=generator), *[torch.zeros(1, 1, 1, 1)] * 3]
    query = QueryFeatures(*features)
    dense = model.rmnet.read(query, region, key, value)[0, 0].flatten(1).T
    inside, held = region.flatten() > 0, on.flatten() > 0
    rows = torch.cat([query.key[0].flatten(1).T[inside], torch.zeros(1, 16)])
    outside = torch.tensor([float((~held).sum())])
    keys, values = (x[0, 0].flatten(1).T[held] for x in (key, value))
    sparse = regional_memory_read(rows, keys, values, outside)
    assert 0 < held.sum() < held.numel() and 0 < inside.sum() < inside.numel()
    assert error(sparse[:-1], dense[inside]) < 1e-5
    assert error(sparse[-1:].expand(int((~inside).sum()), -1), dense[~inside]) < 1e-5


def test_lost_object_has_the_whole_frame_but_for_the_padding() -> None:
    masks = torch.zeros(1, 1, 40, 70)  # padded to 48 x 80: 4 rows above, 5 columns left
    _, region = query_region(masks)
    assert region.shape == (1, 1, 3, 5)
    assert not region[..., 0, :].any() and not region[..., 0].any()
    assert region[..., 1:, 1:].all()
    _, on = memory_region(pad_to_stride(masks, 16)[0])
    assert on.all()
    assert region_boxes(masks).dtype == torch.int32
