"""Cutie's network: keys, the recorded numbers of its parts, configurations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.support import golden  # noqa: E402
from tests.support.cutie import recorded, shapes  # noqa: E402
from tests.support.golden import needs_golden  # noqa: E402
from vos_deploy.models.aggregate import soft_aggregate  # noqa: E402
from vos_deploy.models.cutie import Cutie  # noqa: E402
from vos_deploy.models.cutie.encoders import others_of  # noqa: E402
from vos_deploy.models.shared_keys import normalize  # noqa: E402

VARIANTS = ("base", "small")


@needs_golden
@pytest.mark.parametrize("name", [*VARIANTS, "base.single", "small.single"])
def test_official_keys_and_shapes(name: str) -> None:
    expected = shapes(name)
    config = Cutie.infer_config({key: torch.empty(shape) for key, shape in expected.items()})
    assert config is not None and config["single_object"] == name.endswith("single")
    found = {key: list(value.shape) for key, value in Cutie(**config).state_dict().items()}
    assert found == expected


@needs_golden
@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_recorded_parts(variant: str) -> None:
    """Every part on the first two frames, each given what the part before it made."""
    content, step = golden.arrays("cutie"), "_c32" if variant == "base" else "_c16"
    model = recorded(variant)
    frames, ids = golden.clip()

    def check(t: int, name: str, found: Any, tolerance: float = 2e-5) -> None:
        expected = content[f"{variant}.main.f{t}.{name}"]
        assert found.shape == expected.shape, name
        error = golden.error(found, expected) / float(np.abs(expected).max())
        assert error < tolerance, f"{name}: {error}"

    with torch.inference_mode():
        images = normalize(torch.from_numpy(frames[:2].copy()).permute(0, 3, 1, 2).float() / 255)
        encoded, maps = [], []
        for t, image in enumerate(images.split(1)):
            encoded.append(model.encode(image))
            maps.append(model.pixel_encoder(image))
            f16, f8, f4 = (x[0] for x in maps[t])
            stride = int(step[2:])
            keys = encoded[t].keys
            check(t, f"f16{step}", f16[::stride])
            check(t, f"f8{step}_s2", f8[::stride, ::2, ::2])
            check(t, f"f4{step}_s4", f4[::stride, ::4, ::4])
            check(t, "pix_feat_c16", encoded[t].pixel[0, ::16])
            check(t, "key_c4", keys.key[0, ::4])
            check(t, "shrinkage", keys.shrinkage[0])
            check(t, "selection_c4", keys.selection[0, ::4])

        drawn = torch.from_numpy(np.stack([ids == 1, ids == 2])).float().unsqueeze(0)
        masks = soft_aggregate(drawn).softmax(1)[:, 1:]
        first = encoded[0]
        trunk = model.mask_encoder.features(images[:1], masks, others_of(masks))
        check(0, "mask_trunk_c32", trunk[:, ::32])
        zeros = torch.zeros(2, 256, 15, 27)
        value, sensory, summary = model.encode_mask(images[:1], first.pixel, masks, zeros)
        check(0, "value_c16", value[:, ::16])
        check(0, "sensory_deep_c16", sensory[:, ::16])
        check(0, "summary", summary, 1e-5)
        place = model.object_summarizer.pos_enc(value)
        check(0, "summary_pe_c16", place[..., ::16], 1e-7)

        frame = encoded[1]
        key, shrinkage = (x.flatten(2).transpose(1, 2) for x in first.keys[:2])
        columns = value.flatten(2).unsqueeze(0)
        readout, affinity = model.read(frame.keys, key, shrinkage, columns, 30)
        check(1, "affinity_s9", affinity[0].T[::9, ::9], 5e-5)
        check(1, "visual_readout_c16", readout[:, ::16], 5e-5)
        small = torch.nn.functional.avg_pool2d(masks, 16)
        check(1, "last_mask16", small[0])
        check(1, "last_others16", others_of(small)[0])
        shared = model.pixel_fuser.fuser.shared(frame.pixel)
        fused = model.pixel_fuser(shared, readout, masks, sensory)
        check(1, "pixel_readout_c16", fused[:, ::16], 5e-5)

        transformer = model.object_transformer
        pixel, logits = transformer(fused, summary, 2, last_mask=True)
        for level, guide in enumerate(logits):
            check(1, f"aux_logits{level}", guide[0], 5e-5)
            if level < 3:
                blocked = transformer.blocked(guide)[:, ::8].numpy()
                expected = content[f"{variant}.main.f1.attn_blocked{level}"]
                assert np.array_equal(blocked, expected)
        check(1, "b2.pixel_c32", pixel[:, ::32], 5e-5)

        p8, p4, decoded = model.mask_decoder(pixel, frame.skip8, frame.skip4)
        check(1, "p8_c16_s2", p8[:, ::16, ::2, ::2], 5e-5)
        check(1, "p4_c16_s4", p4[:, ::16, ::4, ::4], 5e-5)
        check(1, "logits4_s2", decoded[:, 0, ::2, ::2], 5e-5)
        _, after = model.decode(pixel, frame, sensory)
        check(1, "sensory_c16", after[:, ::16], 2e-4)


def tiny(**config: Any) -> Cutie:
    torch.manual_seed(0)
    return Cutie("resnet18", width=32, **config)


def test_object_transformer_blocks_what_is_recorded_and_never_a_whole_row() -> None:
    transformer = tiny().object_transformer
    logits = torch.full((1, 2, 2, 3), -5.0)
    logits[0, 0, 0, 0] = 5  # object 0 wins one pixel, object 1 none
    blocked = transformer.blocked(logits)
    inside = torch.tensor([True, False, False, False, False, False])
    assert torch.equal(blocked[0, 0], ~inside) and torch.equal(blocked[0, 8], inside)
    assert not blocked[1, 0].any() and not blocked[1, 15].any()


def test_absent_objects_change_nothing() -> None:
    model = tiny()
    generator = torch.Generator().manual_seed(0)
    pixel = torch.randn(2, 32, 3, 5, generator=generator)
    memory = torch.rand(2, 16, 33, generator=generator)
    present = torch.tensor([[1.0, 0.0]])
    both, _ = model.object_transformer(pixel, memory, 2, present)
    alone, _ = model.object_transformer(pixel[:1], memory[:1], 1)
    assert torch.allclose(both[:1], alone, atol=1e-5)


def test_batches_are_clips_side_by_side() -> None:
    model = tiny()
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(2, 3, 48, 80, generator=generator)
    masks = torch.rand(2, 2, 48, 80, generator=generator)
    sensory = torch.randn(4, 32, 3, 5, generator=generator)

    def outputs(part: slice, rows: slice) -> list[Any]:
        frame = model.encode(frames[part])
        value, state, summary = model.encode_mask(
            frames[part], frame.pixel, masks[part], sensory[rows]
        )
        features, _ = model.fuse(frame.pixel, value, masks[part], state, summary)
        return [value, summary, *model.decode(features, frame, state)]

    with torch.inference_mode():
        together = outputs(slice(None), slice(None))
        for index in range(2):
            rows = slice(2 * index, 2 * index + 2)
            for found, expected in zip(
                outputs(slice(index, index + 1), rows), together, strict=True
            ):
                assert torch.allclose(found, expected[rows], atol=1e-4)


def test_half_keeps_what_is_summed_up_exact() -> None:
    model = tiny().half()
    kinds = {key: value.dtype for key, value in model.state_dict().items()}
    assert kinds["pixel_encoder.conv1.weight"] == torch.float16
    for key in (
        "object_summarizer.weights_pred.0.weight",
        "mask_encoder.sensory_update.transform.weight",
        "mask_decoder.sensory_update.transform.weight",
        "mask_decoder.pred.weight",
    ):
        assert kinds[key] == torch.float32, key
    assert kinds["mask_decoder.sensory_update.g4_conv.weight"] == torch.float16


def test_other_methods_are_not_taken_for_it() -> None:
    assert Cutie.infer_config({"Encoder_M.conv1.weight": torch.empty(64, 3, 7, 7)}) is None
    config = Cutie.infer_config(tiny(single_object=True).state_dict())
    expected = {"backbone": "resnet18", "width": 32, "single_object": True}
    assert config == expected
    fewer = Cutie("resnet18", 32, single_object=True, blocks=1)
    assert Cutie.infer_config(fewer.state_dict()) == fewer.config == {**expected, "blocks": 1}
