"""The networks against the numbers of the official code, array by array."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.support import golden  # noqa: E402
from tests.support.golden import error, needs_golden  # noqa: E402
from tests.support.rmnet import golden_network  # noqa: E402
from vos_deploy.models import create  # noqa: E402
from vos_deploy.models.aggregate import soft_aggregate  # noqa: E402
from vos_deploy.models.padding import pad_to_stride  # noqa: E402
from vos_deploy.models.rmnet import RMNet  # noqa: E402
from vos_deploy.models.rmnet.network import (  # noqa: E402
    memory_region,
    normalize,
    query_region,
    regional_memory_read,
)
from vos_deploy.models.rmnet.regions import (  # noqa: E402
    flow_warp,
    region_map,
)
from vos_deploy.models.upsample import upsample  # noqa: E402

# The gates of the specification; the official code itself keeps a few 1e-6, and 1.3e-3 after
# several frames, since p near 1 loses bits in p / (1 - p).
FEATURES, LOGITS, AGGREGATED, PROBABILITIES, FLOW = 1e-4, 2e-4, 2e-2, 3e-3, 2e-5


@pytest.fixture(scope="module")
def network() -> RMNet:
    return golden_network()


def tensors() -> tuple[torch.Tensor, torch.Tensor]:
    """frames [6, 3, 240, 432] in [0, 1] and the first masks [2, 240, 432]."""
    frames, mask = golden.clip()
    masks = torch.stack([torch.from_numpy(mask == i) for i in (1, 2)]).float()
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255, masks


def normalized() -> torch.Tensor:
    return normalize(tensors()[0].double()).float()


def recorded_flow(t: int) -> torch.Tensor:
    return torch.from_numpy(golden.arrays("rmnet")["flow_dis"][t].astype(np.float32))


def others(masks: torch.Tensor) -> torch.Tensor:
    return (masks.sum(0, keepdim=True) - masks).clamp(0, 1)


@needs_golden
def test_keys_and_shapes_are_the_official_ones() -> None:
    keys = golden.keys("rmnet")
    expected = {
        f"{part}.{key}": (entry["shape"], entry["dtype"])
        for part in ("rmnet", "tflownet")
        for key, entry in keys[part].items()
    }
    own = create("rmnet").state_dict()
    found = {k: (list(v.shape), str(v.dtype).removeprefix("torch.")) for k, v in own.items()}
    assert found == expected


@needs_golden
@pytest.mark.slow
def test_every_intermediate_of_the_first_frames(network: RMNet) -> None:
    recorded, frames, masks = golden.arrays("rmnet"), normalized(), tensors()[1]
    assert np.array_equal(frames[1, :, ::8, ::8], recorded["x_norm_f1_s8"])
    assert np.array_equal(others(masks)[:, ::4, ::4], recorded["f0_in_o_s4"])
    stems: list[Any] = []
    encoders = network.rmnet.encoder_memory, network.rmnet.encoder_query
    hooks = [e.maxpool.register_forward_pre_hook(lambda _, x: stems.append(x[0])) for e in encoders]
    with torch.inference_mode():
        r4 = network.rmnet.encoder_memory(frames[:1], masks[None])
        assert error(stems.pop()[:, ::8, ::8, ::8], recorded["f0_enc_c1"]) < FEATURES
        assert error(r4[:, ::16], recorded["f0_enc_r4"]) < FEATURES
        key, value = network.rmnet.memorize(frames[:1], masks[None])
        assert error(key[0, :, ::8], recorded["f0_k4_raw"]) < FEATURES
        assert error(value[0, :, ::32], recorded["f0_v4_raw"]) < FEATURES
        boxes, on = memory_region(masks[None])
        assert np.array_equal(boxes[0], recorded["f0_bbox"][1:3])
        assert np.array_equal(on[0], recorded["f0_att16"][1:3])
        key, value = key * on.unsqueeze(2), value * on.unsqueeze(2)
        assert error(key[0, :, ::4], recorded["f0_k4"]) < FEATURES
        assert error(value[0, :, ::16], recorded["f0_v4"]) < FEATURES

        warped = flow_warp(masks[None], recorded_flow(1)[None])
        assert error(warped[0], recorded["f1_warp"]) < 3e-5
        valid = flow_warp(torch.ones(1, 1, 240, 432), recorded_flow(1)[None]) > 0
        assert np.array_equal(np.packbits(valid.numpy()), recorded["f1_warp_valid"])
        boxes, region = query_region(warped)
        assert np.array_equal(boxes[0], recorded["f1_bbox"][1:3])
        assert np.array_equal(region[0], recorded["f1_att16"][1:3])
        everywhere = region_map(boxes[0], torch.arange(240), torch.arange(432))
        bits = np.packbits(everywhere.numpy().astype(np.uint8))
        assert np.array_equal(bits, recorded["f1_att_full_bits"])

        stems.clear()
        _, r3, r2 = network.rmnet.encoder_query(frames[1:2])
        assert error(stems[0][0, ::8, ::8, ::8], recorded["f1_enc_c1"]) < FEATURES
        assert error(r2[0, ::16, ::4, ::4], recorded["f1_enc_r2"]) < FEATURES
        assert error(r3[0, ::16, ::2, ::2], recorded["f1_enc_r3"]) < FEATURES
        query = network.rmnet.encode_query(frames[1:2])
        assert error(query.key[0, ::4], recorded["f1_kq_raw"]) < FEATURES
        assert error(query.value[0, ::32], recorded["f1_vq_raw"]) < FEATURES
        masked = query.key.unsqueeze(1) * region.unsqueeze(2)
        scores = key[0].flatten(2).transpose(1, 2) @ masked[0].flatten(2) / 128**0.5
        assert error(scores.softmax(1)[..., ::27], recorded["f1_p_s"]) < FEATURES
        readout = network.rmnet.read(query, region, key.unsqueeze(3), value.unsqueeze(3))
        assert error(readout[0, :, ::8], recorded["f1_mem_out"]) < FEATURES
        query_value = query.value.unsqueeze(1) * region.unsqueeze(2)
        assert error(query_value[0, :, ::32], recorded["f1_mem_qv"]) < FEATURES
        total = readout.sum(2) + query_value.sum(2)
        assert error(total[0], recorded["f1_mem_out_chsum"]) < 10 * FEATURES  # of 1024 channels
        parts = network.rmnet.decode(readout, region, query)
        assert error(parts[0], recorded["f1_pred2"]) < LOGITS
        full = upsample(parts[0], frames.shape)
        assert error(full[..., ::4, ::4], recorded["f1_logits_s4"]) < LOGITS
        logits = soft_aggregate(full.softmax(1)[:, 1].unsqueeze(0))
        assert error(logits[0, :, ::2, ::2], recorded["f1_agg_logit"]) < AGGREGATED
        assert error(soft_aggregate(torch.zeros(1, 1, 1, 1))[0, 1], -16.118095) < 1e-5
        assert error(recorded["f1_agg_logit_ch3_unique"], -16.118095) < 1e-5
        assert error(logits.softmax(1)[0, :, ::2, ::2], recorded["f1_prob_s2"]) < PROBABILITIES
    for hook in hooks:
        hook.remove()


@needs_golden
def test_every_intermediate_of_tiny_flownet(network: RMNet) -> None:
    recorded, frames = golden.arrays("rmnet"), normalized()
    outputs: dict[str, Any] = {}
    hooks = [
        module.register_forward_hook(lambda _, __, y, name=name: outputs.update({name: y[0]}))
        for name, module in network.tflownet.named_children()
    ]
    with torch.inference_mode():
        flow = network.tflownet(frames[1:2], frames[:1])[0]
        odd = network.tflownet(frames[1:2, :, 39:, 115:], frames[:1, :, 39:, 115:])[0]
        every = [network.tflownet(frames[t : t + 1], frames[t - 1 : t])[0] for t in range(2, 6)]
        outputs.clear()
        network.tflownet(frames[1:2], frames[:1])
    for hook in hooks:
        hook.remove()
    steps = {"conv1": (16, 8), "conv2": (16, 4), "conv3_1": (16, 2), "conv4_1": (16, 1)}
    steps |= {"conv5_1": (16, 1), "deconv4": (16, 1), "deconv3": (16, 2), "deconv2": (8, 4)}
    names = [name for name in outputs if f"T_{name}" in recorded]
    assert len(names) == 15
    for name in names:
        channels, pixels = steps.get(name, (1, 1))
        found = outputs[name][::channels, ::pixels, ::pixels]
        assert error(found, recorded[f"T_{name}"]) < FLOW, name
    assert error(flow, recorded["T_flow"]) < FLOW
    assert error(odd, recorded["O_flow_f1"]) < FLOW
    for found, expected in zip([flow, *every], recorded["B_flow_s4"][1:], strict=True):
        assert error(found[:, ::4, ::4], expected) < FLOW


@needs_golden
@pytest.mark.slow
def test_small_objects_and_three_memory_frames(network: RMNet) -> None:
    """Regions that are tight, each memory frame with its own box; and the sparse read of them."""
    recorded, frames = golden.arrays("rmnet"), normalized()
    first = np.stack([recorded["TF_small_mask"] == i for i in (1, 2)]).astype(np.float32)
    memories = [np.roll(first, (-6 * t, 24 * t), (1, 2)) for t in range(3)]
    keys, values, boxes = [], [], []
    with torch.inference_mode():
        for t, masks in enumerate(torch.from_numpy(np.stack(memories))):
            box, on = memory_region(masks[None])
            key, value = network.rmnet.memorize(frames[t : t + 1], masks[None])
            keys.append(key * on.unsqueeze(2))
            values.append(value * on.unsqueeze(2))
            boxes.append(box[0].numpy())
        assert np.array_equal(np.stack(boxes, 1), recorded["TF_bbox_mem"])
        key, value = torch.stack(keys, 3), torch.stack(values, 3)
        assert error(key[0, :, ::32], recorded["TF_k"]) < FEATURES
        box, region = query_region(
            flow_warp(torch.from_numpy(memories[2])[None], recorded_flow(3)[None])
        )
        assert np.array_equal(box[0], recorded["TF_bbox_query"])
        assert np.array_equal(region[0], recorded["TF_att16_query"])
        query = network.rmnet.encode_query(frames[3:4])
        readout = network.rmnet.read(query, region, key, value)
        assert error(readout[0, :, ::8], recorded["TF_mem_out"]) < FEATURES
        parts = network.rmnet.decode(readout, region, query)
        assert error(parts[0], recorded["TF_pred2"]) < LOGITS
        objects = upsample(parts[0], frames.shape).softmax(1)[:, 1]
        probabilities = soft_aggregate(objects.unsqueeze(0)).softmax(1)
        assert error(probabilities[0, :, ::2, ::2], recorded["TF_prob"]) < PROBABILITIES
        for k in range(2):
            tokens, memory = query.key[0].flatten(1).T, key[0, k].flatten(1).T
            centre = region[0, k].flatten()[105] * tokens[105] @ memory.T / 128**0.5
            assert error(centre.softmax(0), recorded["TF_p_q_center"][k]) < FEATURES
            on, inside = memory.any(1), region[0, k].flatten() > 0
            assert on.sum() < 0.4 * len(on)
            q = torch.cat([tokens[inside], torch.zeros(1, 128)])
            outside = torch.tensor([float((~on).sum())])
            packed = regional_memory_read(q, memory[on], value[0, k].flatten(1).T[on], outside)
            dense = readout[0, k].flatten(1).T
            assert error(packed[:-1], dense[inside]) < 1e-4
            assert error(packed[-1], dense[~inside].mean(0)) < 1e-4


@needs_golden
def test_size_that_is_no_multiple_of_16(network: RMNet) -> None:
    """Memory boxes live in the padded frame, query boxes in the frame itself."""
    recorded = golden.arrays("rmnet")
    frames, masks = (x[..., 39:, 115:] for x in tensors())
    padded = pad_to_stride(masks[None], 16)[0]
    _, on = memory_region(padded)
    assert np.array_equal(on[0], recorded["O_att16_mem0"])
    warped = flow_warp(masks[None], recorded_flow(1)[None, :, 39:, 115:])
    _, region = query_region(warped)
    assert np.array_equal(region[0], recorded["O_att16_q1"])
    frames = pad_to_stride(normalize(frames[:2].double()).float(), 16)[0]
    with torch.inference_mode():
        query = network.rmnet.encode_query(frames[1:2])
        masked = query.key.unsqueeze(1) * region.unsqueeze(2)
        assert error(masked[0, :, ::16], recorded["O_qk"]) < FEATURES
        key, value = (x * on.unsqueeze(2) for x in network.rmnet.memorize(frames[:1], padded))
        readout = network.rmnet.read(query, region, key.unsqueeze(3), value.unsqueeze(3))
        assert error(readout[0, :, ::16], recorded["O_mem_out"]) < FEATURES

    empty = torch.zeros(1, 1, 201, 317)
    query_box, region = query_region(empty)
    memory_box, on = memory_region(pad_to_stride(empty, 16)[0])
    assert np.array_equal(region[0, 0], recorded["O_empty_query_att16"])
    assert np.array_equal(on[0, 0], recorded["O_empty_mem_att16"])
    boxes = np.stack([query_box[0, 0], memory_box[0, 0]])
    assert np.array_equal(boxes, recorded["O_empty_bbox_q_m"])
