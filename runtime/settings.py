"""How a stream of frames is worked on: what was asked for, as far as the model can do it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError
from vos_deploy.frames import Size
from vos_deploy.options import Options

from . import trackers
from .backends import Backend
from .boxes import DecodeInBoxes, check_any_size, check_on_host
from .memory.bank import MemoryPolicy
from .memory.cap import capped
from .memory.eviction import POLICIES
from .options import configure

UNLIMITED: Literal["unlimited"] = "unlimited"


@dataclass(frozen=True)
class Settings:
    """Settings of a stream, checked against the model.

    policy: which frames stay in the memory. options: the method's own.
    size: the working size, as the length of the shorter side or (height, width); None for the
        frame's own.
    memory_mib: what the memory of one object may take at most; None for no other limit than that
        of the policy. focus: whether a crop that follows the objects is worked on.
    decode_in_boxes: whether the decoder works around each object alone.
    """

    tracker_type: type[trackers.Tracker]
    policy: MemoryPolicy
    options: Options
    size: int | Size | None
    memory_mib: float | None = None
    focus: bool = False
    decode_in_boxes: bool = False

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        given: Mapping[str, Any],
        memory_frames: int | str | None,
        size: int | Size | None,
        setting: str | None,
        memory_policy: str | None = None,
        memory_mib: float | None = None,
        focus: bool = False,
        decode_in_boxes: bool = False,
    ) -> Self:
        """From the arguments of `Segmenter`. given: `memory_every` and the method's options, of
        which None is what the manifest or the setting says.

        Raises InputError for what is wrong, and ModelError for a model that cannot be run.
        """
        tracker_type = trackers.find(bundle)
        known = {name: value for name, value in given.items() if value is not None}
        options, every = configure(tracker_type, known, setting)
        policy = _memory_policy(bundle, every, memory_frames)
        if memory_policy is not None:
            _check_evict(tracker_type, memory_policy, policy)
            policy = replace(policy, evict=memory_policy)
        if memory_mib is not None and not memory_mib > 0:
            raise InputError(f"memory_mib must be a number above 0, got {memory_mib!r}")
        tracker_type.check(bundle, policy, options)
        size = _size(bundle, size)
        if decode_in_boxes:
            tracker_type.check_boxes(bundle, options, None)
            check_any_size(bundle)
        return cls(tracker_type, policy, options, size, memory_mib, focus, decode_in_boxes)

    def check_backend(self, backend: Backend) -> None:
        """Raise InputError for what a backend cannot do."""
        if self.decode_in_boxes:
            check_on_host(backend)

    def tracker(self, backend: Backend, working: Size) -> trackers.Tracker:
        """The tracker of a video at a working size. Raises InputError if memory_mib is too little
        for it."""
        policy = self.fitted(backend.bundle, working).policy
        if self.decode_in_boxes:
            self.tracker_type.check_boxes(backend.bundle, self.options, working)
            backend = DecodeInBoxes(backend)
        return self.tracker_type.create(backend, working, policy, self.options)

    def fitted(self, bundle: Bundle, working: Size) -> Self:
        """With the memory frames that fit into memory_mib at a working size."""
        if self.memory_mib is None:
            return self
        plain = replace(self, memory_mib=None)
        return replace(plain, policy=capped(bundle, plain, working, self.memory_mib))


def _check_evict(tracker_type: type[trackers.Tracker], evict: str, policy: MemoryPolicy) -> None:
    if evict not in POLICIES:
        raise InputError(f"memory_policy must be one of {', '.join(POLICIES)}, got {evict!r}")
    if evict not in tracker_type.policies:
        able = ", ".join(tracker_type.policies)
        why = "which does not count how often memory is read" if able else "whose memory is fixed"
        raise InputError(
            f"memory_policy {evict!r} is not for this method, {why}: "
            f"{f'choose one of {able}' if able else 'leave it out'}"
        )
    if policy.frames is None:
        raise InputError("memory_policy is for a limited memory: give memory_frames a number")


def _memory_policy(bundle: Bundle, every: int | None, frames: int | str | None) -> MemoryPolicy:
    every = bundle.memory.every if every is None else every
    if not isinstance(every, int) or every < 1:
        raise InputError(f"memory_every must be at least 1, got {every!r}")
    room = None if bundle.engine is None else bundle.engine.memory_frames
    if room is not None and (frames == UNLIMITED or (isinstance(frames, int) and frames > room)):
        raise InputError(
            f"{bundle.path} was built for at most {room} memory frames, got {frames}: use fewer, "
            "or build it for more with: vos-deploy-build --memory-frames"
        )
    if frames == UNLIMITED:
        return MemoryPolicy(every, None)
    if frames is None:
        return MemoryPolicy(every, bundle.memory.frames)
    if not isinstance(frames, int) or frames < 1:
        raise InputError(f'memory_frames must be at least 1, or "{UNLIMITED}", got {frames!r}')
    return MemoryPolicy(every, frames)


def _size(bundle: Bundle, asked: int | Size | None) -> int | Size | None:
    """The working size: what was asked for, if the model can do it, or else the model's own."""
    if bundle.size is None:
        return bundle.short_side if asked is None else asked
    if asked is not None and asked != bundle.size:
        height, width = bundle.size
        change = (
            "export the model with --size any" if bundle.engine is None else "build another plan"
        )
        raise InputError(
            f"the model in {bundle.path} is fixed to {height}x{width}, got size {asked}: omit "
            f"size, or {change}"
        )
    return bundle.size
