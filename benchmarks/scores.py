"""J and F of result masks against the ground truth, per object, per clip and over a set."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vos_deploy.errors import InputError
from vos_deploy.palette import VOID

from .davis import Clip
from .measures import Statistics, average, contour_accuracy, region_similarity, statistics

Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class Score:
    """Statistics of J (`region`) and F (`contour`), as fractions."""

    region: Statistics
    contour: Statistics

    @property
    def mean(self) -> float:
        """J&F, the number that DAVIS-2017 ranks by."""
        return (self.region.mean + self.contour.mean) / 2


@dataclass(frozen=True)
class ObjectScore:
    """J and F of one object in every scored frame."""

    object_id: int
    region: tuple[float, ...]
    contour: tuple[float, ...]

    @property
    def score(self) -> Score:
        return Score(statistics(self.region), statistics(self.contour))


@dataclass(frozen=True)
class ClipScore:
    name: str
    objects: tuple[ObjectScore, ...]

    @property
    def frames(self) -> int:
        """How many frames count."""
        return len(self.objects[0].region)


def overall(clips: Sequence[ClipScore]) -> Score:
    """The mean over all objects of all clips: a clip with more objects weighs more, as in the
    DAVIS-2017 code. With one object per clip (DAVIS-2016) it is the mean over the clips."""
    scores = [item.score for clip in clips for item in clip.objects]
    return Score(
        average([score.region for score in scores]), average([score.contour for score in scores])
    )


def score_clip(clip: Clip, results: Iterable[Labels]) -> ClipScore:
    """Scores one clip.

    `results` are labels, uint8 [H, W], one for each of `clip.scored`. Pixels whose annotation is
    255 (void) do not count. Raises InputError for labels of another size, and for ids that the
    first annotation does not have: most often a colour or a 0/255 mask.
    """
    ids = clip.objects()
    region: dict[int, list[float]] = {object_id: [] for object_id in ids}
    contour: dict[int, list[float]] = {object_id: [] for object_id in ids}
    for path, labels in zip(clip.scored, results, strict=True):
        truth = clip.labels(path)
        _check(labels, truth, ids, f"{clip.name}/{path.name}")
        void = truth == VOID
        for object_id in ids:
            pair = (labels == object_id, truth == object_id)
            region[object_id].append(region_similarity(*pair, void))
            contour[object_id].append(contour_accuracy(*pair, void))
    return ClipScore(
        clip.name, tuple(ObjectScore(i, tuple(region[i]), tuple(contour[i])) for i in ids)
    )


def _check(labels: Labels, truth: Labels, ids: list[int], name: str) -> None:
    if labels.shape != truth.shape:
        expected, found = ("x".join(map(str, array.shape)) for array in (truth, labels))
        raise InputError(f"expected the result for {name} at {expected}, found {found}")
    present = {int(i) for i in np.unique(labels)}
    unknown = sorted(present - {0, *ids})
    if present - {0} == {VOID}:
        raise InputError(
            f"the result for {name} is white on black, and here every object has an id: score it "
            "with --year 2016, or save the ids"
        )
    if unknown:
        raise InputError(
            f"expected the ids 0 (background) and {', '.join(map(str, ids))} in the result for "
            f"{name}, found {unknown[0]}: are its pixel values object ids?"
        )
