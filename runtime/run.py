"""vos-deploy-run: follow marked objects through a video, a camera or a stream."""

import argparse
import itertools
import json
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from vos_deploy.commands import (
    EXIT_INTERRUPTED,
    make_parser,
    progress,
    run_command,
    setup_logging,
)
from vos_deploy.masks import check_mask, object_ids, overlay, read_mask
from vos_deploy.video import FrameSource, open_source
from vos_deploy.writers import MaskFolderWriter, VideoWriter

from .backends import DEVICES
from .options import add_method_options, given_options
from .report import Report, StageTimes
from .segmenter import UNLIMITED, Segmenter

logger = logging.getLogger(__name__)

Frame = NDArray[np.uint8]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(_main, argv)


def _main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    setup_logging()
    with (
        open_source(args.video) as source,
        Segmenter(
            args.engine,
            device=args.device,
            memory_every=args.memory_every,
            memory_frames=args.memory_frames,
            size=args.size,
            threads=args.threads,
            **given_options(args),
        ) as segmenter,
    ):
        masks = _Masks(args.mask, args.binary_mask, args.objects)
        results = _Results(args.output, source.fps, not args.no_masks, not args.no_overlay)
        report, interrupted = _follow(segmenter, source, masks, results, args.frames)
    print(json.dumps(report.as_json(), indent=2) if args.json else report)
    return EXIT_INTERRUPTED if interrupted else 0


def _follow(
    segmenter: Segmenter,
    source: FrameSource,
    masks: "_Masks",
    results: "_Results",
    limit: int | None,
) -> tuple[Report, bool]:
    """Segment frame by frame; the report, and whether Ctrl-C ended it, as it ends a camera."""
    times = StageTimes()
    frames = 0
    interrupted = False
    started = asked = perf_counter()
    with results, progress(total=_expected(source, limit)) as bar:
        try:
            for frame in itertools.islice(source, limit):
                name = source.name(frames)
                decoded = perf_counter()
                labels = segmenter.step(frame, *masks.of(name, frame))
                segmented = perf_counter()
                results.write(name, frame, labels)
                done = perf_counter()
                if frames:  # the first frame is only marked, and would flatter the others
                    times.add(
                        {
                            "decode": decoded - asked,
                            **segmenter.timings,
                            "write": done - segmented,
                            "end to end": done - asked,
                        }
                    )
                frames += 1
                bar.update()
                asked = perf_counter()
        except KeyboardInterrupt:
            if not frames:
                raise
            interrupted = True
            logger.warning("interrupted after %d frames", frames)
    return (
        Report(
            model=str(segmenter.bundle.path),
            device=segmenter.device,
            precision=segmenter.bundle.precision,
            size=source.size,
            objects=len(segmenter.objects),
            frames=frames,
            masks_given=masks.given,
            seconds=perf_counter() - started,
            stages=times.summary(),
            memory=segmenter.memory,
            results=results.paths,
        ),
        interrupted,
    )


class _Masks:
    """The masks that were given: a PNG for the first frame, or a folder with one per named frame.

    given: how many frames had one so far.
    """

    def __init__(self, path: Path, binary: bool, objects: list[int] | None) -> None:
        self.given = 0
        self._path = path
        self._binary = binary
        self._objects = objects

    def of(self, name: str, frame: Frame) -> tuple[Frame | None, list[int] | None]:
        """The mask of a frame, uint8 [H, W], and the ids in it that count (None: all)."""
        path = self._path / f"{name}.png" if self._path.is_dir() else self._path
        if self.given and not (self._path.is_dir() and path.is_file()):
            return None, None
        mask = check_mask(
            read_mask(path), frame.shape[:2], binary=self._binary, name=f"the mask {path}"
        )
        objects = self._objects
        if self.given and objects is not None:  # a later mask need not show all of them
            present = object_ids(mask)
            objects = [object_id for object_id in objects if object_id in present]
            if not objects:
                return None, None
        self.given += 1
        return mask, objects


