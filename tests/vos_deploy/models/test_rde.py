"""The network against the numbers of the official code, array by array, and its own identities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from tests.support import golden  # noqa: E402
from tests.support.golden import error, needs_golden  # noqa: E402
from tests.support.rde import NARROW, network, probe, relative  # noqa: E402
from vos_deploy.errors import ModelError  # noqa: E402
from vos_deploy.models import create, load_model  # noqa: E402
from vos_deploy.models.aggregate import aggregated_odds  # noqa: E402
from vos_deploy.models.rde.compress import FRAMES, Compression, PlaneConv, SEBlock  # noqa: E402
from vos_deploy.models.rde.network import RDE  # noqa: E402
from vos_deploy.models.shared_keys import memory_read, normalize  # noqa: E402

FEATURES, COMPRESSED = 5e-5, 1e-5  # absolute; relative to the largest number


@needs_golden
def test_keys_and_shapes_are_the_official_ones() -> None:
    found = {k: list(v.shape) for k, v in create("rde").state_dict().items()}
    assert found == golden.keys("rde")["keys"]


@needs_golden
def test_keys_of_more_blocks_and_of_the_first_stage() -> None:
    recorded = golden.keys("rde")
    with torch.device("meta"):
        more = RDE(repeat=1).state_dict()
        first = RDE(compress=False).state_dict()
    expected = {**recorded["keys"], **recorded["repeat_n_extra_per_block"]}
    assert {k: list(v.shape) for k, v in more.items()} == expected
    assert len(first) == recorded["stage0_single_object"]["count"]
    assert set(first) == {k for k in recorded["keys"] if not k.startswith("mem_compress.")}


@pytest.mark.parametrize("config", [{}, {"repeat": 2}, {"compress": False}])
def test_configuration_is_read_off_the_keys(config: dict[str, Any]) -> None:
    model = create("rde", **NARROW, **config)
    found = RDE.infer_config(model.state_dict())
    assert found == model.config
    assert RDE.infer_config(create("stm", backbone="resnet18").state_dict()) is None


def test_checkpoint_of_the_first_stage(tmp_path: Path) -> None:
    state = create("rde", **NARROW, compress=False).state_dict()
    state["value_encoder.conv1.weight"] = state["value_encoder.conv1.weight"][:, :4].clone()
    torch.save(state, tmp_path / "stage0.pth")
    # By its keys it may be an STCN as well.
    model = load_model(tmp_path / "stage0.pth", "rde")
    assert model.config["compress"] is False
    assert not model.state_dict()["value_encoder.conv1.weight"][:, 4].any()


def test_missing_parts_are_named(tmp_path: Path) -> None:
    state = create("rde", **NARROW).state_dict()
    del state["mem_compress.compress_key.bias"]
    torch.save(state, tmp_path / "damaged.pth")
    with pytest.raises(ModelError, match=r"1 missing: mem_compress\.compress_key\.bias"):
        load_model(tmp_path / "damaged.pth")


@needs_golden
@pytest.mark.slow
def test_every_intermediate_is_the_official_one() -> None:
    model, recorded = network("pure"), golden.arrays("rde")
    frames, mask = golden.clip()
    masks = torch.stack([torch.from_numpy(mask == i) for i in (1, 2)]).float()
    images = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        probabilities = aggregated_odds(masks[None])[0]
        assert error(probabilities[:, ::4, ::4], recorded["pure.f0.prob_s4"]) < 1e-6
        frame = normalize(images)
        first, query = model.encode_key(frame[:1]), model.encode_key(frame[1:2])
        assert error(first.key, recorded["pure.f0.k16"]) < FEATURES
        assert error(first.f16[:, ::16], recorded["pure.f0.f16_c16"]) < FEATURES
        assert error(first.f8[:, ::16, ::2, ::2], recorded["pure.f0.f8_c16_s2"]) < FEATURES
        assert error(first.f4[:, ::16, ::4, ::4], recorded["pure.f0.f4_c16_s4"]) < FEATURES
        value = model.encode_value(frame[:1], first.f16, probabilities[1:])
        assert error(value[:, ::8], recorded["pure.f0.value_c8"][:, :, 0]) < FEATURES
        assert error(query.key, recorded["pure.f1.k16"]) < FEATURES
        assert error(query.value[:, ::4], recorded["pure.f1.qv16_c4"]) < FEATURES
        keys, values = (torch.stack([x] * 2, dim) for x, dim in ((first.key[0], 1), (value, 2)))
        readout = model.read(query, keys, values, 40)
        assert error(readout[:, ::8], recorded["pure.f1.readout_c8"]) < FEATURES
        logits = model.decode(readout, query)[:, 0]
        assert error(logits[:, ::2, ::2], recorded["pure.f1.logits_s2"]) < FEATURES


@needs_golden
@pytest.mark.parametrize("weights", ["pure", "calm"])
def test_compression_of_probes(weights: str) -> None:
    compress, recorded = network(weights).mem_compress, golden.arrays("rde")
    assert compress is not None
    keys = torch.from_numpy(probe("sam.key", (1, 64, 2, 15, 27), 1.4))
    values = torch.from_numpy(probe("sam.value", (2, 512, 2, 15, 27), 2.0))
    with torch.inference_mode():
        key = compress.keys(keys[:, :, 0], keys[:, :, 1])
        value = compress.values(values[:, :, 0], values[:, :, 1])
        prefix = f"{weights}.probe.sam"
        assert relative(key, recorded[f"{prefix}.out_key"][:, :, 0]) < COMPRESSED
        step = 16 if weights == "pure" else 32
        expected = recorded[f"{prefix}.out_value_c{step}"].reshape(2, -1, 15, 27)
        assert relative(value[:, ::step], expected) < COMPRESSED
        if weights == "calm":
            return
        for branch, x, step in (("key", keys, 16), ("value", values, 128)):
            encoder = getattr(compress, f"{branch}_encoder")
            non_local = encoder.non_local(x.transpose(1, 2).flatten(0, 1))
            for name, found in (("non_local", non_local), ("aspp", encoder.conv1(non_local))):
                official = recorded[f"{prefix}.{branch}.{name}_c{step}"]
                found = found.unflatten(0, (-1, FRAMES)).transpose(1, 2)[:, ::step]
                assert relative(found, official) < COMPRESSED


@needs_golden
@pytest.mark.parametrize("top_k", [20, 40])
def test_memory_read_of_probes(top_k: int) -> None:
    def rows(name: str, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.from_numpy(probe(name, shape)).flatten(2)

    key = rows("read.mk", (1, 64, 3, 15, 27))[0].T
    query = rows("read.qk", (1, 64, 15, 27))[0].T
    value = rows("read.mv", (2, 512, 3, 15, 27)).permute(2, 0, 1).flatten(1)
    found = memory_read(query, key, value, top_k).unflatten(1, (2, 512)).permute(1, 2, 0)
    expected = golden.arrays("rde")[f"probe.read.top{top_k}_c16"]
    assert error(found[:, ::16].unflatten(2, (15, 27)), expected) < FEATURES


@needs_golden
def test_aggregation_of_probes() -> None:
    objects = torch.from_numpy(probe("agg.logit", (3, 1, 32, 48), 6)).sigmoid()
    found = aggregated_odds(objects[:, 0][None])[0]
    # Where several objects are certain, the last bit of 1 - p decides.
    assert error(found, golden.arrays("rde")["probe.agg"][:, 0]) < 1e-5


def plain(conv: PlaneConv, x: torch.Tensor) -> torch.Tensor:
    return nn.functional.conv3d(x, conv.weight, conv.bias, 1, conv.padding, conv.dilation)


def in_three_dimensions(compression: Compression, branch: str, x: torch.Tensor) -> torch.Tensor:
    """The branch on [B, C, T, h, w], as the paper has it: 3-D convolutions and all affinities."""
    encoder = getattr(compression, f"{branch}_encoder")
    layer = encoder.non_local
    theta = plain(layer.theta, x).flatten(2)
    phi, g = (
        F.max_pool3d(plain(part[0], x), (1, 2, 2)).flatten(2) for part in (layer.phi, layer.g)
    )
    affinity = theta.transpose(1, 2) @ phi / phi.shape[2]
    y = (affinity @ g.transpose(1, 2)).transpose(1, 2).unflatten(2, x.shape[2:])
    x = x + plain(layer.W, y)
    for block in encoder.se_block:
        x = F.relu(x + squeeze_and_excite(block, x))
    views = [plain(getattr(encoder.conv1, f"aspp{i}").atrous_conv, x).relu() for i in range(1, 5)]
    x = x + plain(encoder.conv1.conv1, torch.cat(views, 1)).relu()
    squeeze = getattr(compression, f"compress_{branch}")
    return F.conv3d(x, squeeze.weight, squeeze.bias, padding=(0, 1, 1))[:, :, 0]


def squeeze_and_excite(block: SEBlock, x: torch.Tensor) -> torch.Tensor:
    y = F.relu(F.instance_norm(plain(block.conv1, x)))
    y = F.instance_norm(plain(block.conv2, y))
    gate = block.ses.fc(F.adaptive_avg_pool3d(y, (2, 1, 1)).flatten(1))
    return F.instance_norm(y * gate.view(*y.shape[:3], 1, 1))


@pytest.mark.parametrize("repeat", [0, 2])
@pytest.mark.parametrize("size", [(4, 6), (5, 7)])
def test_compression_in_two_dimensions_is_that_in_three(repeat: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    compression = Compression(16, 32, repeat).eval()
    with torch.inference_mode():
        for branch, channels, batch in (("key", 16, 1), ("value", 32, 3)):
            x = torch.randn(batch, channels, FRAMES, *size)
            found = getattr(compression, f"{branch}s")(x[:, :, 0], x[:, :, 1])
            assert relative(found, in_three_dimensions(compression, branch, x)) < COMPRESSED


def test_half_precision_leaves_the_compression_alone() -> None:
    model = create("rde", **NARROW)
    before = {k: v.clone() for k, v in model.state_dict().items() if "mem_compress" in k}
    after = model.half().state_dict()
    assert before
    assert all(torch.equal(after[key], value) for key, value in before.items())
    halves = {k for k, v in after.items() if v.dtype == torch.float16}
    assert halves == {k for k in after if k not in before and "num_batches" not in k}
