"""What a run measured: time per stage, frames per second, memory."""

from dataclasses import asdict, dataclass, field
from typing import Any

from ..memory.bank import MemoryState
from .live import LiveSummary
from .sightings import Sighting
from .times import PERCENTILES, Percentiles


@dataclass(frozen=True)
class Report:
    """The closing summary of a run.

    seconds: from asking for the first frame until every result is written; loading the model is
        not in it.
    size: (height, width) of the frames.
    masks_given: frames that came with a mask.
    results: what was written -> where.
    mask_kinds: what the masks were taken for -> how many.
    sightings: object id -> in which frames it was seen.
    live: latency and drops, where the source was live.
    """

    model: str
    device: str
    precision: str
    size: tuple[int, int]
    objects: int
    frames: int
    masks_given: int
    seconds: float
    stages: dict[str, Percentiles]
    memory: MemoryState
    results: dict[str, str] = field(default_factory=dict)
    mask_kinds: dict[str, int] = field(default_factory=dict)
    sightings: dict[int, Sighting] = field(default_factory=dict)
    live: LiveSummary | None = None

    @property
    def fps(self) -> float:
        """Frames per second of the whole run."""
        return self.frames / self.seconds

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "fps": self.fps}

    def __str__(self) -> str:
        height, width = self.size
        lines = [
            f"{_count(self.frames, 'frame')} of {height}x{width} in {self.seconds:.2f} s: "
            f"{self.fps:.2f} FPS ({_count(self.objects, 'object')}, {self.device}, "
            f"{self.precision}; without loading the model"
            f"{'; the table leaves out the frame that was marked first' if self.stages else ''})",
            f"{_count(self.masks_given, 'mask')} used{self._kinds()}",
            *(_seen(object_id, found) for object_id, found in self.sightings.items()),
            *([] if self.live is None else [str(self.live)]),
            "",
        ]
        lines += self._table()
        lines.append(f"{'memory':<17}{self.memory}")
        lines += [f"{name:<17}{path}" for name, path in self.results.items()]
        return "\n".join(lines)

    def _table(self) -> list[str]:
        """Milliseconds per stage; nothing where no frame was followed after the marked one."""
        rows = dict(self.stages)
        if self.live is not None:
            rows["capture to mask"] = {**self.live.latency, "frames": self.live.followed}
        if not rows:
            return []
        lines = [f"{'ms per frame':<17}{'p50':>9}{'p90':>9}{'p99':>9}{'frames':>9}"]
        for stage, row in rows.items():
            times = "".join(f"{row[f'p{percent}']:>9.2f}" for percent in PERCENTILES)
            lines.append(f"{stage:<17}{times}{row['frames']:>9.0f}")
        return [*lines, ""]

    def _kinds(self) -> str:
        """What masks were taken for, if not all for the same, which the run said at its start."""
        return f", taken for {'; '.join(self.mask_kinds)}" if len(self.mask_kinds) > 1 else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _seen(object_id: int, found: Sighting) -> str:
    """One line on an object: in how many frames it was seen, and when it was last."""
    lost = "" if found.lost == 0 else f", lost in {found.lost}, last seen in {found.last}"
    return f"object {object_id}: seen in {found.seen} of {_count(found.frames, 'frame')}{lost}"
