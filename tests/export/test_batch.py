"""Encoders of several frames give of each what they give of it alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.support.models import small
from vos_deploy.errors import InputError
from vos_deploy.export.export import Options, export_graphs
from vos_deploy.export.graph import batched
from vos_deploy.export.to_onnx import to_onnx
from vos_deploy.methods import find_part
from vos_deploy.onnx_runtime import import_onnxruntime

SIZE = (37, 50)
METHODS = ("stm", "rmnet", "stcn", "xmem", "cutie", "rde", "imsfr")


def encoder(method: str):
    network = small(method).eval()
    return find_part(method, "EXPORT").graphs(network)["encoder"]


@pytest.fixture
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (3, *SIZE, 3), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("method", METHODS)
def test_of_each_frame_the_same(method, images):
    spec = encoder(method)
    with torch.no_grad():
        together = spec.module(images)
        for index, image in enumerate(images):
            for several, one in zip(together, spec.module(image), strict=True):
                assert several[index].shape == one.shape
                torch.testing.assert_close(several[index], one, rtol=1e-4, atol=1e-4)


@pytest.mark.slow  # an export
def test_the_graph_takes_any_number(images):
    spec = batched(encoder("stm"))
    content = to_onnx(spec).SerializeToString()
    session = import_onnxruntime().InferenceSession(content, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["B", "H", "W", 3]
    assert [output.shape[:2] for output in session.get_outputs()[1:]] == [["B", 1]] * 3
    for count in (1, 2, 3):
        with torch.no_grad():
            expected = spec.module(images[:count])
        found = session.run(None, {"image": images[:count].numpy()})
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other.numpy(), rtol=1e-4, atol=1e-4)


def test_a_method_without_such_an_encoder_says_so():
    with pytest.raises(InputError, match="--batch: no graph of gfrtm takes frames of several"):
        export_graphs(small("gfrtm").eval(), Options(batch=True))
