"""What a memory frame takes, so that a memory can be capped in MiB and told before it fills."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError
from vos_deploy.frames import Size

from .bank import MemoryPolicy, MemoryState

if TYPE_CHECKING:
    from ..settings import Settings

MIB = 2**20


def full_memory(bundle: Bundle, settings: Settings, size: Size) -> MemoryState:
    """The memory of one object at a working size; its buffers have their full size at once, unless
    they grow without limit."""
    from .limit import Measuring  # which imports the settings, which import this

    tracker = settings.tracker(Measuring(bundle), size)
    tracker.annotate(np.zeros((2, *size), np.float32), [1])
    return replace(tracker.memory, bytes=tracker.memory.bytes + tracker.host_bytes)


def capped(bundle: Bundle, settings: Settings, size: Size, mib: float) -> MemoryPolicy:
    """The policy of the settings with as many memory frames as fit into `mib` for one object, and
    no more than the policy has.

    Raises InputError if that is less than two, and where it is not frames that are held.
    """

    def held(frames: int) -> int:
        policy = replace(settings.policy, frames=frames)
        return full_memory(bundle, replace(settings, policy=policy), size).bytes

    least = held(2)
    per_frame = held(3) - least
    if per_frame <= 0:
        raise InputError(
            f"the memory of this method is of constant size, {least / MIB:.2f} MiB per object at "
            f"the working size of {size[0]}x{size[1]}: leave memory_mib out"
        )
    if mib * MIB < least:
        raise InputError(
            f"memory_mib must be at least {least / MIB:.2f} for two memory frames of an object at "
            f"the working size of {size[0]}x{size[1]}, got {mib:g}: a smaller size needs less"
        )
    fitting = 2 + int((mib * MIB - least) // per_frame)
    most = settings.policy.frames
    policy = replace(settings.policy, frames=fitting if most is None else min(fitting, most))
    settings.tracker_type.check(bundle, policy, settings.options)
    return policy


def planned(bundle: Bundle, settings: Settings, size: Size) -> str:
    """One line on an object's memory, before the first frame. Raises InputError as `capped`."""
    state = full_memory(bundle, settings.fitted(bundle, size), size)
    at = f"at the working size of {size[0]}x{size[1]}"
    if state.capacity is None:
        return f"grows with the video; {state.bytes / MIB:.1f} MiB per object at first, {at}"
    return (
        f"at most {state.capacity} frames, {state.bytes / MIB:.1f} MiB per object {at}; evicts "
        f"{state.evicts}"
    )
