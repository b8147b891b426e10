"""What can be taken away: the masks as the command line writes them, and the overlay."""

import zipfile
from pathlib import Path

from vos_deploy.masks import mask_png
from vos_deploy.writers import VideoWriter

from .history import History


def masks_zip(history: History, path: Path) -> None:
    """Write `masks/<frame>.png` of all frames that are kept into a zip archive."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:  # PNG is compressed already
        for seen, labels in history.labels():
            archive.writestr(f"masks/{seen.name}.png", mask_png(labels))


def overlay_video(history: History, path: Path, fps: float) -> None:
    """Write a video with the objects painted in, at the times of the frames."""
    start: float | None = None
    with VideoWriter(path, fps) as writer:
        for seen, frame, labels in history.frames():
            start = seen.time if start is None else start
            writer.write(frame, labels, time=seen.time - start)
