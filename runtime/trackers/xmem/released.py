"""How the released code consolidates the memories of objects that appeared in different frames.

It has one set of tokens, and takes a group's values to be those of the last tokens. That is so
until a consolidation: the frames that a later group then keeps are not those whose keys are kept.
"""

from collections.abc import Sequence

from vos_deploy.errors import InputError

from .memory import Memory


def consolidate(memories: Sequence[Memory]) -> None:
    """Consolidate all memories when the first one, of the objects that appeared first, is full.

    Raises InputError where the released code does: it cannot evict from the long-term memory of
    several groups.
    """
    leader, *later = memories
    limits = leader.long_term
    assert limits is not None
    if leader.long > limits.tokens - limits.prototypes and any(memory.long for memory in later):
        raise InputError(
            "the released policy cannot evict from a long-term memory of objects that appeared in "
            "different frames: raise long_term_tokens, or use late_objects='corrected'"
        )
    leader.evict()
    index, frames, total = leader.choose(), leader.frames - limits.fewest, leader.frames
    for memory in later:
        whole = memory.frames == total or memory.frames > limits.fewest + 1
        own = memory.frames - limits.fewest if whole else 0
        offset = (frames - own) * memory.hw
        valid = index[index >= offset] - offset
        if own and len(valid):
            memory.add_prototypes(valid, memory.candidates(leader, own), own)
        if memory.frames >= limits.fewest + 1:
            memory.keep_newest()
    leader.add_prototypes(index, leader.candidates(leader, frames), frames)
    leader.keep_newest()
    for memory in later:
        memory.share_keys(leader)
