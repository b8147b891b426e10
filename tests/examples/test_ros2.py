"""The callbacks of the ROS 2 node, with stand-ins for ROS."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import vos_deploy
from vos_deploy.masks import read_mask

pytest.importorskip("onnxruntime")

ROOT = Path(__file__).parents[2]


class FakeNode:
    def __init__(self, name: str) -> None:
        self.published: list[Any] = []
        self.errors: list[str] = []

    def declare_parameter(self, name: str, default: str) -> SimpleNamespace:
        return SimpleNamespace(value=default)

    def create_publisher(self, *arguments: Any) -> SimpleNamespace:
        return SimpleNamespace(publish=self.published.append)

    def create_subscription(self, *arguments: Any) -> None:
        pass

    def get_logger(self) -> SimpleNamespace:
        return SimpleNamespace(error=self.errors.append)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    anything = SimpleNamespace(KEEP_LAST=1, BEST_EFFORT=2)
    fakes: dict[str, dict[str, Any]] = {
        "rclpy": {},
        "rclpy.node": {"Node": FakeNode},
        "rclpy.qos": {
            "HistoryPolicy": anything, "ReliabilityPolicy": anything, "QoSProfile": SimpleNamespace,
        },
        "sensor_msgs": {},
        "sensor_msgs.msg": {"Image": SimpleNamespace},
    }  # fmt: skip
    for name, content in fakes.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    path = ROOT / "examples" / "ros2" / "segmenter_node.py"
    spec = importlib.util.spec_from_file_location("segmenter_node", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def message(pixels: np.ndarray, encoding: str, padding: int = 0) -> SimpleNamespace:
    height, width = pixels.shape[:2]
    rows = np.pad(pixels.reshape(height, -1), ((0, 0), (0, padding)))
    return SimpleNamespace(
        header="a header", height=height, width=width, step=rows.shape[1], encoding=encoding,
        data=rows.tobytes(),
    )  # fmt: skip


def test_images_in_and_labels_out(example: ModuleType) -> None:
    node = example.SegmenterNode()
    with vos_deploy.open_source(ROOT / "demo" / "frames") as frames:
        first, second = (frame for _, frame in zip(range(2), frames, strict=False))
    mask = read_mask(ROOT / "demo" / "masks" / "00000.png")
    node.on_image(message(first, "rgb8"))
    assert not node.published
    node.on_mask(message(mask, "mono8", padding=2))
    node.on_image(message(first, "rgb8", padding=3))
    node.on_image(message(second[..., ::-1], "bgr8"))
    node.on_image(message(first[:-1], "rgb8"))
    assert len(node.published) == 2 and len(node.errors) == 1
    node.on_image(message(np.dstack([first, first[..., 0]]), "rgba8"))
    node.on_mask(message(mask.astype(np.uint16), "mono16"))
    assert node.mask is None and len(node.published) == 2
    assert [error.rpartition(" ")[2] for error in node.errors[1:]] == ["rgba8", "mono16"]
    with node.segmenter, vos_deploy.Segmenter() as segmenter:
        expected = [segmenter.step(first, mask), segmenter.step(second)]
    for answer, labels in zip(node.published, expected, strict=True):
        assert (answer.header, answer.encoding) == ("a header", "mono8")
        found = np.frombuffer(answer.data, np.uint8).reshape(answer.height, answer.step)
        np.testing.assert_array_equal(found, labels)
