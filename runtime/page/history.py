"""What was seen: every frame and its labels, on disk, so that a page can go back and export."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vos_deploy.errors import InputError
from vos_deploy.files import replacing
from vos_deploy.images import read_image

from ..run.follow import Followed

# What frames look like on the page; masks are kept exactly.
JPEG_QUALITY = 92
Frame = NDArray[np.uint8]


@dataclass
class Seen:
    """One frame. name: what its results are called; time: in seconds from the first; size: (height,
    width); bytes: what it takes on disk; revision: grows when its labels change."""

    name: str
    time: float
    size: tuple[int, int]
    bytes: int
    revision: int = 0


class History:
    """Frames by their index, from the oldest that is kept to the newest.

    Written by one thread, and read by others.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        """folder: an empty one. limit: bytes; beyond it the oldest frames go."""
        self._folder, self._limit = folder, limit
        self._seen: dict[int, Seen] = {}
        self._bytes = 0
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def first(self) -> int:
        """The oldest frame that is kept."""
        return next(iter(self._seen), 0)

    def add(self, followed: Followed) -> None:
        """Keep the next frame and its labels."""
        index, size = followed.index, (followed.labels.shape[0], followed.labels.shape[1])
        bgr = cv2.cvtColor(followed.frame, cv2.COLOR_RGB2BGR)
        jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
        packed = _packed(followed.labels)
        with replacing(self.jpeg(index)) as temporary:
            temporary.write_bytes(jpeg)
        with replacing(self.packed_labels(index)) as temporary:
            temporary.write_bytes(packed)
        self._seen[index] = Seen(followed.name, followed.time, size, len(jpeg) + len(packed))
        self._bytes += len(jpeg) + len(packed)
        while self._bytes > self._limit and len(self._seen) > 1:
            self._forget(self.first)

    def relabel(self, index: int, labels: Frame) -> None:
        """Replace the labels of a frame that is kept."""
        with replacing(self.packed_labels(index)) as temporary:
            temporary.write_bytes(_packed(labels))
        self._seen[index].revision += 1

    def get(self, index: int) -> Seen | None:
        """What is known of a frame; None if it is not kept."""
        return self._seen.get(index)

    def jpeg(self, index: int) -> Path:
        """The file of a frame."""
        return self._folder / f"{index}.jpg"

    def packed_labels(self, index: int) -> Path:
        """The file of its labels: H x W bytes, compressed by zlib."""
        return self._folder / f"{index}.ids"

    def labels(self) -> Iterator[tuple[Seen, Frame]]:
        """The labels of every frame that is kept, uint8 [H, W], in order."""
        for index, seen in self._kept():
            yield seen, self._labels(index, seen)

    def frames(self) -> Iterator[tuple[Seen, Frame, Frame]]:
        """The same, with the frame, uint8 [H, W, 3], as a JPEG keeps it."""
        for index, seen in self._kept():
            yield seen, read_image(self.jpeg(index)), self._labels(index, seen)

    def _kept(self) -> Iterator[tuple[int, Seen]]:
        """The frames that are there when it begins, but those that go meanwhile. Raises InputError
        where all go, as another video is opened."""
        for index, seen in list(self._seen.items()):
            if self.packed_labels(index).exists():
                yield index, seen
            elif index in self._seen:
                raise InputError("the video was closed before its export was done")

    def _labels(self, index: int, seen: Seen) -> Frame:
        ids = np.frombuffer(zlib.decompress(self.packed_labels(index).read_bytes()), np.uint8)
        return ids.reshape(seen.size)

    def _forget(self, index: int) -> None:
        self._bytes -= self._seen.pop(index).bytes
        self.jpeg(index).unlink(missing_ok=True)
        self.packed_labels(index).unlink(missing_ok=True)


def _packed(labels: Frame) -> bytes:
    return zlib.compress(np.ascontiguousarray(labels).tobytes(), 1)
