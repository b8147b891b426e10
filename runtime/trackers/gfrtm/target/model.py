"""The target model of FRTM (Robinson et al., CVPR 2020) as Reuse-VOS uses it: a 1x1 projection of
the deep features to 96 channels and a 3x3 kernel to a score, learned for each object."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .optimizer import Optimizer, filter_problem, joint_problem
from .samples import Samples
from .stencil import FEW_PIXELS, Float


@dataclass(frozen=True)
class Schedule:
    """Conjugate gradients per Gauss-Newton step, at the first frame and in an update, and what
    they solve.

    project_scale, kernel_scale: regularisation and preconditioner of the two layers. forget: see
    `Optimizer`. weigh_pixels: small objects count more, see `pixel_weights`.
    """

    first: tuple[int, ...]
    update: tuple[int, ...]
    project_scale: float = 1e-4
    kernel_scale: float = 1e-2
    forget: float = 0.9**750
    weigh_pixels: bool = True


FAST = Schedule((5, 10, 10, 10), (5,))
SLOW = Schedule((5, 10, 10, 10, 10), (10,))


def initial_weights(index: int, channels: int, middle: int) -> tuple[Float, Float]:
    """Projection [middle, channels] and kernel [9, middle] to start from.

    Uniform within 1 / sqrt(inputs), by a generator of fixed seed: the same for every object,
    whatever its index, and in every run.
    """
    generator = np.random.default_rng(0)

    def uniform(shape: tuple[int, int], inputs: int) -> Float:
        return generator.uniform(-(inputs**-0.5), inputs**-0.5, shape)

    return uniform((middle, channels), channels), uniform((9, middle), 9 * middle)


class TargetModel:
    """project: float64 [middle, C]; kernel: float64 [9, middle], its taps row by row.

    samples: what the kernel is updated on, projected features [h * w, middle]. The projection
    stays as the first frame left it.
    """

    state: ClassVar[tuple[str, ...]] = ("project", "kernel", "samples", "_optimizer")

    def __init__(
        self,
        weights: tuple[Float, Float],
        grid: tuple[int, int],
        capacity: int,
        schedule: Schedule = FAST,
    ) -> None:
        self.project, self.kernel = (w.astype(np.float64) for w in weights)
        self.samples = Samples(capacity, grid, len(self.project))
        self._schedule = schedule
        everywhere = np.full(self.kernel.size, schedule.kernel_scale)
        self._optimizer = Optimizer(everywhere, everywhere, schedule.forget)

    def learn(self, features: Sequence[NDArray[Any]], labels: Sequence[NDArray[Any]]) -> None:
        """Learn from the first frame and what was painted from it.

        features: float [h * w, C] each, the frame's own first; labels: [H, W] each, in {0, 1}.
        """
        count = len(features)
        raw = Samples(count, self.samples.grid, features[0].shape[1], np.float64)
        for entry, label in enumerate(labels):
            raw.features[entry] = features[entry]
            raw.set_label(entry, label, self._pixel_weights(label))
        raw.start(count)
        schedule, split = self._schedule, self.project.size
        scales = [schedule.project_scale, schedule.kernel_scale]
        scale = np.repeat(scales, [split, self.kernel.size])
        optimizer = Optimizer(scale, scale, schedule.forget)
        theta = np.concatenate([self.project.ravel(), self.kernel.ravel()])
        problem = joint_problem(raw, len(self.project))
        for iterations in schedule.first:
            theta = optimizer.step(problem, theta, iterations)
        self.project = theta[:split].reshape(self.project.shape)
        self.kernel = theta[split:].reshape(self.kernel.shape)
        memory = self.samples
        memory.features[:count] = raw.features @ self.project.T
        memory.maps[:count], memory.targets[:count] = raw.maps, raw.targets
        memory.start(count)
        self.update()

    def insert(self, projected: NDArray[np.float32], label: NDArray[np.float32]) -> bool:
        """Remember a frame: projected features [h * w, middle] and the soft mask [H, W].

        Returns whether it was worth it: a mask of less than ten pixels is not.
        """
        if np.count_nonzero(label > 0.5) < FEW_PIXELS:
            return False
        entry = self.samples.next_entry()
        self.samples.features[entry] = projected
        self.samples.set_label(entry, label, self._pixel_weights(label))
        return True

    def update(self) -> None:
        """Adapt the kernel to the samples held."""
        problem, theta = filter_problem(self.samples), self.kernel.ravel()
        for iterations in self._schedule.update:
            theta = self._optimizer.step(problem, theta, iterations)
        self.kernel = theta.reshape(self.kernel.shape)

    def _pixel_weights(self, label: NDArray[Any]) -> Float | None:
        return None if self._schedule.weigh_pixels else np.ones(label.shape)
