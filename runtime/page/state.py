"""What a page shows, as JSON."""

from collections.abc import Iterable
from typing import Any

from vos_deploy.errors import InputError
from vos_deploy.palette import PALETTE
from vos_deploy.prompts import Prompt

from ..segmenter import Segmenter
from .clip import Clip, known

LONGEST_NAME = 60


class Names:
    """What the objects are called, and which of them are painted."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._hidden: set[int] = set()
        self._followed: set[int] = set()

    @property
    def ids(self) -> list[int]:
        return sorted(self._names)

    def add(self, object_id: int) -> None:
        """List an object, unless it is."""
        self._names.setdefault(object_id, f"object {object_id}")

    def remove(self, object_id: int) -> None:
        self._check(object_id)
        del self._names[object_id]
        self._hidden.discard(object_id)

    def rename(self, object_id: int, name: str) -> None:
        self._check(object_id)
        name = " ".join(name.split())[:LONGEST_NAME]
        self._names[object_id] = name or f"object {object_id}"

    def show(self, object_id: int, visible: bool) -> None:
        self._check(object_id)
        if visible:
            self._hidden.discard(object_id)
        else:
            self._hidden.add(object_id)

    def match(self, followed: Iterable[int], drawn: Iterable[int]) -> None:
        """List what is followed or drawn; what was followed once and is gone, is gone."""
        there = {*followed, *drawn}
        for object_id in there:
            self.add(object_id)
        for object_id in self._followed - there:
            self.remove(object_id)
        self._followed = set(followed)

    def get(self, object_id: int) -> tuple[str, bool]:
        """Name, and whether it is painted."""
        return self._names[object_id], object_id not in self._hidden

    def _check(self, object_id: int) -> None:
        if object_id not in self._names:
            raise InputError(f"there is no object {object_id}")


def describe(segmenter: Segmenter, clip: Clip | None, names: Names) -> dict[str, Any]:
    """The model; and the source, objects, marks and figures of a clip that is open."""
    bundle = segmenter.bundle
    state: dict[str, Any] = {
        "model": {
            "name": bundle.path.name,
            "method": bundle.method,
            "device": segmenter.device,
            "most_objects": bundle.max_objects,
        },
        "source": None,
        "objects": [],
        "marks": {"steps": 0, "prompts": []},
        "figures": {},
    }
    if clip is None:
        return state
    marks = clip.marks
    return state | {
        "source": clip.about,
        "objects": [_object(object_id, segmenter, clip, names) for object_id in names.ids],
        "marks": {"steps": marks.steps, "prompts": [_prompt(prompt) for prompt in marks.prompts]},
        "figures": _figures(segmenter, clip),
    }


def _object(object_id: int, segmenter: Segmenter, clip: Clip, names: Names) -> dict[str, Any]:
    name, visible = names.get(object_id)
    sighting = clip.sightings.objects.get(object_id)
    return {
        "id": object_id,
        "name": name,
        "visible": visible,
        "colour": PALETTE[object_id].tolist(),
        "followed": object_id in known(segmenter) and object_id not in clip.marks.removed,
        "paused": object_id in segmenter.paused,
        "marked": object_id in clip.marks.drawn,
        "removed": object_id in clip.marks.removed,
        "lost": object_id in clip.sightings.lost and object_id not in clip.marks.drawn,
        "seen": 0 if sighting is None else sighting.seen,
        "frames": 0 if sighting is None else sighting.frames,
    }


def _prompt(prompt: Prompt) -> dict[str, Any]:
    return {
        "object": prompt.object_id,
        "box": None if prompt.box is None else list(prompt.box),
        "points": [list(point) for point in prompt.points],
        "not_points": [list(point) for point in prompt.not_points],
    }


def _figures(segmenter: Segmenter, clip: Clip) -> dict[str, Any]:
    memory = segmenter.memory
    return {
        **clip.meter.summary(),
        "memory": {
            "frames": memory.frames,
            "capacity": memory.capacity,
            "bytes": memory.bytes,
            "evicts": memory.evicts,
        },
    }
