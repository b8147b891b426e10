"""Pictures, masks and flow on disk, and what is wrong with them."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import UnidentifiedImageError

from vos_deploy.mask_kinds import BLACK_AND_WHITE, UnclearMask, decode, is_grey
from vos_deploy.palette import VOID

logger = logging.getLogger(__name__)

Image = NDArray[np.uint8]
Flow = NDArray[np.float32]

FLOW_MAGIC = b"PIEH"  # 202021.25 as a float32


class BadFile(Exception):
    """A file that cannot be trained on: `kind` is what it has in common with others."""

    def __init__(self, kind: str, path: Path) -> None:
        super().__init__(f"{kind}: {path}")
        self.kind, self.path = kind, path


class BadFiles:
    """Counts what cannot be trained on, names it in a file, and warns once per kind."""

    shown = 3

    def __init__(self, report: Path | None = None) -> None:
        """report: text file that gets one line per file."""
        self.report = report
        # Names in the order they were found; a dict keeps it and finds fast.
        self.found: dict[str, dict[str, None]] = defaultdict(dict)
        # A run that goes on finds the same ones again.
        self.written: set[str] = set()
        if report is not None and report.is_file():
            self.written = set(report.read_text(encoding="utf-8").splitlines())

    def add(self, kind: str, path: Path | str) -> None:
        if str(path) in self.found[kind]:
            return
        self.found[kind][str(path)] = None
        line = f"{kind}\t{path}"
        if self.report is not None and line not in self.written:
            self.written.add(line)
            self.report.parent.mkdir(parents=True, exist_ok=True)
            # Processes that prepare clips share the file: short lines, appended whole.
            with self.report.open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    def extend(self, files: Iterable[tuple[str, str]]) -> None:
        """Files found while training; a kind that is new is warned of at once."""
        for kind, path in files:
            if kind not in self.found:
                logger.warning(
                    "%s: %s, skipped; further ones are listed in %s", kind, path, self.report
                )
            self.add(kind, path)

    def warn(self) -> None:
        """One line per kind with the first names and the count."""
        for kind, paths in self.found.items():
            more = ", ..." if len(paths) > self.shown else ""
            logger.warning(
                "%s: %d: %s%s", kind, len(paths), ", ".join([*paths][: self.shown]), more
            )


def read_image(path: Path) -> Image:
    """uint8 [H, W, 3], RGB."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise BadFile("image missing or damaged", path)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def read_ids(path: Path) -> Image:
    """Object ids of an annotation, uint8 [H, W]: as `vos_deploy.masks` reads them, and 1 for a
    black-and-white one, whose soft edges are cut at half (saliency sets, DAVIS 2016)."""
    try:
        with PillowImage.open(path) as file:
            try:
                ids, kind = decode(file)
            except UnclearMask:
                # Colours mean something else than one object: only grey is cut at half.
                if not is_grey(file):
                    raise
                ids, kind = decode(file, binary=True)
    except UnclearMask as error:
        raise BadFile(f"mask with {error.found}", path) from error
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as error:
        raise BadFile("mask missing or damaged", path) from error
    # Here 255 alone is the object and not void, in an indexed annotation too.
    return (
        (ids > 0).astype(np.uint8)
        if kind == BLACK_AND_WHITE or set(np.unique(ids)) <= {0, VOID}
        else ids
    )


def read_pair(image_path: Path, mask_path: Path) -> tuple[Image, Image]:
    image, ids = read_image(image_path), read_ids(mask_path)
    if ids.shape != image.shape[:2]:
        raise BadFile("mask and image differ in size", mask_path)
    return image, ids


def read_flow(path: Path) -> Flow:
    """float32 [H, W, 2], x and y, of a Middlebury .flo file."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadFile("flow missing", path) from error
    if len(content) < 12 or content[:4] != FLOW_MAGIC:
        raise BadFile("flow damaged", path)
    width, height = np.frombuffer(content, "<i4", 2, 4)
    if width <= 0 or height <= 0 or len(content) != 12 + 8 * int(width) * int(height):
        raise BadFile("flow damaged", path)
    return np.frombuffer(content, "<f4", offset=12).reshape(height, width, 2).copy()


def write_flow(path: Path, flow: Flow) -> None:
    height, width = flow.shape[:2]
    header = FLOW_MAGIC + np.array([width, height], "<i4").tobytes()
    path.write_bytes(header + np.ascontiguousarray(flow, "<f4").tobytes())
