"""One stream of frames: a segmenter, and what was found last."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from threading import Lock
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vos_deploy.errors import InputError
from vos_deploy.masks import object_ids
from vos_deploy.prompts import mask_of

from ..segmenter import Segmenter
from ..web.pictures import read_frame, read_mask
from .answers import Answer, encode
from .bodies import Given
from .limits import Limits
from .trim import trim
from .turns import Turns
from .workers import Lane

Labels = NDArray[np.uint8]


class Session:
    """`frame`, `mark`, `show`, `remove` and `close` run in the threads of `lane`, one at a time.

    id: a secret, whoever knows it may use the session. turns: the order of its requests.
    state: what clients are told, made anew by each of them. seconds: what the last one took, by
    stage. used: when it was last asked for, which whoever finds it notes.
    """

    def __init__(self, segmenter: Segmenter, lane: Lane, limits: Limits) -> None:
        self.id = secrets.token_urlsafe(16)
        self.lane = lane
        self.turns = Turns(limits.frames_in_flight)
        self.used = 0.0
        self.seconds: dict[str, float] = {}
        self._segmenter, self._limits = segmenter, limits
        self._frames = 0
        self._content = b""  # of the last frame, for prompts that mark it
        self._labels: Labels | None = None
        self._lock = Lock()
        self.state = self._describe()

    def frame(self, given: Given, kind: str) -> Answer:
        """The labels of the next frame. Raises Refusal and InputError; then nothing has changed."""
        with self._lock:
            started = perf_counter()
            if given.frame is None:
                raise InputError("the part 'frame' is missing: send a JPEG or PNG")
            if not self._frames and given.mask is None and given.prompts is None:
                raise InputError(
                    "the first frame must come with a mask or prompts: send multipart/form-data "
                    "with the parts frame and mask, or frame and prompts"
                )
            frame = read_frame(given.frame, self._limits.max_pixels)
            self._check_size("the frame", frame)
            mask = self._read_mask(given, frame)
            decoded = perf_counter()
            labels = self._segmenter.step(frame, mask, given.objects, prompts=given.prompts)
            self._frames += 1
            self._content = given.frame
            return self._answer(labels, kind, started, decoded)

    def mark(self, given: Given, kind: str) -> Answer:
        """The labels of the last frame, with objects marked in it. Errors as of `frame`."""
        with self._lock:
            started = perf_counter()
            before = self._last()
            if given.prompts is not None:
                self._check_objects((prompt.object_id for prompt in given.prompts), before)
                frame = read_frame(self._content, self._limits.max_pixels)
                mask = mask_of(frame, given.prompts, before)
            else:
                found = self._read_mask(given, before)
                if found is None:
                    raise InputError("give a mask or prompts")
                mask = found
            decoded = perf_counter()
            labels = self._segmenter.mark(mask, given.objects)
            return self._answer(labels, kind, started, decoded)

    def show(self, kind: str) -> Answer:
        """The labels of the last frame once more."""
        with self._lock:
            return encode(self._last(), kind, self._frames - 1, self._objects())

    def remove(self, object_id: int) -> None:
        """Stop following an object. Raises InputError for one that is not followed."""
        with self._lock:
            self._segmenter.remove(object_id)
            self.state = self._describe()

    def close(self) -> None:
        """Free what the session holds."""
        with self._lock:
            self._segmenter.close()
            self._labels, self._content = None, b""
        trim()

    def _answer(self, labels: Labels, kind: str, started: float, decoded: float) -> Answer:
        stepped = perf_counter()
        self._labels = labels
        self.state = self._describe()
        answer = encode(labels, kind, self._frames - 1, self._objects())
        self.seconds = {
            "decode": decoded - started,
            "step": stepped - decoded,
            "encode": perf_counter() - stepped,
        }
        return answer

    def _last(self) -> Labels:
        if self._labels is None:
            raise InputError("the session has no frame yet: send one")
        return self._labels

    def _read_mask(self, given: Given, frame: NDArray[np.uint8]) -> Labels | None:
        if given.prompts is not None:
            self._check_objects((prompt.object_id for prompt in given.prompts), frame)
        if given.mask is None:
            return None
        mask = read_mask(given.mask, self._limits.max_pixels)
        if mask.shape != frame.shape[:2]:
            raise InputError(
                f"the mask must have the frame's size {_size(frame)} (height x width), got "
                f"{_size(mask)}"
            )
        ids = object_ids(mask)
        self._check_objects((i for i in ids if given.objects is None or i in given.objects), frame)
        return mask

    def _check_size(self, name: str, frame: NDArray[np.uint8]) -> None:
        if self._labels is not None and frame.shape[:2] != self._labels.shape:
            raise InputError(
                f"{name} must be {_size(self._labels)} (height x width) like the first one, got "
                f"{_size(frame)}: open another session for another video"
            )

    def _check_objects(self, ids: Iterable[int], frame: NDArray[np.uint8]) -> None:
        count, limits = len({*self._segmenter.objects, *ids}), self._limits
        if count > limits.max_objects:
            raise InputError(f"a session follows at most {limits.max_objects} objects, got {count}")
        pixels = frame.shape[0] * frame.shape[1]
        if pixels * count > limits.max_object_pixels:
            raise InputError(
                f"frames of {_size(frame)} may have at most {limits.max_object_pixels // pixels} "
                f"objects here, got {count}: send smaller frames"
            )

    def _objects(self) -> tuple[int, ...]:
        return tuple(self._segmenter.objects)

    def _describe(self) -> dict[str, Any]:
        memory = self._segmenter.memory
        return {
            "id": self.id,
            "frames": self._frames,
            "size": None if self._labels is None else list(self._labels.shape),
            "objects": list(self._objects()),
            "memory": {
                "frames": memory.frames,
                "capacity": memory.capacity,
                "bytes": memory.bytes,
            },
        }


def _size(array: NDArray[np.uint8]) -> str:
    return f"{array.shape[0]}x{array.shape[1]}"
