"""The network against the numbers of the official code, part by part, and its own identities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

import torch.nn.functional as F  # noqa: E402

from tests.support import gfrtm, golden  # noqa: E402
from tests.support.golden import error, needs_golden  # noqa: E402
from vos_deploy.errors import InputError, ModelError  # noqa: E402
from vos_deploy.models import create, load_checkpoint, load_model, save_checkpoint  # noqa: E402
from vos_deploy.models.gfrtm.decoder import Upsampler, double, merge, sum_shifted  # noqa: E402
from vos_deploy.models.gfrtm.network import GFRTM, Cells  # noqa: E402

FEATURES, TEMPLATE, GATE, SCORES, DEEP, LOGITS = 2e-5, 1e-5, 1e-4, 1e-3, 2e-3, 2e-2
RECORDED_101 = 3e-5
BACKBONES = ["resnet18", pytest.param("resnet101", marks=pytest.mark.slow)]


def recorded(name: str) -> Any:
    return torch.from_numpy(np.array(golden.arrays("gfrtm")[name]))


def frame(index: int) -> Any:
    return torch.from_numpy(golden.clip()[0][index : index + 1]).permute(0, 3, 1, 2) / 255


@needs_golden
@pytest.mark.parametrize("backbone", ["resnet18", "resnet101"])
def test_keys_are_those_of_the_official_checkpoint(backbone: str) -> None:
    own = create("gfrtm", backbone=backbone).state_dict()
    keys = golden.keys("gfrtm")[backbone]
    found = {k: list(v.shape) for k, v in own.items() if not k.startswith("trunk.")}
    assert found == {key: shape for key, (shape, _) in keys["model"].items()}
    assert len(own) - len(found) == len(keys["backbone_torchvision"])


@needs_golden
@pytest.mark.parametrize("backbone", BACKBONES)
def test_features_are_the_official_ones(backbone: str) -> None:
    model = gfrtm.network(backbone)
    run, step = ("M", 8) if backbone == "resnet18" else ("R101", 32)

    def errors(kind: torch.dtype) -> list[float]:
        with torch.inference_mode():
            layer2, layer3 = model.to(kind).trunk.shallow(frame(1).to(kind))
            layer4, layer5 = model.trunk.deep(layer3)
        found = [layer2[:, ::step, ::4, ::4]]
        found += [layer[:, ::step, ::2, ::2] for layer in (layer3, layer4, layer5)]
        return [error(f, recorded(f"{run}/f1/feat_layer{n}")) for n, f in enumerate(found, 2)]

    if backbone == "resnet18":
        assert max(errors(torch.float32)) < FEATURES
        return
    assert max(errors(torch.float32)[:2]) < FEATURES
    # The two deepest of ResNet-101 reach 42, and the recording itself is 2.5e-5 from float64:
    # float32 comes nearer only by rounding as it did, which differs between processors.
    exact = errors(torch.float64)
    model.float()
    assert max(exact[:2]) < FEATURES and max(exact[2:]) < RECORDED_101


@needs_golden
def test_a_computed_frame_is_the_official_one() -> None:
    model, mask = gfrtm.network(), golden.clip()[1]
    with torch.inference_mode():
        first = model.encode_shallow(frame(0))
        deep0 = model.encode_deep(first.layer3)
        shallow = model.encode_shallow(frame(1))
        deep1 = model.encode_deep(shallow.layer3)
        for index in (1, 2):
            drawn = torch.from_numpy((mask == index).astype(np.float32))[None, None]
            template = model.template(first.layer3, F.interpolate(drawn, first.layer3.shape[2:]))
            assert error(template, recorded(f"M/o{index}/template")) < TEMPLATE
            score = recorded(f"M/o{index}/score_f0")
            started = model.refiner.deep(score, deep0.skip16, deep0.skip32, deep0.context)
            assert error(started, recorded(f"M/o{index}/prevX_f0")) < 1e-4
            at = f"M/f1/o{index}"
            gate, _ = model.gate(shallow.match, F.interpolate(drawn, score.shape[2:]), template)
            assert error(gate[0], recorded(f"{at}/gate_logits")) < GATE
            assert error(gate.softmax(1)[0], recorded(f"{at}/gate_prob")) < GATE
            score = recorded(f"{at}/score_used")
            deep = model.refiner.deep(score, deep1.skip16, deep1.skip32, deep1.context)
            assert error(deep[:, ::4], recorded(f"{at}/prevX_out")) < 1e-4
            logits = model.refiner.shallow(score, deep, shallow.skip8, shallow.skip4, mask.shape)
            assert error(logits[0, 0, ::2, ::2], recorded(f"{at}/logits")) < 1e-3


@needs_golden
def test_a_reused_frame_is_the_official_one() -> None:
    model = gfrtm.network()
    with torch.inference_mode():
        before = model.encode_deep(model.encode_shallow(frame(2)).layer3)
        shallow = model.encode_shallow(frame(3))
        for index in (1, 2):
            score = recorded(f"M/f2/o{index}/score_used")
            deep = model.refiner.deep(score, before.skip16, before.skip32, before.context)
            gate, diff = model.gate(shallow.match, score, recorded(f"M/o{index}/template"))
            at = f"M/f3/o{index}"
            assert error(gate[0], recorded(f"{at}/gate_logits")) < GATE
            assert error(diff, recorded(f"{at}/diff")) < GATE
            assert error(score + diff, recorded(f"{at}/score_used")) < GATE
            translated = model.refiner.translate(deep, diff)
            assert error(translated[:, ::4], recorded(f"{at}/translated")) < 1e-4
            size = (240, 432)
            logits = model.refiner.shallow(
                score + diff, translated, shallow.skip8, shallow.skip4, size
            )
            assert error(logits[0, 0, ::2, ::2], recorded(f"{at}/logits")) < 1e-3


@needs_golden
def test_recorded_vectors() -> None:
    assert error(double(recorded("bicubic/x")), recorded("bicubic/y")) < 1e-6
    with torch.inference_mode():
        logits = gfrtm.network().convGS(recorded("gate/x_f16").float()).flatten()
    assert error(logits, recorded("gate/logits")) < GATE


@pytest.mark.parametrize("size", [(60, 107), (3, 5), (7, 7), (8, 20)])
def test_cells_are_adaptive_max_pooling(size: tuple[int, int]) -> None:
    x = torch.randn(1, 3, *size)
    assert torch.equal(Cells()(x), F.adaptive_max_pool2d(x, 7))


def test_doubling_is_bicubic() -> None:
    x = torch.randn(1, 3, 6, 9)
    assert error(double(x), F.interpolate(x, scale_factor=2.0, mode="bicubic")) < 1e-5


def test_upsampler_convolves_at_the_full_size() -> None:
    torch.manual_seed(0)
    module, x = Upsampler(), torch.randn(1, 64, 8, 10)
    with torch.inference_mode():
        expected = F.interpolate(F.relu(module.conv1(double(x))), scale_factor=2.0, mode="bicubic")
        expected = module.conv2(F.interpolate(expected, size=(31, 38), mode="bilinear"))
        assert error(module(x, (31, 38)), expected) < 1e-5


def test_shifted_sum_is_a_convolution() -> None:
    weight, x = torch.randn(1, 5, 3, 3), torch.randn(1, 5, 6, 7)
    taps = F.conv2d(x, weight[0].flatten(1).T[..., None, None])
    assert error(sum_shifted(taps), F.conv2d(x, weight, padding=1)) < 1e-5


def shares_of(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One merge of the original: what the winners keep [1+K, ...], and who they are."""
    p = np.clip(masks, 1e-7, 1 - 1e-7)
    p[0] = (1 - p[1:]).min(0)
    odds = p / (1 - p)
    shares = np.exp(odds - odds.max(0))
    shares /= shares.sum(0)
    winner = shares.argmax(0)
    return np.where(np.arange(len(p)).reshape(-1, 1, 1) == winner, shares, 0), winner


