"""The work on one video of a batch, the same in a process of its own, in a thread or on another
machine."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from vos_deploy.errors import InputError, VosDeployError
from vos_deploy.results import ResultFolder
from vos_deploy.video import FrameSource, open_source
from vos_deploy.writers import MaskFolderWriter

from ..model import Model
from ..run.follow import Follower
from ..run.given import Given
from ..run.given_masks import GivenMasks
from ..run.given_prompts import GivenPrompts
from ..segmenter import Segmenter
from .jobs import Job
from .peak import forget_peak, peak_memory
from .storage import Stage, at_hand, is_stored, reaching

logger = logging.getLogger(__name__)

FINISHED, SKIPPED, FAILED = "finished", "skipped", "failed"
MASKS, CHECKPOINTS = "masks", "checkpoints"

# Told how many frames of the video are done, and how many there will be if anyone knows.
Tell = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Work:
    """What is the same for all videos of a batch.

    model and output may be addresses on storage. options: of `Model.segmenter`. resume: go on where
    an older run of the same ended. checkpoint_every: seconds between checkpoints. batch: names this
    run; a video that is given again within it, as its worker died, goes on where that one ended.
    """

    model: Path | None
    output: Path
    device: str = "auto"
    threads: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    binary: bool = False
    objects: tuple[int, ...] | None = None
    resume: bool = False
    checkpoint_every: float = 30.0
    batch: str = ""


@dataclass(frozen=True)
class Result:
    """What became of a video.

    state: FINISHED, SKIPPED (an older run had finished it) or FAILED. frames: how many there are
    masks of, or were followed; of them `resumed` by an older run. seconds: of the work in this run.
    memory: bytes of the process at most. reason: of a failure.
    """

    name: str
    video: str
    mask: str
    state: str
    frames: int = 0
    resumed: int = 0
    objects: int = 0
    seconds: float = 0.0
    memory: int | None = None
    reason: str = ""

    @classmethod
    def of(cls, job: Job, state: str, **fields: Any) -> Self:
        return cls(job.name, str(job.video), str(job.mask), state, **fields)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Worker:
    """Holds the model and works on one video after the other."""

    def __init__(self, work: Work) -> None:
        """Raises VosDeployError if the model cannot be used."""
        self.work = work
        with ExitStack() as held:
            model = held.enter_context(at_hand(work.model))
            self.model = Model(model, device=work.device, threads=work.threads)
            self._held = held.pop_all()

    def run(self, job: Job, tell: Tell = lambda done, expected: None) -> Result:
        """Follow the objects of a video and write their masks; whatever goes wrong is in the
        result, and is of this video alone."""
        started = time.perf_counter()
        forget_peak()
        stage = Stage(job.video, job.mask, self.work.output / job.name)
        try:
            with stage:
                result = _Run(self.model, self.work, job, stage, tell).run()
        except VosDeployError as error:
            result = Result.of(job, FAILED, reason=stage.named(str(error)))
        except Exception as error:  # a defect, or no room or memory: the next video has its chance
            logger.exception("%s", job.name)
            result = Result.of(job, FAILED, reason=f"{type(error).__name__}: {error}")
        seconds = round(time.perf_counter() - started, 3)
        return Result(**{**asdict(result), "seconds": seconds, "memory": peak_memory()})

    def close(self) -> None:
        self.model.close()
        self._held.close()


class _Run:
    def __init__(self, model: Model, work: Work, job: Job, stage: Stage, tell: Tell) -> None:
        self.model, self.work, self.job, self.stage, self.tell = model, work, job, stage, tell
        self.folder = ResultFolder(stage.results, (MASKS, CHECKPOINTS), durable=True)
        masks = GivenMasks(
            stage.mask, binary=work.binary, objects=work.objects, first_only=job.first_only
        )
        self.masks = Given(masks, GivenPrompts())
        path = model.bundle.path
        reads = {"the video": job.video, "the mask": job.mask, "--model": path}
        self.folder.keep_apart({name: path for name, path in reads.items() if not is_stored(path)})
        self.about: dict[str, Any] = {
            **{"video": str(job.video), "mask": str(job.mask), "model": str(work.model or path)},
            **{"batch": work.batch, "worker": f"{socket.gethostname()}:{os.getpid()}"},
            "job": self._job(),
        }

    def run(self) -> Result:
        before = self.folder.before
        again = bool(self.work.batch) and before.get("batch") == self.work.batch
        same = before.get("job") == self.about["job"] and (again or self.work.resume)
        if same and before.get("state") == FINISHED and self._is_whole(before):
            counted = {"frames": before["frames"], "objects": before["objects"]}
            return Result.of(self.job, FINISHED if again else SKIPPED, **counted)
        try:
            return self._start(same)
        finally:
            self.stage.push()

    def _start(self, same: bool) -> Result:
        with open_source(self.stage.video, exclude=self.masks.files) as source:
            self.masks.match(source.names)
            segmenter, start, keep = self._begin(source, same)
            with segmenter:
                return self._follow(source, segmenter, start, keep)

    def _follow(
        self, source: FrameSource, segmenter: Segmenter, start: int, keep: Collection[Path]
    ) -> Result:
        follower = Follower(segmenter, source, self.masks, start=start)
        state = FAILED
        try:
            with MaskFolderWriter(self.folder.folder / MASKS, self.folder.note) as writer:
                saved = time.monotonic()
                for followed in follower:
                    if not followed.index - start:  # with labels in hand, older results go
                        self.folder.start(self.about, keep)
                    if self.job.asked is None or followed.name in self.job.asked:
                        writer.write(followed.name, followed.labels)
                    self.tell(followed.index + 1, follower.expected)
                    if time.monotonic() - saved >= self.work.checkpoint_every:
                        self._save(segmenter, writer, followed.index + 1)
                        saved = time.monotonic()
                if start and follower.frames == start:  # all that was missing is the record
                    self.folder.start(self.about, keep)
            self._drop_checkpoints()
            state = FINISHED
        finally:
            counted = {"frames": follower.frames, "objects": len(follower.sightings.objects)}
            self.folder.finish(state, **counted)
        self.masks.warn_of_unused(follower.frames)
        return Result.of(self.job, state, resumed=start, **counted)

    def _begin(self, source: FrameSource, same: bool) -> tuple[Segmenter, int, set[Path]]:
        """A segmenter, how many frames it has followed, and the files that it goes on from."""
        if same:
            intact = self.folder.intact()
            for path in sorted(self._checkpoints(), reverse=True):
                done = int(path.stem)
                masks = [self._mask(source.name(i)) for i in range(done) if self._asked(source, i)]
                if not intact.issuperset(masks):
                    continue
                try:
                    return self.model.load(path), done, {*masks, path}
                except InputError as error:
                    logger.warning("%s: starting over: %s", self.job.name, error)
        return self.model.segmenter(**self.work.options), 0, set()

    def _save(self, segmenter: Segmenter, writer: MaskFolderWriter, done: int) -> None:
        """A checkpoint, of which the masks are written."""
        if not segmenter.objects:
            return
        writer.flush()
        path = self.folder.folder / CHECKPOINTS / f"{done:08d}.safetensors"
        self.folder.note(path)
        segmenter.save(path)
        self._drop_checkpoints(path)
        self.stage.push()

    def _drop_checkpoints(self, but: Path | None = None) -> None:
        for path in self._checkpoints():
            if path != but:
                path.unlink(missing_ok=True)
        if but is None:
            with suppress(OSError):  # there is none
                (self.folder.folder / CHECKPOINTS).rmdir()

    def _checkpoints(self) -> list[Path]:
        return [*(self.folder.folder / CHECKPOINTS).glob("[0-9]*.safetensors")]

    def _mask(self, name: str) -> Path:
        return self.folder.folder / MASKS / f"{name}.png"

    def _asked(self, source: FrameSource, index: int) -> bool:
        return self.job.asked is None or source.name(index) in self.job.asked

    def _is_whole(self, before: dict[str, Any]) -> bool:
        masks = {self.folder.folder / name for name in before.get("files", {})}
        return self.folder.intact() >= masks

    def _job(self) -> dict[str, Any]:
        """What the results depend on, as JSON gives it back."""
        work, job = self.work, self.job
        graphs = {name: graph.sha256 for name, graph in self.model.bundle.graphs.items()}
        options = {name: _plain(value) for name, value in work.options.items()}
        return {
            "video": _stamp(job.video),
            "mask": _stamp(job.mask),
            "graphs": graphs,
            "options": options,
            "binary": work.binary,
            "objects": _plain(work.objects),
            "asked": _plain(job.asked),
            "first_only": job.first_only,
        }


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def _stamp(path: Path) -> list[Any]:
    """Path, number of files, bytes and the newest change: another video has another stamp.

    Raises InputError if nothing is there, and VosDeployError for storage that cannot be reached.
    """
    with reaching(path):
        if not path.exists():
            raise InputError(f"found nothing at {path}: check the path")
        files = [p for p in path.iterdir() if p.is_file()] if path.is_dir() else [path]
        found = [file.stat() for file in files]
    newest = max((stat.st_mtime_ns for stat in found), default=0)
    return [str(path.resolve()), len(found), sum(stat.st_size for stat in found), newest]
