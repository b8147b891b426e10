"""What a run is given to follow: masks, or boxes and points, on any of its frames."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vos_deploy.errors import InputError

from .given_masks import GivenMask, GivenMasks
from .given_prompts import KIND, GivenPrompts, PointedAt


class Given:
    """Masks and prompts together; a frame has one of the two."""

    def __init__(self, masks: GivenMasks | None, prompts: GivenPrompts) -> None:
        """Raises InputError where there is neither."""
        if masks is None and not prompts:
            raise InputError(
                "give the --mask of the first frame, or point at objects in it with --box or "
                "--point (--save-frame 0 writes that frame), or mark them on a page: --serve"
            )
        self._masks, self._prompts = masks, prompts

    @property
    def given(self) -> int:
        """How many frames were marked so far."""
        return self._prompts.given + (0 if self._masks is None else self._masks.given)

    @property
    def kinds(self) -> dict[str, int]:
        """What masks were taken for -> how many."""
        kinds = {} if self._masks is None else dict(self._masks.kinds)
        return kinds | ({KIND: self._prompts.given} if self._prompts.given else {})

    @property
    def frames(self) -> list[int]:
        """Numbers of the frames that something is given for."""
        return [*self._prompts.frames, *([] if self._masks is None else self._masks.frames)]

    @property
    def files(self) -> list[Path]:
        """The masks, which are no frames."""
        return [] if self._masks is None else self._masks.files

    @property
    def about(self) -> dict[str, Any]:
        """What the record of a run says of it."""
        mask = {} if self._masks is None else {"mask": str(self._masks.path)}
        return {**mask, **({"prompts": self._prompts.about} if self._prompts else {})}

    def match(self, names: Sequence[str] | None) -> None:
        """As `GivenMasks.match`."""
        if self._masks is not None:
            self._masks.match(names)

    def of(self, index: int) -> GivenMask | PointedAt | None:
        """What a frame is given, if anything. Raises InputError for a mask and prompts, and as
        `GivenMasks.of`."""
        pointed = self._prompts.of(index)
        mask = None if self._masks is None else self._masks.of(index)
        if pointed is not None and mask is not None:
            raise InputError(
                f"frame {index} is given the mask {mask.path}, and boxes or points: keep one of "
                "the two"
            )
        return mask if pointed is None else pointed

    def warn_of_unused(self, frames: int) -> None:
        """Name what was given for frames beyond the last."""
        self._prompts.warn_of_unused(frames)
        if self._masks is not None:
            self._masks.warn_of_unused(frames)
