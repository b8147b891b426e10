"""How the released code condenses the memories of objects that were marked in different frames.

It has one set of keys, and takes the values of objects that were marked later to be those of its
last tokens. That is so until old frames are condensed: the frames whose values are then kept of
these objects are not those whose keys are kept.
"""

from collections.abc import Sequence

from vos_deploy.errors import InputError

from ...backends import Backend
from ...memory.long_term import LongTermMemory


def condense(backend: Backend, memories: Sequence[LongTermMemory]) -> None:
    """Condense all memories if the first one, of the objects that were marked first, is full.

    Raises InputError where the released code fails: it cannot throw out prototypes of objects that
    were marked in different frames.
    """
    leader, *later = memories
    if not leader.full:
        return
    budget, index = leader.budget, leader.most_read()
    if leader.prototypes > budget.tokens - budget.prototypes and any(m.prototypes for m in later):
        raise InputError(
            "the released policy cannot throw out prototypes of objects that were marked in "
            "different frames: raise long_term_tokens, or use late_objects='corrected'"
        )
    leader.make_room()
    frames, total = leader.old_frames, leader.frames
    tokens = leader.selections.shape[0] // total  # of a frame
    for memory in later:
        whole = memory.frames == total or memory.frames > budget.min_frames + 1
        own = memory.old_frames if whole else 0
        offset = (frames - own) * tokens
        valid = index[index >= offset] - offset
        if own and len(valid):
            memory.add_prototypes(valid, leader, own)
        if memory.frames > budget.min_frames:
            memory.keep_newest()
    leader.add_prototypes(index, leader, frames)
    leader.keep_newest()
    for memory in later:
        _share_keys(backend, leader, memory)


def _share_keys(backend: Backend, leader: LongTermMemory, memory: LongTermMemory) -> None:
    """Give a memory the keys of the leader's last tokens, of prototypes and of frames."""
    made, working = memory.prototypes, memory.selections.shape[0]
    held, selections = leader.keys.shape[0], leader.selections.shape[0]
    backend.copy(leader.keys[:made], memory.keys[:made])
    backend.copy(leader.keys[held - working : held], memory.keys[made : made + working])
    backend.copy(leader.selections[selections - working : selections], memory.selections)
