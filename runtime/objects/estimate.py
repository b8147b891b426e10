"""Edits of an estimate: probabilities float32 [1 + K, H, W], background first, summing to 1."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vos_deploy.palette import VOID


def blank(size: tuple[int, int]) -> NDArray[np.float32]:
    """The estimate without objects, [1, H, W]: background everywhere."""
    return np.ones((1, *size), np.float32)


def overwrite(
    probabilities: NDArray[np.float32], mask: NDArray[np.uint8], slots: Mapping[int, int]
) -> NDArray[np.float32]:
    """Give the objects of a mask exactly the pixels drawn for them.

    Args:
        probabilities: float32 [1 + K, H, W].
        mask: uint8 [H, W], object ids.
        slots: object id -> slot, for the objects whose drawing counts. Slots above K are new.

    Returns:
        A new array, [1 + max(K, slots), H, W]. A pixel drawn for an object is that object's alone.
        What the object held elsewhere goes to the background, except where the mask is void:
        there nothing is known better than the prediction. All other pixels stay as predicted.
    """
    added = max(len(probabilities), *(slot + 1 for slot in slots.values())) - len(probabilities)
    edited = np.pad(probabilities, ((0, added), (0, 0), (0, 0)))
    drawn = mask != VOID
    for slot in slots.values():
        edited[0, drawn] += edited[slot, drawn]
        edited[slot, drawn] = 0
    for object_id, slot in slots.items():
        own = mask == object_id
        edited[:, own] = 0
        edited[slot, own] = 1
    return edited


def release(probabilities: NDArray[np.float32], slots: Sequence[int]) -> NDArray[np.float32]:
    """Drop slots (1..K): what their objects held goes to the background. Returns a new array."""
    kept = np.delete(probabilities, slots, axis=0)
    kept[0] += probabilities[list(slots)].sum(axis=0)
    return kept


def most_likely(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The slot of the highest probability, uint8 [H, W]; the lowest slot among equals."""
    # Plane by plane: several times faster than an argmax along the slowest axis.
    best = probabilities[0].copy()
    slots = np.zeros(best.shape, np.uint8)
    for slot, plane in enumerate(probabilities[1:], start=1):
        slots[plane > best] = slot
        np.maximum(best, plane, out=best)
    return slots


def aggregate(objects: NDArray[np.float32]) -> NDArray[np.float32]:
    """Soft aggregation: object probabilities [K, H, W] that were estimated one by one -> an
    estimate [1 + K, H, W], the background being nobody's pixel."""
    slots = np.concatenate([np.prod(1 - objects, axis=0, keepdims=True), objects])
    slots = slots.clip(np.float32(1e-7), np.float32(1 - 1e-7))
    odds: NDArray[np.float32] = slots / (1 - slots)
    odds /= odds.sum(axis=0, keepdims=True)
    return odds
