"""The frames that a target model learns from, and the products that learning is made of."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .stencil import FROM, SHIFTS, TO, Float, apply_stencil, pixel_weights, stencil

# Numbers of features that are turned to float64 at a time: what a core's cache holds.
CHUNK = 2**18
# A new sample weighs this share, once.
RATE = 0.1


class Samples:
    """Up to `capacity` samples: features, the loss of their labels, and their weights.

    features: float [capacity, h * w, C]. weights: float64 [capacity], summing to 1; 0 for entries
    that are empty. A score is a 3x3 convolution of the features to one channel, its kernel
    [9, C], tap by tap in the order of `SHIFTS`.
    """

    state: ClassVar[tuple[str, ...]] = ("count", "weights", "_last", "filled")

    def __init__(
        self, capacity: int, grid: tuple[int, int], channels: int, dtype: Any = np.float32
    ) -> None:
        self.grid = grid
        self.features = np.empty((capacity, grid[0] * grid[1], channels), dtype)
        self.maps = np.empty((capacity, 9, *grid))
        self.targets = np.empty((capacity, *grid))
        self.weights = np.zeros(capacity)
        self.count = 0
        self._last: int | None = None

    @property
    def filled(self) -> "Filled":
        """What the entries hold that are in use."""
        return Filled(*(part[: self.count] for part in (self.features, self.maps, self.targets)))

    @property
    def nbytes(self) -> int:
        return self.features.nbytes + self.maps.nbytes + self.targets.nbytes

    def set_label(self, entry: int, label: NDArray[Any], weights: Float | None = None) -> None:
        """The label [H, W] in [0, 1] of an entry; pixels above one half set the pixel weights."""
        squared = pixel_weights(label > 0.5) if weights is None else weights
        self.maps[entry], self.targets[entry] = stencil(
            label.astype(np.float64), squared, self.grid
        )

    def start(self, count: int) -> None:
        """The first `count` entries are filled: the first, the frame itself, weighs double."""
        self.count = count
        self.weights[:count] = np.array([2.0, *[1.0] * (count - 1)]) / (count + 1)

    def next_entry(self) -> int:
        """Takes the entry of the lightest sample for a new one, weighted anew; returns it.

        Every sample weighs 1/0.9 of the one before, so the lightest is the oldest, and the samples
        of the first frame go too when all others are heavier.
        """
        entry = int(self.weights.argmin())
        if self._last is None:
            self.weights /= 1 - RATE
            self.weights[entry] = RATE
        else:
            self.weights[entry] = self.weights[self._last] / (1 - RATE)
        self.weights /= self.weights.sum()
        self._last = entry
        self.count = max(self.count, entry + 1)
        return entry

    def normal(self, kernel: Float, minus_target: bool = False) -> Float:
        """The gradient of the loss by the kernel, halved and without its constant, [9, C].

        With `minus_target` the constant is in it: half the gradient at `kernel`.
        """
        result: Float = np.zeros_like(kernel)
        _, tokens, channels = self.features.shape
        step = max(1, CHUNK // (tokens * channels))
        for start in range(0, self.count, step):
            chosen = slice(start, min(start + step, self.count))
            features = self.features[chosen].reshape(-1, channels).astype(np.float64, copy=False)
            scores = sum_shifted((kernel @ features.T).reshape(9, -1, *self.grid))
            change = apply_stencil(self.maps[chosen], scores)
            if minus_target:
                change -= self.targets[chosen]
            change *= self.weights[chosen, None, None]
            result += spread(change).reshape(9, -1) @ features
        return result


@dataclass(frozen=True)
class Filled:
    """Views of samples, by entry."""

    features: NDArray[Any]
    maps: Float
    targets: Float

    state: ClassVar[tuple[str, ...]] = ("features", "maps", "targets")


def nbytes_of(capacity: int, grid: tuple[int, int], channels: int) -> int:
    """What `Samples` of so many features of float32 take."""
    token = np.dtype(np.float32).itemsize * channels + np.dtype(np.float64).itemsize * (9 + 1)
    return capacity * grid[0] * grid[1] * token


def sum_shifted(taps: Float) -> Float:
    """[9, n, h, w] -> [n, h, w]: every tap's map read at its shift, zero outside, summed."""
    result: Float = taps[4].copy()
    for index, (dy, dx) in enumerate(SHIFTS):
        if dy or dx:
            result[:, TO[dy], TO[dx]] += taps[index][:, FROM[dy], FROM[dx]]
    return result


def spread(change: Float) -> Float:
    """The transpose of `sum_shifted`: [n, h, w] -> [9, n, h, w]."""
    taps = np.zeros((9, *change.shape))
    for index, (dy, dx) in enumerate(SHIFTS):
        taps[index][:, FROM[dy], FROM[dx]] = change[:, TO[dy], TO[dx]]
    return taps
