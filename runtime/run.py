"""vos-deploy-run: follow marked objects through a video, a camera or a stream."""

import argparse
import itertools
import json
import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vos_deploy.arguments import frame_number, object_ids, positive, rate
from vos_deploy.bundle import demonstration_model
from vos_deploy.commands import (
    EXIT_INTERRUPTED,
    Parser,
    progress,
    run_command,
    setup_logging,
)
from vos_deploy.errors import InputError
from vos_deploy.files import replacing
from vos_deploy.results import ResultFolder, keep_apart
from vos_deploy.video import FrameSource, open_source
from vos_deploy.writers import MaskFolderWriter, VideoWriter

from .arguments import add_segmenter_arguments, segmenter_options
from .given_masks import GivenMask, GivenMasks
from .report import Report, StageTimes
from .segmenter import Segmenter
from .sightings import Sightings

logger = logging.getLogger(__name__)

Frame = NDArray[np.uint8]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(_main, argv)


def _main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    setup_logging()
    if args.save_frame is not None:
        return _save_frame(args)
    if args.mask is None:
        raise InputError(
            "give the --mask of the first frame; --save-frame 0 writes that frame, to paint on"
        )
    masks = GivenMasks(args.mask, binary=args.binary_mask, objects=args.objects)
    results = _Results(args.output, not args.no_masks, not args.no_overlay)
    results.fps, results.audio = args.fps, _audio(args)
    model = args.model or demonstration_model()
    results.folder.keep_apart({"--video": args.video, "--mask": args.mask, "--model": model})
    with (
        open_source(args.video, exclude=masks.files) as source,
        Segmenter(args.model, **segmenter_options(args)) as segmenter,
    ):
        masks.match(source.names)
        results.about = {"video": str(args.video), "mask": str(args.mask), "model": str(model)}
        report, interrupted = _follow(segmenter, source, masks, results, args.frames)
    print(json.dumps(report.as_json(), indent=2) if args.json else report)
    return EXIT_INTERRUPTED if interrupted else 0


def _audio(args: argparse.Namespace) -> Path | None:
    """The file whose sound goes into the overlay."""
    if not args.audio:
        return None
    if args.fps:
        raise InputError("--audio keeps the times of the video, which --fps changes: drop one")
    if not Path(args.video).is_file():
        raise InputError(f"--audio needs a video file, and {args.video} is none: leave it out")
    return Path(args.video)


def _save_frame(args: argparse.Namespace) -> int:
    """Write one frame as a picture, to paint a mask on."""
    with open_source(args.video) as source:
        for index, frame in enumerate(source):
            if index == args.save_frame:
                path = args.output / f"frame_{source.name(index)}.png"
                keep_apart({"--video": args.video}, [path])
                if path.exists():
                    raise InputError(f"{path} is there already: choose another --output")
                with replacing(path) as temporary:
                    Image.fromarray(frame).save(temporary, format="PNG")
                print(f"wrote {path}: save a mask of the same size, and give it as --mask")
                print(f"frame {index} is called {source.name(index)} in folders of masks")
                return 0
    raise InputError(f"--save-frame {args.save_frame}: {args.video} has {index + 1} frames")


def _follow(
    segmenter: Segmenter,
    source: FrameSource,
    masks: GivenMasks,
    results: "_Results",
    limit: int | None,
) -> tuple[Report, bool]:
    """Segment frame by frame; the report, and whether Ctrl-C ended it, as it ends a camera."""
    times = StageTimes()
    sightings = Sightings()
    frames = 0
    marked = interrupted = False
    started = asked = perf_counter()
    with results, progress(total=_expected(source, limit)) as bar:
        try:
            for frame in itertools.islice(source, limit):
                name = source.name(frames)
                decoded = perf_counter()
                given = masks.of(frames)
                labels = _step(segmenter, frame, given)
                if given is not None and masks.given == 1:
                    print(f"{given.path}: taken for {given.kind}", file=sys.stderr)
                segmented = perf_counter()
                sightings.add(labels, segmenter.objects, name)
                results.write(source, name, frame, labels)
                done = perf_counter()
                # The first frame with objects is only marked, and would flatter the others.
                if marked and segmenter.objects:
                    times.add(
                        {
                            "decode": decoded - asked,
                            **segmenter.timings,
                            "write": done - segmented,
                            "end to end": done - asked,
                        }
                    )
                marked = marked or bool(segmenter.objects)
                frames += 1
                bar.update()
                asked = perf_counter()
        except KeyboardInterrupt:
            if not frames:
                raise
            interrupted = True
            results.state = "interrupted"
            logger.warning("interrupted after %d frames", frames)
        if not interrupted and limit is None:
            masks.warn_of_unused(frames)
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
            mask_kinds=masks.kinds,
            sightings=sightings.objects,
        ),
        interrupted,
    )