class _Results:
    """The files of a run, complete when the block ends, however it ends.

    paths: what was written -> where.
    """

    def __init__(self, folder: Path, fps: float, masks: bool, overlay: bool) -> None:
        self.paths: dict[str, str] = {}
        self._fps = fps
        self._masks: MaskFolderWriter | None = None
        self._overlay: VideoWriter | None = None
        if masks:
            self.paths["masks"] = str(folder / "masks")
        if overlay:
            self.paths["overlay"] = str(folder / "overlay.mp4")

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if "masks" in self.paths:
                self._masks = stack.enter_context(MaskFolderWriter(self.paths["masks"]))
            if "overlay" in self.paths:
                self._overlay = stack.enter_context(VideoWriter(self.paths["overlay"], self._fps))
            self._open = stack.pop_all()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._open.__exit__(*exception)

    def write(self, name: str, frame: Frame, labels: Frame) -> None:
        """Hand over the labels of a frame, uint8 [H, W]."""
        if self._masks is not None:
            self._masks.write(name, labels)
        if self._overlay is not None:
            self._overlay.write(overlay(frame, labels))


def _expected(source: FrameSource, limit: int | None) -> int | None:
    """How many frames there will be, if anyone knows."""
    known = [count for count in (source.count, limit) if count is not None]
    return min(known, default=None)


def parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "vos-deploy-run",
        "Follow marked objects through a video, a camera or a stream, frame by frame. Writes one "
        "indexed PNG per frame and a video with the objects painted in.",
        "vos-deploy-run --engine stm/ --video in.mp4 --mask first.png --output out/",
    )
    add = parser.add_argument
    add(
        "--engine",
        type=Path,
        help="model folder, or a .plan file built from one by vos-deploy-build; left out: the "
        "demonstration model that ships",
    )
    add(
        "--video",
        required=True,
        help="video file, folder of images, camera number, or rtsp:// or http:// address",
    )
    add(
        "--mask",
        type=Path,
        required=True,
        help="PNG of the first frame whose pixel values are object ids; or a folder of such PNGs "
        "named like the frames, where a later one adds or corrects objects",
    )
    add("--binary-mask", action="store_true", help="all that is not 0 in a mask is object 1")
    add("--objects", type=_ids, metavar="ID,ID", help="follow only these ids of the masks")
    add("--output", type=Path, default=Path("out"), help="folder for masks/ and overlay.mp4")
    add("--no-masks", action="store_true", help="write no masks/<frame>.png")
    add("--no-overlay", action="store_true", help="write no overlay.mp4")
    add("--frames", type=_positive, metavar="N", help="stop after N frames")
    add(
        "--size",
        type=_size,
        metavar="S|HxW",
        help="work at this length of the shorter side, or this height and width",
    )
    add("--memory-every", type=_positive, metavar="N", help="memorise every Nth frame for good")
    add(
        "--memory-frames",
        type=_memory_frames,
        metavar="N",
        help=f'frames an object\'s memory holds; "{UNLIMITED}" lets it grow with the video',
    )
    add(
        "--device",
        choices=DEVICES,
        default="auto",
        help="where the model runs; auto: a plan by TensorRT, a folder by ONNX Runtime on the GPU "
        "if it can, or the CPU",
    )
    add("--threads", type=_positive, metavar="N", help="CPU threads within one operator")
    add("--json", action="store_true", help="print the summary as JSON")
    add_method_options(parser)
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def _memory_frames(text: str) -> int | Literal["unlimited"]:
    return UNLIMITED if text == UNLIMITED else _positive(text)


def _size(text: str) -> int | tuple[int, int]:
    height, _, width = text.partition("x")
    return (_positive(height), _positive(width)) if width else _positive(height)


def _ids(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


# argparse names the function in "invalid ... value": let it say what is expected.
_positive.__name__ = "number"
_memory_frames.__name__ = f'number or "{UNLIMITED}"'
_size.__name__ = "size"
_ids.__name__ = "list of ids"
