"""What a method's training is to the loop."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self

from torch import Tensor, nn
from torch.utils.data import Dataset

from vos_deploy.errors import InputError
from vos_deploy.models import Network, load_checkpoint, load_weights

from .data.mixture import Sample
from .options import TrainOptions
from .schedule import Step

# Four tokens: in less there is nothing to find again.
SMALLEST = 64

Batch = dict[str, Tensor]
Losses = dict[str, Tensor]


def prefixes_of(words: Sequence[str]) -> dict[str, float]:
    """`--slow`: prefix of parameter names -> factor of the learning rate."""
    result = {}
    for word in words:
        prefix, _, factor = word.partition("=")
        try:
            result[prefix] = float(factor)
        except ValueError as error:
            raise InputError(
                f"--slow {word}: must be PREFIX=FACTOR, such as key_encoder=0.1"
            ) from error
    return result


class Task(nn.Module):
    """Which frames of a clip are encoded, memorised and segmented, and what that costs.

    A subclass gives the network of its options, `forward` and `pictures`; the rest has defaults.
    """

    # A batch may leave parameters without a gradient: DistributedDataParallel must know.
    unused_parameters = False

    def __init__(self, model: Network, options: TrainOptions) -> None:
        super().__init__()
        self.model, self.options = model, options

    @classmethod
    def build(cls, options: TrainOptions) -> Self:
        """The task with its network, started from `options.imagenet` and `options.initial`."""
        task = cls(cls.network(options), options)
        if options.imagenet is not None:
            task.load_imagenet()
        if options.initial is not None:
            task.load_initial(load_checkpoint(options.initial, task.model.method).state_dict)
        return task

    @classmethod
    @abstractmethod
    def network(cls, options: TrainOptions) -> Network:
        """An untrained network."""

    @classmethod
    def check(cls, options: TrainOptions) -> None:
        """Raise InputError for options that do not go together, before anything is built."""
        if options.initial is not None and not options.initial.is_file():
            raise InputError(f"no checkpoint at {options.initial}")
        if options.imagenet is not None and not options.imagenet.is_file():
            raise InputError(f"no ImageNet weights at {options.imagenet}")
        if options.frames < 2:
            raise InputError(f"--frames must be at least 2, got {options.frames}")
        if min(options.size) < SMALLEST:
            raise InputError(f"--crop must have sides of at least {SMALLEST}, got {options.crop}")

    @abstractmethod
    def forward(self, batch: Batch, step: Step) -> Losses:
        """Scalars by name: `loss` is minimised, the others are logged.

        batch: what `data.mixture` describes, with a leading batch dimension.
        """

    @abstractmethod
    def pictures(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Frames float [T, 3, H, W] in [0, 1] and predicted labels int [T, H, W] of the first clip
        of a batch, for the log. Runs without gradients."""

    def load_imagenet(self) -> None:
        """Fill the trunks from `options.imagenet`."""
        raise InputError(f"--imagenet is unsupported for {self.model.method}")

    def load_initial(self, state: dict[str, Tensor]) -> None:
        """Take over the state dict of `options.initial`."""
        load_weights(self.model, state, source=str(self.options.initial))

    def prepare(self, clips: Dataset[Sample]) -> None:
        """Whatever happens once, before the first step of a run."""

    def frozen(self, name: str) -> bool:
        """Whether a parameter of the network stays as it is."""
        prefixes = tuple(prefix for prefix in self.options.freeze.split(",") if prefix)
        return name.startswith(prefixes)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for Adam; a group may set its own `weight_decay`, and `rate`, a factor of the
        learning rate. Frozen parameters are left out."""
        slow = prefixes_of(self.options.slow)
        groups: list[dict[str, Any]] = [{"params": [], "rate": f} for f in (*slow.values(), 1.0)]
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                which = next((i for i, p in enumerate(slow) if name.startswith(p)), -1)
                groups[which]["params"].append(parameter)
        for prefix, group in zip(slow, groups, strict=False):
            if not group["params"]:
                raise InputError(f"--slow {prefix}: no trained parameter has this prefix")
        return [group for group in groups if group["params"]]


def check_multiple(flag: str, of: int, *values: int) -> None:
    """Raise InputError unless the value of a flag, one number or several, is made of multiples."""
    if any(value < of or value % of for value in values):
        text = "x".join(map(str, values))
        raise InputError(f"{flag} must be a multiple of {of}, got {text}")
