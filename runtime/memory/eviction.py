"""Which memory frame makes room for a new one when a bank is full. The first and the newest stay.

oldest      the oldest: the memory is of the first frame and of the last seconds.
stride      the one whose neighbours in time are nearest to each other: what stays is spread
            over the whole video, the more thinly the longer it is.
least-used  the one that was read least since it came, per read: for methods that count how much
            each token is read.
"""

from collections.abc import Callable, Sequence

OLDEST, STRIDE, LEAST_USED = POLICIES = ("oldest", "stride", "least-used")

# What a full bank does, as the summary says it.
SAID = {
    OLDEST: "oldest, keeps first",
    STRIDE: "what lies closest in time, keeps first and newest",
    LEAST_USED: "least used, keeps first and newest",
}


def victim(
    policy: str, entries: Sequence[int], times: Callable[[int], int], use: Callable[[int], float]
) -> int:
    """The entry that makes room.

    Args:
        policy: one of POLICIES.
        entries: those of the frames that stay, in order of time; at least one.
        times: when the frame of an entry came.
        use: how much it was read per read since then.
    """
    candidates = entries[1:-1] or entries[-1:]
    if policy == OLDEST or len(entries) < 3:
        return candidates[0]
    if policy == LEAST_USED:
        return min(candidates, key=use)
    gaps = {
        entry: times(after) - times(before)
        for before, entry, after in zip(entries, candidates, entries[2:], strict=False)
    }
    return min(candidates, key=gaps.__getitem__)
