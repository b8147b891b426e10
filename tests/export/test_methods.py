"""The graphs of every method, at any size and with any number of objects, beside PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from tests.support import gfrtm, models
from vos_deploy.export.graph import MethodExport, example
from vos_deploy.export.verify import TOLERANCES, Errors
from vos_deploy.methods import METHODS, find_part
from vos_deploy.models import Network


def network_and_model(method: str) -> tuple[Network, Path]:
    if method == "gfrtm":
        return gfrtm.network(), gfrtm.exported()
    return models.small(method), models.model(method)


@pytest.mark.parametrize(("size", "objects"), [((64, 96), 1), ((33, 70), 3), ((101, 150), 4)])
@pytest.mark.parametrize("method", models.EXPORTED)
def test_any_size_and_any_number_of_objects(
    method: str, size: tuple[int, int], objects: int
) -> None:
    network, folder = network_and_model(method)
    export: MethodExport = find_part(method, "EXPORT")
    specs = export.graphs(network.eval())
    errors = Errors(specs, TOLERANCES["fp32"])
    for name, spec in specs.items():
        given = example(
            spec.inputs, size, export.stride(network), torch.float32, K=objects, G=1 + objects // 2
        )
        with torch.inference_mode():
            made = spec.module(*given.values())
        made = made if isinstance(made, tuple) else (made,)
        expected = {o: t.numpy() for o, t in zip(spec.outputs, made, strict=True)}
        session = onnxruntime.InferenceSession(folder / f"{name}.onnx")
        run = session.run(list(spec.outputs), {k: v.numpy() for k, v in given.items()})
        found = dict(zip(spec.outputs, run, strict=True))
        for output, array in found.items():
            assert array.shape == expected[output].shape, f"{name}.{output}"
            assert array.dtype == expected[output].dtype, f"{name}.{output}"
        errors.watch(name, expected, found)
    errors.note("labels, closed loop", 0)
    assert all(c.passed for c in errors.comparisons()), [str(c) for c in errors.comparisons()]


@pytest.mark.parametrize("method", METHODS)
def test_constants_lie_where_the_inputs_do(method: str) -> None:
    """A tensor made on the CPU by a module meets those of a GPU, here of the meta device."""
    export: MethodExport = find_part(method, "EXPORT")
    network = models.small(method).to("meta")
    for name, spec in export.graphs(network.eval()).items():
        given = example(spec.inputs, (64, 96), export.stride(network), torch.float32)
        # A top-k is read on the CPU.
        placed = [v if k == "top_k" else v.to("meta") for k, v in given.items()]
        found = spec.module.to("meta")(*placed)
        for tensor in found if isinstance(found, tuple) else (found,):
            assert tensor.device.type == "meta", name


@pytest.mark.parametrize("method", METHODS)
def test_half_precision_in_pytorch_gives_what_is_declared(method: str) -> None:
    export: MethodExport = find_part(method, "EXPORT")
    network = models.small(method).half().eval()
    for name, spec in export.graphs(network).items():
        given = example(spec.inputs, (64, 96), export.stride(network), torch.float16)
        with torch.inference_mode():
            made = spec.module(*given.values())
        made = made if isinstance(made, tuple) else (made,)
        for (output, declared), tensor in zip(spec.outputs.items(), made, strict=True):
            assert tensor.dtype == (declared.dtype or torch.float16), f"{name}.{output}"
            assert np.isfinite(tensor.float().numpy()).all(), f"{name}.{output}"
