"""The G-FRTM network that was recorded from, and its recorded runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tests.support import golden, models
from tests.support.golden import error
from vos_deploy.models import create
from vos_deploy.models.gfrtm.network import GFRTM
from vos_deploy.models.imagenet import STAGES

Float = NDArray[np.float64]


def state(backbone: str = "resnet18") -> dict[str, torch.Tensor]:
    """Generated weights, some scaled so that masks have a foreground and the gate an opinion."""
    named = golden.state(create("gfrtm", backbone=backbone))
    named = {key: value for key, value in named.items() if not key.startswith("trunk.")}
    for stage in ("layer5", "layer4", "layer3", "layer2"):
        named[f"refiner.TSE.{stage}.transform.0.weight"][:, 64] *= 60
    named["refiner.project.conv2.weight"] *= 16
    named["refiner.project.conv2.bias"][:] = -4.8
    named["convGS.4.weight"] *= 8
    named["convGS.4.bias"][:] = torch.tensor([6.85, 0])
    return named


def trunk(backbone: str = "resnet18") -> dict[str, torch.Tensor]:
    """The trunk by torchvision's names."""
    official = {own: name for name, own in STAGES.items()}
    tensor = golden.weights().tensor
    found = {}
    for own, value in create("gfrtm", backbone=backbone).trunk.state_dict().items():
        first, _, rest = own.partition(".")
        key = f"{official.get(first, first)}.{rest}"
        found[key] = torch.from_numpy(np.array(tensor(key, tuple(value.shape))))
    return found


@cache
def network(backbone: str = "resnet18") -> GFRTM:
    model = create("gfrtm", backbone=backbone)
    assert isinstance(model, GFRTM)
    weights = state(backbone)
    for key, value in trunk(backbone).items():
        first, _, rest = key.partition(".")
        weights[f"trunk.{STAGES.get(first, first)}.{rest}"] = value
    model.load_state_dict(weights)
    return model


def exported(backbone: str = "resnet18") -> Path:
    """The model folder for any size."""
    return models.exported(
        f"gfrtm-{backbone}-recorded", "gfrtm", lambda: network(backbone).state_dict()
    )


def recorded_weights(index: int, channels: int, middle: int) -> tuple[Float, Float]:
    """Where the recorded target models started from."""
    tensor = golden.weights().tensor
    project = tensor(f"target{index}.project.weight", (middle, channels, 1, 1))
    kernel = tensor(f"target{index}.filter.weight", (1, middle, 3, 3))
    return (
        project.reshape(middle, channels).astype(np.float64),
        kernel.reshape(middle, 9).T.astype(np.float64),
    )


def recorded_augment(first: NDArray[np.uint8]) -> Callable[..., Any]:
    """What was painted from the first frame, by the object's mask; `first` holds the ids."""

    def augment(frame: NDArray[np.uint8], mask: NDArray[np.bool_]) -> Any:
        index = next(i for i in (1, 2) if np.array_equal(mask, first == i))
        arrays = golden.arrays("gfrtm")
        images = arrays[f"M/o{index}/aug_images_1to4"].transpose(0, 2, 3, 1)
        labels = arrays[f"M/o{index}/aug_labels"][1:, 0] > 0
        return [frame, *np.ascontiguousarray(images)], [mask, *labels]

    return augment


TEMPLATE, PROJECT, KERNEL, SCORE, DEEP, LOGITS, PIXELS = 1e-5, 1e-5, 1e-5, 1e-3, 2e-3, 2e-2, 30

# Recorded run -> options.
RUNS: dict[str, dict[str, Any]] = {
    "M": {"update_every": 2},
    "B": {"reuse_threshold": 0.664},
    "C": {"reuse_threshold": 1.0, "fast": False, "update_every": 2},
    "D": {"reuse_threshold": -1.0},
    "E": {"update_every": 2},
    "R101_cmp": {"reuse_threshold": 2.0},
    "R101_reuse": {"reuse_threshold": -1.0},
}


