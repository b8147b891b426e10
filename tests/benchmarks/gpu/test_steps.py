"""Which steps there are, and in which order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from vos_deploy.benchmarks.gpu.steps import Setup, chosen, plan
from vos_deploy.bundle import Bundle, demonstration_model

SIZE = (64, 96)


def setup(folder: Path, **fields: Any) -> Setup:
    return Setup(
        **{
            "output": folder,
            "runtimes": [],
            "engine": "cuda",
            "models": [Bundle.load(demonstration_model())],
            "reference": folder / "reference.npz",
            "recorded": Bundle.load(demonstration_model()).checkpoint["sha256"],
            "size": SIZE,
            "objects": [1, 2],
            "frames": 2,
            "long": 20,
        }
        | fields
    )


def names(folder: Path, **fields: Any) -> list[str]:
    return [step.name for step in plan(setup(folder, **fields))]


def test_most_valuable_first(tmp_path):
    assert names(tmp_path, runtimes=["tensorrt"]) == [
        "facts",
        "parity cuda shipped",
        "speed cuda shipped",
        "build tensorrt shipped",
        "parity tensorrt shipped",
        "speed tensorrt shipped",
        "speed torch-eager shipped",
        "speed torch-compiled shipped",
        "fused",
        "placement cuda shipped",
        "memory cuda shipped",
        "agreement-with-cpu cuda shipped",
        "parity cuda-tf32 shipped",
        "agreement-with-cuda-waiting cuda shipped",
    ]


def test_order_of_models(tmp_path):
    """Half precision first; what is compared with PyTorch first in it, then in the order of the
    table of methods."""
    shipped = Bundle.load(demonstration_model())
    half = replace(shipped, precision="fp16", path=tmp_path / "shipped-fp16")
    others = [
        replace(half, method=method, precision=precision, checkpoint={}, path=tmp_path / name)
        for method, precision, name in (
            ("imsfr", "fp16", "imsfr-fp16"),
            ("rde", "fp32", "rde-fp32"),
            ("stm", "fp16", "stm-fp16"),
        )
    ]
    found = names(tmp_path, models=[shipped, *others, half])
    speeds = [name for name in found if name.startswith("speed cuda ")]
    order = ["shipped-fp16", "stm-fp16", "imsfr-fp16", "shipped", "rde-fp32"]
    assert speeds == [f"speed cuda {name}" for name in order]
    assert found[:3] == ["facts", "parity cuda shipped", "parity cuda shipped-fp16"]
    # One compiled model early, the others if there is time in the end.
    assert found.index("speed torch-compiled shipped-fp16") < found.index("fused")
    assert found[-4:] == [f"speed torch-compiled {name}" for name in order[1:]]
    assert "speed cuda-nhwc stm-fp16" in found and "speed cuda-nhwc shipped" not in found
    assert len(set(found)) == len(found)
    on_cpu = names(tmp_path, models=[others[0], shipped], engine="cpu")
    assert on_cpu[2:4] == ["speed cpu shipped", "speed cpu imsfr-fp16"]


def test_without_reference_there_is_no_parity(tmp_path):
    assert not any("parity" in name for name in names(tmp_path, reference=None))


def test_chosen_by_words(tmp_path):
    steps = plan(setup(tmp_path))
    found = [step.name for step in chosen(steps, ["speed torch", "facts"])]
    assert found == ["facts", "speed torch-eager shipped", "speed torch-compiled shipped"]