@pytest.mark.parametrize("objects", [1, 2, 5])
def test_merge_is_the_double_merge(objects: int) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (objects, 50, 60))
    masks = np.concatenate([np.zeros((1, 50, 60)), 1 / (1 + np.exp(-logits))])
    once, _ = shares_of(masks)
    _, twice = shares_of(once.copy())
    probabilities, labels = merge(torch.from_numpy(logits).float())
    assert error(probabilities[1:], once[1:]) < 1e-4  # odds of float32
    assert error(probabilities.sum(0), 1) < 1e-6
    assert np.array_equal(labels, twice)
    assert torch.equal(labels, probabilities.argmax(0))
    if objects == 1:
        assert np.array_equal(labels.numpy() > 0, logits[0] > 0)


def test_two_objects_that_are_certain_of_a_pixel_leave_it_to_the_background() -> None:
    _, labels = merge(torch.tensor([[[20.0, 20.0, -99.0]], [[17.0, 1.0, -99.0]]]))
    assert labels.tolist() == [[0, 1, 0]]


class Meter:
    """Stands for the class whose objects the official file holds."""


@needs_golden
def test_official_file_and_torchvision_trunk(tmp_path: Path) -> None:
    torch.save(
        {"name": "x", "epoch": 260, "stats": {"loss": Meter()}, "model": gfrtm.state()},
        tmp_path / "official.pth",
    )
    torch.save(gfrtm.trunk(), tmp_path / "resnet18.pth")
    model = load_model(tmp_path / "official.pth", "gfrtm", tmp_path / "resnet18.pth")
    expected = gfrtm.network().state_dict()
    own = model.state_dict()
    assert own.keys() == expected.keys()
    counters = "num_batches_tracked"
    assert all(torch.equal(own[k], expected[k]) for k in own if not k.endswith(counters))
    with pytest.raises(InputError, match="resnet18 with --trunk"):
        load_model(tmp_path / "official.pth", "gfrtm")
    torch.save(gfrtm.trunk("resnet101"), tmp_path / "resnet101.pth")
    with pytest.raises(ModelError, match="another ResNet"):
        load_model(tmp_path / "official.pth", "gfrtm", tmp_path / "resnet101.pth")