def _step(segmenter: Segmenter, frame: Frame, given: GivenMask | None) -> Frame:
    """The labels of a frame, uint8 [H, W]; nothing is run where there is nothing to follow."""
    if given is not None and given.objects:
        try:
            return segmenter.step(frame, given.labels, given.objects)
        except InputError as error:
            raise InputError(f"{given.path}: {error}") from error
    if given is not None:
        segmenter.remove(segmenter.objects)
    if not segmenter.objects:
        return np.zeros(frame.shape[:2], np.uint8)
    return segmenter.step(frame)


class _Results:
    """The files of a run, complete when the block ends, however it ends.

    paths: what is written -> where. about: what the record of the run says of it. fps: rate of the
    overlay, None for the times of the source. audio: whose sound it gets.
    """

    def __init__(self, folder: Path, masks: bool, overlay: bool) -> None:
        self.paths: dict[str, str] = {}
        self.about: dict[str, Any] = {}
        self.state = "finished"
        self.fps: float | None = None
        self.audio: Path | None = None
        self._masks: MaskFolderWriter | None = None
        self._overlay: VideoWriter | None = None
        self._started = False
        self._open = ExitStack()
        if masks:
            self.paths["masks"] = str(folder / "masks")
        if overlay:
            self.paths["overlay"] = str(folder / "overlay.mp4")
        # Both: what is not written this time must not stay from another run.
        self.folder = ResultFolder(folder, ("masks", "overlay.mp4") if self.paths else ())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        failed = kind is not None
        try:
            self._open.__exit__(kind, *rest)
        except BaseException:
            failed = True
            raise
        finally:
            self.folder.finish("failed" if failed else self.state)

    def write(self, source: FrameSource, name: str, frame: Frame, labels: Frame) -> None:
        """Hand over a frame and its labels, uint8 [H, W]."""
        if not self._started:
            self._start(source)
        if self._masks is not None:
            self._masks.write(name, labels)
        if self._overlay is not None:
            self._overlay.write(frame, labels, time=None if self.fps else source.time)

    def _start(self, source: FrameSource) -> None:
        """Only now, with labels in hand, the results of an older run go."""
        self._started = True
        self.folder.start(self.about)
        if "masks" in self.paths:
            writer = MaskFolderWriter(self.paths["masks"], self.folder.note)
            self._masks = self._open.enter_context(writer)
        if "overlay" in self.paths:
            self.folder.note(Path(self.paths["overlay"]))
            self._overlay = self._open.enter_context(
                VideoWriter(self.paths["overlay"], self.fps or source.fps, self.audio)
            )


def _expected(source: FrameSource, limit: int | None) -> int | None:
    """How many frames there will be, if anyone knows."""
    known = [count for count in (source.count, limit) if count is not None]
    return min(known, default=None)


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        "vos-deploy-run",
        "--video VIDEO --mask MASK [options]",
        "Follow marked objects through a video, a camera or a stream, frame by frame. Writes one "
        "indexed PNG per frame and a video with the objects painted in.",
        "vos-deploy-run --model stm/ --video in.mp4 --mask first.png --output out/",
    )
    add = parser.add_argument
    add(
        "--model",
        "--engine",
        type=Path,
        help="model folder, or a .plan file built from one by vos-deploy-build (default: the "
        "bundled demo model)",
    )
    add(
        "--video",
        required=True,
        help="video file, folder of images, camera number, or rtsp:// or http:// address",
    )
    add(
        "--mask",
        type=Path,
        help="PNG of the first frame whose pixel values are object ids, or that is painted in the "
        "DAVIS colours; or a folder of such PNGs named like the frames (00000, 00001, ... in a "
        "video), where a later one adds or corrects objects, and an empty one clears all",
    )
    add("--binary-mask", action="store_true", help="masks show one object, white on black")
    add("--objects", type=object_ids, metavar="ID,ID", help="follow only these ids of the masks")
    add("--output", type=Path, default=Path("out"), help="folder for masks/ and overlay.mp4")
    add("--no-masks", action="store_true", help="write no masks/<frame>.png")
    add("--no-overlay", action="store_true", help="write no overlay.mp4")
    add(
        "--save-frame",
        type=frame_number,
        metavar="N",
        help="write frame N (0 is the first) as a picture to paint a mask on, and stop",
    )
    add("--fps", type=rate, metavar="R", help="frame rate of the overlay (default: as the video)")
    add("--audio", action="store_true", help="keep the sound of the video in the overlay")
    add("--frames", type=positive, metavar="N", help="stop after N frames")
    add("--json", action="store_true", help="print the summary as JSON")
    add_segmenter_arguments(parser)
    return parser
