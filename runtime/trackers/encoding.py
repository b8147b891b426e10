"""What is computed of frames alone: by the encoder, for one stream or for several at once.

A model that was exported with --batch has an encoder with a leading axis of frames. Of one frame it
gives the same as the encoder of any other model, with that axis of length 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING

from vos_deploy.bundle import Bundle, TensorSpec
from vos_deploy.errors import ModelError
from vos_deploy.frames import Size

from ..backends import Array, Backend

if TYPE_CHECKING:
    from .base import Tracker

ENCODER = "encoder"
IMAGE = "image"


def takes_several(bundle: Bundle) -> bool:
    """Whether the encoder takes frames of several streams, uint8 [B, H, W, 3]."""
    return ENCODER in bundle.graphs and len(bundle.graphs[ENCODER].inputs[0].shape) == 4


def most_at_once(bundle: Bundle) -> int | None:
    """How many frames the encoder takes at a time; None for no limit."""
    if not takes_several(bundle):
        return 1
    if bundle.engine is None:
        return None
    profile = bundle.engine.profiles[ENCODER].get(IMAGE)
    return 1 if profile is None else profile[2][0]


def feature_specs(bundle: Bundle) -> tuple[TensorSpec, ...]:
    """What the encoder gives of one frame."""
    outputs = bundle.graphs[ENCODER].outputs
    if not takes_several(bundle):
        return outputs
    return tuple(replace(spec, shape=spec.shape[1:]) for spec in outputs)


def feature_spec(bundle: Bundle, name: str) -> TensorSpec:
    """One of them. Raises ModelError if there is none of this name."""
    for spec in feature_specs(bundle):
        if spec.name == name:
            return spec
    raise ModelError(f"graph {ENCODER!r} in {bundle.path} has no output {name!r}")


def encode(backend: Backend, image: Array, features: Mapping[str, Array]) -> None:
    """Fill `features`, arrays as `feature_specs` states them, for an image uint8 [H, W, 3]."""
    if takes_several(backend.bundle):
        image = image.reshape((1, *image.shape))
        features = {name: array.reshape((1, *array.shape)) for name, array in features.items()}
    backend.run(ENCODER, {IMAGE: image}, features)


class BatchEncoder:
    """Has the encoder run on frames of several streams at once, by arrays that it keeps.

    Frames and features are copied: each tracker has its own, whoever it is encoded with.
    """

    def __init__(self, backend: Backend, batch: int) -> None:
        """batch: how many frames at a time, at most."""
        self._backend, self._batch = backend, batch
        self._arrays: dict[Size, dict[str, Array]] = {}

    def needed(self, batches: Iterable[Sequence[Tracker]]) -> int:
        """Bytes that `allocate` takes for these."""
        return sum(
            self._frames(alike) * (alike[0].image.nbytes + _nbytes(alike[0].features))
            for alike in batches
        )

    def allocate(self, batches: Iterable[Sequence[Tracker]]) -> None:
        """Have arrays for these trackers, each sequence of one size, and for no other size."""
        arrays: dict[Size, dict[str, Array]] = {}
        for alike in batches:
            first, count = alike[0], self._frames(alike)
            known = self._arrays.get(first.size, {})
            arrays[first.size] = (
                known
                if known and known[IMAGE].shape[0] == count
                else {
                    name: self._backend.empty((count, *array.shape), array.dtype)
                    for name, array in {IMAGE: first.image, **first.features}.items()
                }
            )
        self._arrays = arrays

    def encode(self, trackers: Sequence[Tracker]) -> None:
        """Fill the features of trackers of one size, no more than a batch; there are arrays for
        them."""
        arrays, backend = self._arrays[trackers[0].size], self._backend
        given = {name: array[: len(trackers)] for name, array in arrays.items()}
        image = given.pop(IMAGE)
        for index, tracker in enumerate(trackers):
            backend.copy(tracker.image, image[index])
        backend.run(ENCODER, {IMAGE: image}, given)
        for index, tracker in enumerate(trackers):
            for name, feature in tracker.features.items():
                backend.copy(given[name][index], feature)
            tracker.encoded()

    def parts(self, trackers: Sequence[Tracker]) -> Iterator[Sequence[Tracker]]:
        """As few batches as they make, of nearly the same length."""
        count = ceil(len(trackers) / self._batch)
        for index in range(count):
            first, last = (len(trackers) * (index + i) // count for i in (0, 1))
            yield trackers[first:last]

    def _frames(self, alike: Sequence[Tracker]) -> int:
        """How many frames there are arrays for: no fewer than before."""
        known = self._arrays.get(alike[0].size)
        before = known[IMAGE].shape[0] if known else 0
        return max(before, min(len(alike), self._batch))


def _nbytes(arrays: Mapping[str, Array]) -> int:
    return sum(array.nbytes for array in arrays.values())
