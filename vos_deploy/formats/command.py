"""vos-deploy-convert: masks of a run in the formats of other programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vos_deploy.arguments import object_ids
from vos_deploy.commands import Parser, run_command, setup_logging

from . import FORMATS, convert


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(_main, argv)


def _main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    setup_logging()
    count = convert(
        args.masks,
        args.format,
        args.output,
        video=args.video,
        objects=args.objects,
        prefix=args.prefix,
    )
    print(f"wrote {args.output}: {count} frame{'s' * (count != 1)}")
    return 0


def parser() -> Parser:
    formats = "\n".join(f"  {name:<14}{kind.summary}" for name, kind in FORMATS.items())
    parser = Parser(
        "vos-deploy-convert",
        "MASKS --format FORMAT --output OUTPUT [options]",
        f"Write a folder of masks in the format of another program.\n\nformats:\n{formats}",
        "vos-deploy-convert out/masks --format webm --video in.mp4 --output cut.webm",
    )
    add = parser.add_argument
    add("masks", type=Path, help="folder of masks, such as out/masks")
    add("--format", required=True, choices=tuple(FORMATS), help="what to write")
    add("--output", required=True, type=Path, help="file to write, or the folder for png")
    add("--video", type=Path, help="the video or folder of frames; png, webm and prores need it")
    add("--objects", type=object_ids, metavar="ID,ID", help="only these objects")
    add("--prefix", default="", help="label-studio: what the frames are found under, such as a URL")
    return parser