@pytest.mark.parametrize("backbone", ["resnet34", "resnet50"])
def test_own_checkpoint_holds_the_trunk(tmp_path: Path, backbone: str) -> None:
    model = create("gfrtm", backbone=backbone, target_channels=32)
    assert GFRTM.infer_config(model.state_dict()) == {"backbone": backbone}
    save_checkpoint(tmp_path / "own.safetensors", model)
    assert load_checkpoint(tmp_path / "own.safetensors").config == model.config
    loaded = load_model(tmp_path / "own.safetensors")
    assert error(loaded.trunk.conv1.weight.detach(), model.trunk.conv1.weight.detach()) == 0
    with pytest.raises(InputError, match="omit --trunk"):
        load_model(tmp_path / "own.safetensors", trunk=tmp_path / "resnet.pth")


def test_methods_without_a_trunk_file_refuse_one(tmp_path: Path) -> None:
    model = create("stm", backbone="resnet18", key_dim=8, value_dim=8, decoder_width=8)
    save_checkpoint(tmp_path / "stm.safetensors", model)
    with pytest.raises(InputError, match="omit --trunk"):
        load_model(tmp_path / "stm.safetensors", trunk=tmp_path / "resnet.pth")


def test_frame_shares_are_exact() -> None:
    """What is computed once per frame gives what the whole convolution on (frame, score) gives."""
    torch.manual_seed(0)
    model = create("gfrtm")
    layer3, score = torch.randn(1, 128, 8, 10), torch.randn(1, 1, 4, 5)
    upsampled = F.interpolate(score, (8, 10), mode="bilinear")
    with torch.inference_mode():
        matching = model.Tmatching.Tmatching
        joined = torch.cat([layer3, upsampled], 1)
        template = torch.randn(1, 64, 64)
        key, features = matching.conv_key(joined), matching.conv_feat(joined)
        similarity = (template @ key.flatten(2)).view_as(key)
        expected = matching.blend(torch.cat([features, similarity], 1))
        found = matching(matching.frame_share(layer3), score, template)
        assert error(found, expected) < 1e-4
        encoder = model.refiner.TSE["layer3"]
        reduced = encoder.reduce(layer3)
        expected = encoder.transform(torch.cat([reduced, upsampled], 1))
        assert error(encoder(encoder.frame_share(reduced), score), expected) < 1e-5
