"""vos-deploy-run: follow marked objects through a video, a camera or a stream."""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

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
from vos_deploy.prompts import PromptError
from vos_deploy.results import keep_apart
from vos_deploy.video import DECODERS, open_source

from ..arguments import add_segmenter_arguments, segmenter_options
from ..batch.command import add_batch_arguments, refuse_batch_arguments, run_batch
from ..batch.storage import is_stored, location_argument
from ..page import add_page_arguments, serve
from ..segmenter import Segmenter
from .changes import Changes, pause, removal
from .files import RunFiles
from .follow import Follower
from .given import Given
from .given_masks import GivenMasks
from .given_prompts import PointedAt, add_prompt_arguments, given_prompts, shown

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(_main, argv)


def _main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    setup_logging()
    _check_storage(args)
    if args.serve is not None:
        return serve(args, lambda: Segmenter(args.model, **segmenter_options(args)))
    if args.videos is not None:
        return run_batch(args)
    refuse_batch_arguments(args)
    if args.video is None:
        raise InputError("give a --video, --videos for many, or --serve a page to choose one")
    if args.save_frame is not None:
        return _save_frame(args)
    masks = Given(_masks(args), given_prompts(args))
    files = RunFiles(args.output, not args.no_masks, not args.no_overlay)
    files.fps, files.audio = args.fps, _audio(args)
    model = args.model or demonstration_model()
    files.folder.keep_apart({"--video": args.video, "--mask": args.mask, "--model": model})
    with (
        open_source(
            args.video, exclude=masks.files, rate=args.rate, decoder=args.decoder
        ) as source,
        Segmenter(args.model, **segmenter_options(args)) as segmenter,
    ):
        masks.match(source.names)
        source.keep = frozenset(masks.frames) | {0}
        files.source_fps = source.fps
        files.about = {"video": str(args.video), "model": str(model), **masks.about}
        print(f"memory: {segmenter.planned_memory(source.size)}", file=sys.stderr)
        changes = Changes([*chain(*args.remove, *args.pause)])
        follower = Follower(segmenter, source, masks, args.frames, before=changes.apply)
        interrupted = _follow(follower, files, masks, args.output)
        if not interrupted and args.frames is None:
            masks.warn_of_unused(source.index + 1)
        report = follower.report(files.paths)
    print(json.dumps(report.as_json(), indent=2) if args.json else report)
    return EXIT_INTERRUPTED if interrupted else 0


def _check_storage(args: argparse.Namespace) -> None:
    for name in ("model", "mask", "output", "videos"):
        stored = is_stored(getattr(args, name))
        if stored and (args.videos is None or args.serve is not None):
            raise InputError(
                f"--{name} {getattr(args, name)} is an address on storage, which is for a batch "
                "(--videos): give a path"
            )


def _masks(args: argparse.Namespace) -> GivenMasks | None:
    if args.mask is None:
        return None
    return GivenMasks(args.mask, binary=args.binary_mask, objects=args.objects)


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


def _follow(follower: Follower, files: RunFiles, masks: Given, output: Path) -> bool:
    """Follow to the end and write what is found, and into `output` a picture of a prompt that
    failed; whether Ctrl-C ended it, as it ends a camera."""
    with files, progress(total=follower.expected) as bar:
        try:
            for followed in follower:
                if followed.forgotten and followed.index > max(masks.frames):
                    logger.warning("nothing is left to follow, and no mask is to come: ending here")
                    break
                given = followed.given
                if isinstance(given, PointedAt):
                    print(given.describe(followed.labels), file=sys.stderr)
                elif given is not None and masks.given == 1:
                    print(f"{given.path}: taken for {given.kind}", file=sys.stderr)
                files.write(followed)
                bar.update()
        except PromptError as error:
            raise shown(error, follower.source.index, output) from error
        except KeyboardInterrupt:
            if not follower.frames:
                raise
            files.state = "interrupted"
            logger.warning("interrupted after %d frames", follower.frames)
            return True
    return False


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        "vos-deploy-run",
        "--video VIDEO [--mask MASK | --box X,Y,W,H] [options], or --serve, or --videos FOLDER",
        "Follow marked objects through a video, a camera or a stream, frame by frame. Writes one "
        "indexed PNG per frame and a video with the objects painted in.",
        "vos-deploy-run --model stm/ --video in.mp4 --mask first.png --output out/\n"
        "  vos-deploy-run --video in.mp4 --box 1=120,80,200,160 --box 2=400,90,60,150\n"
        "  vos-deploy-run --model stm/ --videos folder/ --workers 4 --output out/",
    )
    add = parser.add_argument
    add(
        "--model",
        "--engine",
        type=location_argument,
        help="model folder, or a .plan file built from one by vos-deploy-build (default: the "
        "bundled demo model)",
    )
    add(
        "--video",
        help="video file, folder of images, camera number, or rtsp:// or http:// address",
    )
    add(
        "--mask",
        type=location_argument,
        help="PNG of the first frame whose pixel values are object ids, or that is painted in the "
        "DAVIS colours; or a folder of such PNGs named like the frames (00000, 00001, ... in a "
        "video), where a later one adds or corrects objects, and an empty one clears all",
    )
    add("--binary-mask", action="store_true", help="masks show one object, white on black")
    add("--objects", type=object_ids, metavar="ID,ID", help="follow only these ids of the masks")
    add(
        "--remove",
        type=removal,
        action="append",
        default=[],
        metavar="ID@FRAME",
        help="stop following an object at a frame, such as 2@100; may be given several times",
    )
    add(
        "--pause",
        type=pause,
        action="append",
        default=[],
        metavar="ID@FROM-TO",
        help="do not follow an object from a frame on until another, such as 2@100-250; meanwhile "
        "it costs nothing but its memory; may be given several times",
    )
    add(
        "--output",
        type=location_argument,
        default=Path("out"),
        help="folder for masks/ and overlay.mp4",
    )
    add("--no-masks", action="store_true", help="write no masks/<frame>.png")
    add("--no-overlay", action="store_true", help="write no overlay.mp4")
    add(
        "--save-frame",
        type=frame_number,
        metavar="N",
        help="write frame N (0 is the first) as a picture to paint a mask on, and stop",
    )
    add_prompt_arguments(parser)
    add(
        "--rate",
        type=rate,
        metavar="R",
        help="play a file or folder as if it were live, at R frames per second: the newest frame "
        "wins, and those that nobody had time for are dropped",
    )
    add(
        "--decoder",
        choices=DECODERS,
        default=DECODERS[0],
        help="what decodes a stream: FFmpeg, or the video unit of an NVIDIA GPU by PyNvVideoCodec "
        "(extra nvdec; written from its documentation, never run)",
    )
    add_page_arguments(parser)
    add("--fps", type=rate, metavar="R", help="frame rate of the overlay (default: as the video)")
    add("--audio", action="store_true", help="keep the sound of the video in the overlay")
    add("--frames", type=positive, metavar="N", help="stop after N frames")
    add("--json", action="store_true", help="print the summary as JSON")
    add_batch_arguments(parser)
    add_segmenter_arguments(parser)
    return parser