class Recorded:
    """What was recorded of a run, and how close a run has to come to it.

    Objects are what a tracker or a reference follows: what they have in common is compared.
    """

    def __init__(self, run: str) -> None:
        self.run = run
        self.arrays = golden.arrays("gfrtm")
        self.backbone = "resnet101" if run.startswith("R101") else "resnet18"
        self.differing = 0  # pixels labelled otherwise
        self.reused: list[int] = []  # per object, how many frames

    def clip(self) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8] | None]]:
        """Frames and masks."""
        frames, mask = golden.clip()
        if self.run == "E":
            mask = np.where(mask == 1, mask, 0)
        count = 2 if self.backbone == "resnet101" else len(frames)
        return [(frame, None if t else mask) for t, frame in enumerate(frames[:count])]

    def check_frame(
        self,
        t: int,
        objects: Sequence[Any],
        logits: NDArray[np.float32],
        labels: NDArray[np.uint8],
        probabilities: NDArray[np.float32],
    ) -> None:
        """Hold frame t, from 1, against what was recorded of it."""
        self.reused = self.reused or [1] * len(objects)  # the first frame counts as reused
        for index, followed in enumerate(objects, start=1):
            if t == 1 and self.run not in ("D", "R101_reuse", "C"):
                self._check_first_frame(index, followed)
            self._check_object(t, index, followed, logits[index - 1])
            self.reused[index - 1] += not followed.computed
        if self.run == "M":
            kept = probabilities[1:, ::3, ::3]
            off = np.abs(kept - self.arrays[f"M/f{t}/merged_masks"][1:]) > 1e-3
            assert off.sum() <= PIXELS
        self.differing += int((labels != self._labels(t)).sum())

    def check_end(self) -> None:
        """What is asked of all frames together."""
        assert self.differing <= PIXELS
        if self.backbone == "resnet18":
            expected = self.arrays[f"{self.run}/reuse_rate"]
            assert error(np.array(self.reused) / 6, expected) < 1e-6

    def _labels(self, t: int) -> NDArray[np.uint8]:
        run = self.run
        if self.backbone == "resnet101":
            found = self.arrays[f"{run}/label_f1"]
        elif run == "M":
            found = self.arrays["M/labels"][t]
        else:
            found = self.arrays[f"{run}/labels_f1_f5"][t - 1]
        return np.asarray(found)

    def _check_object(self, t: int, index: int, followed: Any, logits: NDArray[np.float32]) -> None:
        arrays, at = self.arrays, f"{self.run}/f{t}/o{index}"
        assert followed.computed == (arrays[f"{at}/gate"] == 0), at
        if followed.computed:
            assert error(followed.score, arrays[f"{at}/score_used"]) < SCORE
            if f"{at}/frame_num" in arrays:
                assert followed.evaluations == arrays[f"{at}/frame_num"]
        recorded = arrays[f"{at}/logits"]
        step = len(logits) // len(recorded)
        assert error(logits[::step, ::step], recorded) < LOGITS
        if f"{at}/prevX_out" in arrays:
            assert error(np.asarray(followed.deep)[:, ::4], arrays[f"{at}/prevX_out"]) < DEEP
        updated = f"{self.run}/f{t - 1}/o{index}/update/filter"
        if updated in arrays:
            assert error(taps(followed.kernel), arrays[updated]) < KERNEL

    def _check_first_frame(self, index: int, followed: Any) -> None:
        """The target model that was learned. M was recorded whole, the others in part."""
        arrays = self.arrays
        run = "R101_cmp" if self.backbone == "resnet101" else self.run
        name = run if f"{run}/o{index}/init/project" in arrays else "M"
        project = arrays[f"{name}/o{index}/init/project"][:, :, 0, 0]
        step = 1 if name == "M" else 4
        assert error(np.asarray(followed.project)[::step, ::step], project) < PROJECT
        assert error(taps(followed.kernel), arrays[f"{name}/o{index}/init/filter"]) < KERNEL
        if name == "M":
            assert error(followed.template, arrays[f"M/o{index}/template"]) < TEMPLATE


def taps(kernel: Any) -> NDArray[Any]:
    """A kernel [9, 96] as it was recorded."""
    return np.asarray(kernel).T.reshape(1, -1, 3, 3)


def check_decisions(
    step: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], objects: Callable[[], Sequence[Any]]
) -> None:
    """Hold gates and labels of the first frames after the annotated one against run M, with what is
    painted from that drawn anew."""
    arrays, differing = golden.arrays("gfrtm"), 0
    for t, frame in enumerate(golden.clip()[0][1 : golden.START], start=1):
        differing += int((step(frame) != arrays["M/labels"][t]).sum())
        computed = [followed.computed for followed in objects()]
        assert computed == [arrays[f"M/f{t}/o{i}/gate"] == 0 for i in (1, 2)]
    assert differing <= 2 * PIXELS
