"""A method that is nowhere in the package, with all that docs/new_method.md lists: "toy" remembers
the mean colour of each object and of the background, and gives a pixel to the nearest."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vos_deploy.bundle import MemoryDefaults
from vos_deploy.export.graph import ESTIMATE, GraphSpec, MethodExport, float32, floating, uint8
from vos_deploy.models import Network
from vos_deploy.options import Options, option
from vos_deploy.reference.base import Reference
from vos_deploy.runtime.backends import Backend
from vos_deploy.runtime.memory.bank import MemoryPolicy, MemoryState
from vos_deploy.runtime.trackers import Tracker
from vos_deploy.train.options import TrainOptions
from vos_deploy.train.schedule import Step
from vos_deploy.train.stage import Stage, Training
from vos_deploy.train.task import Batch, Losses, Task

# ------------------------------------------------------------------ vos_deploy/models/toy.py


class Toy(Network):
    method = "toy"

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.config = {"width": width}
        self.toy_projection = nn.Conv2d(3, width, 1)

    @staticmethod
    def infer_config(state: dict[str, Tensor]) -> dict[str, Any] | None:
        weight = state.get("toy_projection.weight")
        return None if weight is None else {"width": len(weight)}

    def memorize(self, image: Tensor, slots: Tensor) -> Tensor:
        """image [1, 3, H, W] in [0, 1], slots [1+K, H, W], background first -> [1+K, C]."""
        colours = self.toy_projection(image)[0].flatten(1)
        weights = slots.flatten(1)
        return weights @ colours.T / (weights.sum(1, keepdim=True) + 1e-4)

    def segment(self, image: Tensor, means: Tensor) -> Tensor:
        """Logits [1+K, H, W]."""
        colours = self.toy_projection(image)
        return -20 * (colours - means[..., None, None]).square().sum(1)


NETWORK = Toy

# --------------------------------------------------------------- vos_deploy/reference/toy.py


class ToyReference(Reference[Toy]):
    def __init__(self, network: Toy, *, keep_first: bool = False, **memory: Any) -> None:
        super().__init__(network, **memory)
        self.keep_first = keep_first
        self.image, self.means, self.annotated = torch.empty(0), torch.empty(0), False

    def segment(self, image: Tensor) -> Tensor:
        if self.annotated or not ((self.frame - 1) % self.memory_every or self.keep_first):
            self.means = self.network.memorize(self.image, self.probabilities)
        self.image, self.annotated = image, False
        return self.network.segment(image, self.means).softmax(0)

    def annotate(self, image: Tensor, drawn: Tensor, slots: list[int]) -> Tensor:
        self.image, self.annotated = image, True
        return self.overwritten(drawn)


REFERENCE = ToyReference

# -------------------------------------------------------------------- export/methods/toy.py


def scaled(image: Tensor) -> Tensor:
    return image.permute(2, 0, 1).unsqueeze(0).float() / 255


class MemorizeGraph(nn.Module):
    def __init__(self, model: Toy) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, slots: Tensor) -> tuple[Tensor, ...]:
        return (self.model.memorize(scaled(image), slots),)


class SegmentGraph(nn.Module):
    def __init__(self, model: Toy) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, means: Tensor) -> tuple[Tensor, ...]:
        probabilities = self.model.segment(scaled(image), means).softmax(0)
        return probabilities, probabilities.argmax(0).float().to(torch.uint8)


def graphs(model: Toy) -> dict[str, GraphSpec]:
    image, slots = uint8("H", "W", 3), float32("1+K", "H", "W")
    means = floating("1+K", model.config["width"])
    return {
        "memorize": GraphSpec(
            MemorizeGraph(model), {"image": image, "slots": slots}, {"means": means}
        ),
        "segment": GraphSpec(SegmentGraph(model), {"image": image, "means": means}, ESTIMATE),
    }


EXPORT = MethodExport(
    graphs,
    MemoryDefaults(every=2, frames=1),
    "nobody's",
    verified=lambda model: [{}, {"keep_first": True}],
)

# ------------------------------------------------------------- runtime/trackers/toy.py


@dataclass(frozen=True)
class ToyOptions(Options):
    keep_first: bool = option(False, "never memorise a frame that was not marked")


class ToyTracker(Tracker):
    """Memory: the mean colours of the last memory frame."""

    graphs = ("memorize", "segment")
    grows = False
    option_type = ToyOptions
    options: ToyOptions
    state = (*Tracker.state, "means", "memorized")

    def __init__(
        self, backend: Backend, size: tuple[int, int], policy: MemoryPolicy, options: ToyOptions
    ) -> None:
        super().__init__(backend, size, policy, options)
        self.means = self._output("memorize", "means", (1, None))
        self.memorized = False

    @property
    def memory(self) -> MemoryState:
        objects = self.num_objects
        held = objects if self.memorized else 0
        return MemoryState(held, objects, self.means.nbytes, "all but the newest")

    def add(self) -> None:
        self.memorized = False

    def drop(self, slot: int) -> None:
        self.memorized = False

    def detach(self, slot: int) -> tuple[None, MemoryState]:
        self.memorized = False  # the next frame is memorised, by which all are known
        return None, MemoryState(0, 0, 0, None)

    def attach(self, memory: None) -> None:
        self.memorized = False

    def allocate(self) -> None:
        super().allocate()
        self.means = self._output("memorize", "means", (1 + self.num_objects, None))

    def memorize(self) -> None:
        due = self.policy.is_regular(self.frame) and not self.options.keep_first
        if due or any(self.annotated) or not self.memorized:
            inputs = {"image": self.image, "slots": self.probabilities}
            self.backend.run("memorize", inputs, {"means": self.means})
            self.memorized = True

    def segment(self) -> None:
        outputs = {"probabilities": self.probabilities, "labels": self.labels}
        self.backend.run("segment", {"image": self.image, "means": self.means}, outputs)


TRACKER = ToyTracker

# ---------------------------------------------------- train/methods/toy/{stages,task}.py


@dataclass(frozen=True)
class ToyTrainOptions(TrainOptions):
    width: int = option(4, "channels of the projection", "network", at_least=1)


STAGES = {"main": Stage("videos", {"frames": 2, "crop": "64", "batch": 1}, needs=("davis",))}
TRAINING = Training(ToyTrainOptions, STAGES, default="main")


class ToyTask(Task):
    model: Toy
    options: ToyTrainOptions

    @classmethod
    def network(cls, options: TrainOptions) -> Toy:
        assert isinstance(options, ToyTrainOptions)
        return Toy(options.width)

    def forward(self, batch: Batch, step: Step) -> Losses:
        losses = [
            F.cross_entropy(self.logits(frames, masks)[None], labels[1:2], ignore_index=255)
            for frames, masks, labels in zip(
                batch["frames"], batch["masks"], batch["labels"], strict=True
            )
        ]
        return {"loss": torch.stack(losses).mean()}

    def logits(self, frames: Tensor, masks: Tensor) -> Tensor:
        slots = torch.cat([1 - masks[0].sum(0, keepdim=True), masks[0]])
        return self.model.segment(frames[1:2], self.model.memorize(frames[:1], slots))

    def pictures(self, batch: Batch) -> tuple[Tensor, Tensor]:
        labels = self.logits(batch["frames"][0], batch["masks"][0]).argmax(0, keepdim=True)
        return batch["frames"][0][:2], torch.cat([batch["labels"][0, :1], labels])


TASK = ToyTask

# Module -> the constant that `vos_deploy.methods` looks for in it.
PARTS = {
    "vos_deploy.models.toy": ("NETWORK", NETWORK),
    "vos_deploy.reference.toy": ("REFERENCE", REFERENCE),
    "vos_deploy.export.methods.toy": ("EXPORT", EXPORT),
    "vos_deploy.runtime.trackers.toy": ("TRACKER", TRACKER),
    "vos_deploy.train.methods.toy.stages": ("TRAINING", TRAINING),
    "vos_deploy.train.methods.toy.task": ("TASK", TASK),
}


def modules() -> dict[str, ModuleType]:
    """What would be the method's files."""
    result = {}
    for name, (constant, value) in PARTS.items():
        result[name] = ModuleType(name)
        setattr(result[name], constant, value)
    return result
