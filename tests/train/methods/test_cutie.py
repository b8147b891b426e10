"""Cutie's training against the recorded one, and in small."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support import cutie, golden
from tests.support.golden import error, needs_golden
from tests.train import whole_runs
from tests.train.methods.shared_keys import QUICK, alone, clips_of
from vos_deploy.errors import InputError
from vos_deploy.models.cutie import Cutie
from vos_deploy.train.data.files import BadFiles
from vos_deploy.train.data.mixture import build_clips
from vos_deploy.train.loop import Trainer
from vos_deploy.train.methods.cutie.stages import CutieOptions
from vos_deploy.train.methods.cutie.task import NOT_DECAYED, CutieTask
from vos_deploy.train.points import at_points, cross_entropy, dice
from vos_deploy.train.processes import Processes
from vos_deploy.train.schedule import Step

OPTIONS = CutieOptions(
    backbone="resnet10", width=32, crop="64", frames=3, objects=2, points=64, skip=("0",)
)
NARROW = ["--method", "cutie", "--backbone", "resnet10", "--width", "32", "--points", "256",
          "--amp", "none", *QUICK]  # fmt: skip
# A trunk without training moves wildly at such rates, and most of the time goes into it.
TRUNKS = ["--freeze", "pixel_encoder,mask_encoder.layer", "--slow"]


@needs_golden
@pytest.mark.slow
@pytest.mark.parametrize("deep", [0, 1])
def test_recorded_forward_pass(deep: int) -> None:
    """Two clips of four frames; the second has one object."""
    frames, mask = golden.clip()
    rows, columns = slice(112, 240), slice(224, 416)
    clip = torch.from_numpy(frames[:4, rows, columns].copy()).permute(0, 3, 1, 2).float() / 255
    drawn = torch.from_numpy(np.stack([mask[rows, columns] == i for i in (1, 2)])).float()
    masks = torch.stack([drawn, drawn * torch.tensor([1.0, 0.0])[:, None, None]])
    labels = (masks * torch.tensor([1, 2])[:, None, None]).sum(1).long()
    batch = {
        "frames": torch.stack([clip, clip]),
        "masks": masks.unsqueeze(1).repeat(1, 4, 1, 1, 1),
        "labels": labels.unsqueeze(1).repeat(1, 4, 1, 1),
        "present": torch.tensor([[1.0, 1.0], [1.0, 0.0]]),
    }
    task = CutieTask(cutie.recorded("small"), replace(OPTIONS, frames=4, deep_update=float(deep)))
    task.train()
    with torch.no_grad():
        found = task.unroll(batch)
    recorded = golden.arrays("cutie")

    def holds(maps: Any, name: str, worst: float) -> None:
        assert error(maps, recorded[f"train.deep{deep}.{name}"]) < worst, name

    for t, logits in enumerate(found.logits, 1):
        holds(logits[..., ::4, ::4], f"logits_{t}_s4", 1e-3)
    for t in (1, 3):
        guides = torch.stack(found.guides[t - 1], 2)
        holds(guides, f"q_logits_{t}", 1e-3)
        # Where the probabilities are saturated the logits are coarse.
        holds(found.sensory[t - 1], f"sensory_logits_{t}", 0.1)

    drawn_points = golden.weights().tensor("probe.points", (3, 500, 2)) * 1000**0.5 * 1.5
    points = torch.from_numpy(drawn_points).float().sigmoid()
    index = json.loads((golden.GOLDEN / "cutie/index.json").read_text())
    losses = index["runs"][f"train.deep{deep}.losses"]
    for sample, slots in ((0, 3), (1, 2)):
        logits = torch.stack([frame[sample, :slots] for frame in found.logits])
        truth = torch.stack([labels[sample] == slot for slot in range(slots)]).float()
        samples = at_points(truth.expand(3, -1, -1, -1), points)
        expected = losses[f"sample{sample}"]
        ce = cross_entropy(at_points(logits, points), samples).item()
        assert ce == pytest.approx(expected["ce"], abs=1e-3)
        overlap = dice(at_points(logits, points), samples).item()
        assert overlap == pytest.approx(expected["dice"], abs=1e-4)


def task_and_batch(davis: Path, **changes: object) -> tuple[CutieTask, dict[str, Tensor]]:
    """Two clips, of one and of two objects."""
    options = replace(OPTIONS, davis=(davis,), **changes)  # type: ignore[arg-type]
    torch.manual_seed(0)
    task, batch = CutieTask.build(options), clips_of(options)
    alone(batch, 0)
    return task, batch


def test_clips_do_not_see_each_other(davis: Path) -> None:
    """A clip gives the same in a batch and by itself, without the slots that it does not use."""
    task, batch = task_and_batch(davis, deep_update=1.0)
    with torch.no_grad():
        together = task.unroll(batch)
        for clip, objects in ((0, 1), (1, 2)):
            own = {name: tensor[clip : clip + 1] for name, tensor in batch.items()}
            own["masks"] = own["masks"][:, :, :objects]
            own["present"] = own["present"][:, :objects]
            apart = task.unroll(own)
            for t in range(2):
                for kind in ("logits", "sensory"):
                    both, one = (getattr(x, kind)[t] for x in (together, apart))
                    assert torch.allclose(both[clip, : 1 + objects], one[0], atol=1e-3)


def test_only_frames_drawn_are_read(davis: Path) -> None:
    task, batch = task_and_batch(davis, frames=4, reference_frames=1)
    read: list[int] = []
    genuine = task.model.read

    def counted(*arguments: Any) -> Any:
        read.append(arguments[1].shape[1])
        return genuine(*arguments)

    task.model.read = counted  # type: ignore[method-assign]
    with torch.no_grad():
        task.unroll(batch)
    assert read == [16, 16, 16]  # the tokens of one frame of 64 x 64


def test_gradients_reach_every_parameter_and_losses_are_named(davis: Path) -> None:
    task, batch = task_and_batch(davis)
    task.train()
    losses = task(batch, Step(0, 10))
    parts = {f"{head}_{kind}" for head in ("mask", "sensory", "guide") for kind in ("ce", "dice")}
    assert losses.keys() == {"loss", *parts}
    assert losses["loss"].item() == pytest.approx(sum(losses[name].item() for name in parts))
    losses["loss"].backward()
    # Norms are frozen, and so is what they have.
    without = [
        name
        for name, parameter in task.model.named_parameters()
        if parameter.grad is None and "bn" not in name and "downsample.1" not in name
    ]
    assert not without


def test_groups_of_the_optimiser() -> None:
    task = CutieTask(Cutie("resnet18", 32), replace(OPTIONS, slow=("pixel_encoder=0.1",)))
    named = dict(task.model.named_parameters())
    slow, fast, free = task.parameter_groups()
    assert (slow["rate"], fast["rate"], free["rate"]) == (0.1, 1.0, 1.0)
    assert free["weight_decay"] == 0 and "weight_decay" not in fast
    assert {id(p) for p in free["params"]} == {id(named[name]) for name in NOT_DECAYED}
    assert sum(len(group["params"]) for group in (slow, fast, free)) == len(named)


def test_weights_decay_beside_the_step(davis: Path, tmp_path: Path) -> None:
    options = replace(OPTIONS, davis=(davis,), output=tmp_path, decoupled_decay=True, epsilon=1e-6)
    clips = build_clips(options, BadFiles())
    trainer = Trainer(CutieTask.build(options), clips, options, Processes())
    assert isinstance(trainer.optimizer, torch.optim.AdamW)
    assert {group["eps"] for group in trainer.optimizer.param_groups} == {1e-6}
    plain = Trainer(CutieTask.build(OPTIONS), clips, replace(OPTIONS, output=tmp_path), Processes())
    assert not isinstance(plain.optimizer, torch.optim.AdamW)


def test_second_stage_adds_inputs_for_the_others() -> None:
    task = CutieTask(Cutie("resnet18", 32), OPTIONS)
    single = Cutie("resnet18", 32, single_object=True).state_dict()
    task.load_initial(single)
    now = task.model.state_dict()
    for key, before in single.items():
        assert torch.equal(now[key][:, : before.shape[1]] if before.dim() > 1 else now[key], before)
    assert now["mask_encoder.conv1.weight"][:, 4].any()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"crop": "100"}, "--crop must be a multiple of 16, got 100"),
        ({"width": 40}, "--width must be a multiple of 32, got 40"),
        ({"single_object": True}, "--single-object takes clips of one object, got --objects 2"),
        ({"imagenet": Path(__file__), "backbone": "resnet50"}, "give the mask encoder its"),
    ],
)
def test_options_that_do_not_go_together(changes: dict[str, object], sentence: str) -> None:
    CutieTask.check(OPTIONS)
    with pytest.raises(InputError, match=sentence):
        CutieTask.check(replace(OPTIONS, **changes))  # type: ignore[arg-type]


def test_imagenet_weights_fill_both_trunks(imagenet: Path) -> None:
    task = CutieTask.build(replace(OPTIONS, imagenet=imagenet))
    model = task.model
    stem = model.mask_encoder.conv1.weight
    assert torch.equal(model.pixel_encoder.conv1.weight, stem[:, :3]) and stem[:, 3:].any()


@pytest.mark.parametrize(
    "stage", ["main", *(pytest.param(stage, marks=pytest.mark.slow) for stage in ("pre", "mega"))]
)
def test_every_stage_lowers_the_loss(stage: str, stills: Path, davis: Path, tmp_path: Path) -> None:
    data = ["--stills", str(stills)]
    if stage != "pre":
        data = ["--davis", str(davis), "--youtube", str(davis), "--youtube-skip", "0"]
        data += ["--frames", "3"]
    arguments = [*NARROW, "--stage", stage, *data, *TRUNKS, "--iterations", "8"]
    whole_runs.falls(arguments, tmp_path / "run", 0.9)


@pytest.mark.slow
def test_resumed_run_ends_where_the_uninterrupted_one_does(davis: Path, tmp_path: Path) -> None:
    data = ["--davis", str(davis), "--youtube", str(davis), "--youtube-skip", "0"]
    arguments = [*NARROW, "--stage", "main", *data, *TRUNKS, "--frames", "3", "--average", "0.9"]
    whole_runs.resumes(arguments, tmp_path)
