"""The loop: frames and masks in, object ids out. Knows no method."""

import os
from collections.abc import Iterable
from dataclasses import replace
from time import perf_counter
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError
from vos_deploy.frames import Size, working_size
from vos_deploy.prompts import Prompt

from . import backends, trackers
from .focus import Focus, boxes
from .geometry import Geometry
from .memory.bank import MemoryState
from .memory.cap import planned
from .model import Model, Streams, load
from .objects.drawn import check_visible
from .objects.parked import ParkedObjects
from .objects.slots import ObjectManager
from .settings import Settings
from .state.saving import Saved
from .stepping import Stepping


class Segmenter(Stepping, Saved):
    """Follows marked objects through a video, frame by frame.

        segmenter = vos_deploy.Segmenter("stm/")
        labels = segmenter.step(frame, mask)  # the first frame and its mask
        labels = segmenter.step(frame)  # every later frame

    Nothing grows with the length of the video unless memory_frames="unlimited" asks for it.
    For several videos at a time see `vos_deploy.Model`.

    timings: seconds of the last step, per stage: "prepare", one entry per graph, "finish".
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Bundle | Streams | None = None,
        *,
        device: str | backends.BackendMaker = "auto",
        memory_every: int | None = None,
        memory_frames: int | Literal["unlimited"] | None = None,
        memory_policy: str | None = None,
        memory_mib: float | None = None,
        size: int | Size | None = None,
        threads: int | None = None,
        focus: bool = False,
        decode_in_boxes: bool = False,
        setting: str | None = None,
        **options: Any,
    ) -> None:
        """Load a model. What is None comes from its manifest.

        Args:
            model: a model folder, or a `.plan` file built from one; None for the demonstration
                model that ships with the package; or a `Model` or a `Group`, which has its device
                and threads.
            device: one of `vos_deploy.runtime.backends.DEVICES`, or what makes another backend.
                "auto" is TensorRT for a plan; for a folder CUDA where there is one, or the CPU.
                On a GPU, use and close the segmenter in the thread that made it.
            memory_every: memorise every n-th frame for good.
            memory_frames: how many frames an object's memory holds, the annotated one included;
                "unlimited" lets it grow with the video.
            memory_policy: which of them makes room, one of `POLICIES` of
                `vos_deploy.runtime.memory.eviction`.
            memory_mib: how many MiB an object's memory takes at most: fewer memory frames fit in.
            size: what frames are resized to: the length of the shorter side, or (height, width).
                A model exported for one size takes no other.
            focus: work on a part of the frame that follows the objects, at up to its full size: for
                large frames and small objects.
            decode_in_boxes: run the decoder on the part of the frame around each object, on the
                CPU; see docs/boxes.md for what that changes.
            threads: CPU threads within one operator; None for one per physical core, or for as many
                as the process may use where those are fewer.
            setting: the authors' preset for a data set, such as "youtube", for memory_every and
                the options that are not given. Methods without settings take none.
            options: the method's own; the default of one that is None.

        Raises:
            ModelError: the model cannot be used; the message says why and what to do.
            InputError: another argument is wrong, the inference engine is not installed, or the
                memory limit of the model leaves no room.
        """
        self.bundle = model.bundle if isinstance(model, Streams) else load(model)
        given = {"memory_every": memory_every, **options}
        self._settings = Settings.of(
            self.bundle, given, memory_frames, size, setting, memory_policy, memory_mib, focus,
            decode_in_boxes,
        )  # fmt: skip
        self._shares = isinstance(model, Streams)
        if isinstance(model, Streams):
            if device != "auto" or threads is not None:
                raise InputError("device and threads are the Model's: give them to it")
            self._model: Streams = model
        else:
            self._model = Model(self.bundle, device=device, threads=threads)
        self._model.memory.check(self._settings)
        self._backend = self._model.lend()
        self._closed = False
        self.reset()
        try:
            self._settings.check_backend(self._backend)
        except InputError:
            self.close()
            raise

    def reset(self) -> None:
        """Forget objects, memory and frame size: the next frame starts another video."""
        self.timings: dict[str, float] = {}
        self._objects = ObjectManager()
        self._parked = ParkedObjects(self._objects)
        self._geometry: Geometry | None = None
        self._focus: Focus | None = None
        self._tracker: trackers.Tracker | None = None
        self._probabilities: NDArray[np.float32] | None = None
        self._model.memory.release(self)

    def step(
        self,
        frame: NDArray[np.uint8],
        mask: NDArray[Any] | None = None,
        objects: Iterable[int] | None = None,
        *,
        prompts: Iterable[Prompt] | None = None,
    ) -> NDArray[np.uint8]:
        """Segment the next frame.

        Args:
            frame: uint8 [H, W, 3], RGB, of the same size in every step.
            mask: integer [H, W], object ids from 1 to 254; 255 is void. Compulsory in the first
                step. Later, ids that are new are added, and ids that are known are corrected:
                their prediction is replaced by what is drawn. Other objects only lose the pixels
                that are drawn for these.
            objects: the ids in the mask that count; None for all of them.
            prompts: boxes and points in place of a mask, see `vos_deploy.Prompt`; GrabCut makes a
                mask of them.

        Returns:
            Object ids, uint8 [H, W]; 0 is background.

        Raises:
            InputError: frame, mask, objects or prompts are not as above, nothing can be cut out
                with a prompt (a `PromptError`), or the model takes fewer objects. The state is as
                before the step.
        """
        ready = self._check(frame, mask, objects, prompts)
        self._backend.timings.clear()
        self._advance(ready)
        ready.tracker.follow()
        segmented, waited = perf_counter(), self._backend.waited
        labels = self._finish(ready)
        # A GPU works on the graphs while we wait for it: that time is theirs.
        waiting = self._backend.waited - waited
        self.timings = {
            "prepare": ready.seconds,
            **self._backend.timings,
            "finish": perf_counter() - segmented - waiting,
        }
        return labels

    def mark(self, mask: NDArray[Any], objects: Iterable[int] | None = None) -> NDArray[np.uint8]:
        """Mark objects in the frame of the last step, as if that step had been given the mask.

        Args:
            mask, objects: as for `step`.

        Returns:
            Object ids, uint8 [H, W].

        Raises:
            InputError: as for `step`; also before the first step, and for an object that is paused
                or lies outside of what the focus was on.
        """
        geometry, tracker = self._geometry, self._tracker
        if geometry is None or tracker is None:
            raise InputError("there is no frame to mark yet: call step(frame, mask)")
        held = self._model.memory.held(self)
        try:
            drawn = self._check_drawn(geometry.frame, mask, objects)
            assert drawn is not None
            self._parked.check_markable(drawn[1])
            if self._focus is not None:
                self._focus.check_shown(boxes(*drawn))
            check_visible(*drawn, geometry)
        except BaseException:
            self._model.memory.restore(self, held)
            raise
        self._annotate(geometry, tracker, *drawn)
        return self._labels(geometry, tracker)

    def resize(self, size: Size) -> None:
        """Take frames of another size, (height, width), from the next step on.

        They show the same picture, larger or smaller: objects are followed on.

        Raises InputError for another shape, and before the first step.
        """
        if self._geometry is None:
            raise InputError("there is nothing to resize before the first step")
        self._geometry = self._geometry.resized(size)
        if self._focus is not None:
            self._focus = self._focus.resized(size, self._geometry.working)
        self._probabilities = None

    @property
    def device(self) -> str:
        """What the model runs on, with "auto" resolved."""
        return self._backend.device

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """float32 [1 + K, H, W] of the last frame, background first, then `objects` in order.

        Raises InputError before the first step.
        """
        if self._geometry is None or self._tracker is None:
            raise InputError("probabilities are unavailable before the first step")
        if self._probabilities is None:
            self._probabilities = self._geometry.restore(self._tracker.estimate())
        return self._probabilities

    @property
    def memory(self) -> MemoryState:
        """What the memory banks of all objects hold together. The frame in which an object is
        marked counts, though it is memorised no sooner than the next one needs it."""
        if self._tracker is None:
            return MemoryState.of([], self._settings.policy)
        state = self._parked.counted(self._tracker.memory)
        return replace(state, frames=state.frames + self._tracker.new_objects)

    def planned_memory(self, frame: Size) -> str:
        """One line on the memory of an object in frames of this size, (height, width).

        Raises InputError if memory_mib is too little for it.
        """
        return planned(self.bundle, self._settings, working_size(frame, self._settings.size))

    @property
    def statistics(self) -> dict[str, float]:
        """What the method counts so far, by name, such as "reuse rate"."""
        return {} if self._tracker is None else self._tracker.statistics

    def close(self) -> None:
        """Free what the device holds. The segmenter cannot be used afterwards."""
        if self._closed:
            return
        self._closed = True
        self.reset()
        self._model.take_back(self._backend)
        if not self._shares:
            self._model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
