"""What a mask must be to be drawn into an estimate."""

import logging
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vos_deploy.errors import InputError
from vos_deploy.frames import Size
from vos_deploy.masks import check_mask, object_ids

from ..geometry import Geometry

logger = logging.getLogger(__name__)

# So many objects that vanish at the working size, and more than half of all, are no objects.
SPECKS = 8


def check_drawn(
    mask: NDArray[Any] | None,
    objects: Iterable[int] | None,
    size: Size,
    followed: Collection[int],
    max_objects: int | None,
    *,
    first: bool,
) -> tuple[NDArray[np.uint8], list[int]] | None:
    """The mask as uint8 [H, W] and the ids in it that count; None without a mask.

    Args:
        mask: integer [H, W], of the size of the frame.
        objects: the ids that count; None for all in the mask.
        size: (H, W) of the frame.
        followed: the ids that are followed already.
        max_objects: what the model takes; None for no limit.
        first: whether this is the first frame, which needs a mask.

    Raises InputError for anything else.
    """
    if mask is None:
        if first:
            raise InputError("the first frame needs a mask: call step(frame, mask)")
        if objects is not None:
            raise InputError("`objects` was given without a mask")
        return None
    checked = check_mask(mask, size)
    present = object_ids(checked)
    counting = present if objects is None else list(dict.fromkeys(objects))
    absent = [str(object_id) for object_id in counting if object_id not in present]
    if absent or not counting:
        raise InputError(
            f"`objects` must be ids of the mask, {', '.join(map(str, present))}, got "
            f"{', '.join(absent) or 'none'}"
        )
    total = len({*followed, *counting})
    if max_objects is not None and total > max_objects:
        raise InputError(
            f"the model takes at most {max_objects} objects, got {total}: choose "
            "some with `objects`, pause or remove others, or export or build the model for more"
        )
    return checked, counting


def check_visible(mask: NDArray[np.uint8], ids: Sequence[int], geometry: Geometry) -> None:
    """Warn of objects that are too small to be followed; raise InputError for many: they are none.

    mask: uint8 [H, W] of the frame's size, in which `ids` count.
    """
    unseen = sorted(set(ids).difference(object_ids(geometry.fit_mask(mask))))
    size = "x".join(map(str, geometry.working))
    if len(unseen) >= SPECKS and 2 * len(unseen) > len(ids):
        raise InputError(
            f"{len(unseen)} of {len(ids)} objects in the mask are too small to be seen at the "
            f"working size of {size}: are its values object ids? Choose some with `objects`, "
            "or a larger size"
        )
    if unseen:
        logger.warning(
            "too small to be seen at the working size of %s: object %s",
            size, ", ".join(map(str, unseen)),
        )  # fmt: skip
