"""Saving a segmenter to a file, and going on from there."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError
from vos_deploy.frames import Size

from .. import trackers
from ..backends import Backend, BackendMaker
from ..focus import Focus
from ..geometry import Geometry
from ..model import Streams
from ..model import load as load_model
from ..objects.parked import ParkedObjects
from ..settings import Settings
from .file import SavedState
from .held import Misfit, State


class Saved(ABC):
    """The part of `Segmenter` that is about its state.

    state: the attributes that are saved; see `held.py`.
    """

    state: ClassVar[tuple[str, ...]] = ("_objects", "_tracker", "_probabilities", "_focus")

    bundle: Bundle
    _settings: Settings
    _model: Streams
    _backend: Backend
    _geometry: Geometry | None
    _tracker: trackers.Tracker | None
    _parked: ParkedObjects
    _focus: Focus | None

    @abstractmethod
    def _start(self, size: Size) -> tuple[Geometry, trackers.Tracker]:
        """Geometry and tracker of a video whose frames have a size, (H, W)."""

    @abstractmethod
    def close(self) -> None:
        """Free what the device holds."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state to a file, from which `load` goes on as if nothing had happened.

        Raises InputError before the first step, while objects are paused, or for a state with
        something of the caller's own in it that cannot be saved; VosDeployError if the file cannot
        be written.
        """
        if self._geometry is None or self._tracker is None:
            raise InputError("there is no state to save before the first step")
        paused = self._parked.ids or self._parked.returning
        if paused:
            raise InputError(
                f"object {', '.join(map(str, paused))} is paused, which a state does not hold: "
                "follow it for a frame first, or remove it"
            )
        state = State()
        try:
            for name in self.state:
                state.collect(name, getattr(self, name), self._backend)
        except Misfit as error:
            raise InputError(f"the state cannot be saved: {error}") from error
        frame, batches = self._geometry.frame, self._tracker.batches
        SavedState.of(self.bundle, self._settings, frame, batches, state).write(path)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        model: str | os.PathLike[str] | Streams | None = None,
        *,
        device: str | BackendMaker = "auto",
        threads: int | None = None,
        **options: Any,
    ) -> Self:
        """The segmenter that was saved to a file, ready for the next frame.

        Args:
            path: what `save` wrote.
            model, device, threads: as for `Segmenter`; the same model as when it was saved.
            options: those that are no numbers or texts, such as a flow source of one's own. All
                other arguments are in the file.

        Raises InputError if the file is damaged, newer, or of another model.
        """
        saved = SavedState.read(path)
        bundle = model.bundle if isinstance(model, Streams) else load_model(model)
        arguments = saved.check(bundle, options)
        make: Any = cls  # `Segmenter`, which knows these arguments
        shared = model if isinstance(model, Streams) else bundle
        segmenter: Self = make(shared, device=device, threads=threads, **arguments)
        try:
            segmenter._restore(saved)
        except BaseException:
            segmenter.close()
            raise
        return segmenter

    def _restore(self, saved: SavedState) -> None:
        self._model.memory.reserve(self, self._settings, saved.frame, sum(saved.batches))
        try:
            followed = saved.state.values["_objects.ids"]
            if sum(saved.batches) != len(followed):
                raise Misfit(f"it has {len(followed)} objects, and not {sum(saved.batches)}")
            geometry, tracker = self._start(saved.frame)
            tracker.rebuild(saved.batches)
            for name in self.state:
                saved.state.restore(name, self, name, self._backend)
            if self._focus is not None:
                self._geometry = geometry.at(self._focus.crop)
        except (Misfit, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as e:
            raise InputError(f"the state in {saved.path} does not fit the model: {e}") from e
