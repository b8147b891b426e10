"""A model that is loaded once, for any number of streams of frames."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from threading import RLock, get_ident
from typing import TYPE_CHECKING, Any, Literal, Self

from vos_deploy.bundle import Bundle, demonstration_model
from vos_deploy.errors import InputError
from vos_deploy.frames import Size

from . import backends
from .memory.limit import MemoryLimit, parse_bytes

if TYPE_CHECKING:
    from .group import Group
    from .segmenter import Segmenter


class Streams(ABC):
    """What segmenters share: a model, or a group of its streams.

    bundle: the model on disk. memory: what the streams may take.
    """

    bundle: Bundle
    memory: MemoryLimit

    def segmenter(
        self,
        *,
        memory_every: int | None = None,
        memory_frames: int | Literal["unlimited"] | None = None,
        size: int | Size | None = None,
        setting: str | None = None,
        **options: Any,
    ) -> Segmenter:
        """A segmenter for one more stream of frames; arguments and errors as of `Segmenter`."""
        from .segmenter import Segmenter

        return Segmenter(
            self,
            memory_every=memory_every,
            memory_frames=memory_frames,
            size=size,
            setting=setting,
            **options,
        )

    def load(self, path: str | os.PathLike[str], **options: Any) -> Segmenter:
        """The segmenter that was saved to a file; options and errors as of `Segmenter.load`."""
        from .segmenter import Segmenter

        return Segmenter.load(path, self, **options)

    @abstractmethod
    def lend(self) -> backends.Backend:
        """What a new segmenter runs on, for the thread that calls."""

    @abstractmethod
    def take_back(self, backend: backends.Backend) -> None:
        """What a segmenter ran on that is closed now."""

    @abstractmethod
    def close(self) -> None:
        """Free what the device holds. Segmenters that are open stay so, and no more are made."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Model(Streams):
    """Holds weights, and the sessions or engines that run them, once.

        model = vos_deploy.Model("stm/")
        with model.segmenter() as first, model.segmenter() as second:
            ...

    Segmenters are independent: each has objects and a memory of its own, and may be made and used
    in any thread, one thread at a time. On a GPU a segmenter belongs to the thread that makes it,
    and has its own CUDA stream.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Bundle | None = None,
        *,
        device: str | backends.BackendMaker = "auto",
        threads: int | None = None,
        memory_limit: int | str | None = None,
    ) -> None:
        """Load a model.

        Args:
            model, device, threads: as `Segmenter` takes them.
            memory_limit: bytes, or a text such as "2GiB", that the model and the states of all its
                segmenters may take together; None for no limit. The working memory of the inference
                engine is not counted: it does not depend on the number of segmenters on a CPU.

        Raises ModelError for a model that cannot be used, and InputError for another argument.
        """
        self.bundle = load(model)
        limit = None if memory_limit is None else parse_bytes(memory_limit)
        self.memory = MemoryLimit(self.bundle, limit)
        # Tells at once whether the model runs here, and serves the first segmenter.
        self._first = backends.create(self.bundle, device, threads)
        self._lent = self._closed = False
        self._thread = get_ident()
        self._lock = RLock()

    @property
    def device(self) -> str:
        """What the model runs on, with "auto" resolved."""
        return self._first.device

    def group(self, batch: int | None = None) -> Group:
        """Streams that are stepped together; arguments and errors as of `Group`."""
        from .group import Group

        return Group(self, batch)

    def lend(self) -> backends.Backend:
        with self._lock:
            if self._closed:
                raise InputError("the model is closed: make another one")
            # On a GPU the first one works in no other thread.
            if self._lent or get_ident() != self._thread:
                return self._first.fork()
            self._lent = True
            return self._first

    def take_back(self, backend: backends.Backend) -> None:
        with self._lock:
            if backend is self._first and not self._closed:
                self._lent = False
                return
        backend.close()

    def close(self) -> None:
        """Free what the device holds; on a GPU in the thread that made the model. Segmenters that
        are open stay so, and no more are made."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._lent:
                return  # it is closed when it comes back
        self._first.close()


def load(model: str | os.PathLike[str] | Bundle | None) -> Bundle:
    """A model by its path, or the one that ships with the package. Raises ModelError."""
    if isinstance(model, Bundle):
        return model
    return Bundle.load(demonstration_model() if model is None else model)
