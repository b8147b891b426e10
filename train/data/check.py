"""`python -m vos_deploy.train.data`: what data sets there are, and whether yours are whole."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from vos_deploy.commands import Parser, progress, run_command
from vos_deploy.errors import InputError
from vos_deploy.methods import METHODS, find_part
from vos_deploy.palette import VOID
from vos_deploy.results import keep_apart

from .catalogue import DATA_SETS
from .coco import draw_masks
from .files import BadFile, BadFiles, read_flow, read_pair
from .layouts import Pair, find_pairs, find_videos

EXAMPLE = "python -m vos_deploy.train.data --davis DAVIS --stills ECSSD DUTS-TR --read"

KINDS = ("stills", "davis", "youtube", "bl30k")


def parser() -> argparse.ArgumentParser:
    result = Parser(
        "python -m vos_deploy.train.data",
        "[options]",
        "Without folders: list the data sets, where to get them, their layout on disk and "
        "their licences. With folders: count what is there and report what is missing. "
        "Downloads nothing.",
        EXAMPLE,
    )
    for kind in KINDS:
        result.add_argument(
            f"--{kind}", type=Path, nargs="+", default=[], metavar="FOLDER",
            help="as for python -m vos_deploy.train",
        )  # fmt: skip
    result.add_argument("--flow-folder", help="folder of .flo files next to JPEGImages, to check")
    result.add_argument(
        "--draw-coco",
        type=Path,
        metavar="FOLDER",
        help="write the masks of COCO's instances and exit",
    )
    result.add_argument(
        "--read", action="store_true", help="open every file instead of only counting"
    )
    result.add_argument("--list", type=Path, help="write the names of all bad files to this file")
    return result


def catalogue() -> str:
    blocks = [
        f"{data.name}\n  option:  {data.flag}\n  from:    {data.where}\n  layout:  {data.layout}\n"
        f"  licence: {data.licence}\n  used by: {users(data.flag)}"
        for data in DATA_SETS
    ]
    return "\n\n".join(blocks)


def users(flag: str) -> str:
    """The stages that need data of a flag, such as --davis or --flow files, of all methods."""
    name, _, value = flag.removeprefix("--").partition(" ")
    named = {
        method: [
            title
            for title, stage in find_part(method, "TRAINING").stages.items()
            if name in stage.needs or (value and stage.values.get(name) == value)
        ]
        for method in METHODS
    }
    return "; ".join(f"{method} {', '.join(names)}" for method, names in named.items() if names)


def check_stills(root: Path, read: bool, bad: BadFiles) -> str:
    pairs = find_pairs(root, bad)
    good = read_all(pairs, bad) if read else len(pairs)
    return f"{root}: {good} of {len(pairs)} pictures with masks" + (" are good" if read else "")


def check_videos(root: Path, kind: str, read: bool, flow: str | None, bad: BadFiles) -> str:
    videos = find_videos(root, kind, 1, bad)
    pairs = [pair for video in videos for pair in video.frames]
    text = f"{root}: {len(videos)} videos, {len(pairs)} annotated frames"
    if read:
        text += f", {read_all(pairs, bad)} good"
    if flow:
        flows = 0
        for video in videos:
            folder = Path(*(flow if p == "JPEGImages" else p for p in video.images.parts))
            for image, _ in video.frames[1:]:
                path = folder / f"{image.stem}.flo"
                try:
                    if read:
                        read_flow(path)
                    elif not path.is_file():
                        raise BadFile("flow missing", path)
                    flows += 1
                except BadFile as error:
                    bad.add(error.kind, error.path)
        text += f", {flows} of {len(pairs) - len(videos)} flows"
    return text


def read_all(pairs: Sequence[Pair], bad: BadFiles) -> int:
    """Opens every pair; the number of those that can be trained on."""
    good = 0
    bar: Iterable[Pair] = progress(pairs, unit="pair")
    for image, mask in bar:
        try:
            _, ids = read_pair(image, mask)
            if not ((ids > 0) & (ids != VOID)).any():
                # In a video an object may be out of sight: worth knowing, no fault.
                bad.add("mask without an object", mask)
            good += 1
        except BadFile as error:
            bad.add(error.kind, error.path)
    return good


def begin_list(path: Path) -> None:
    """Remove the list of an older check. Raises InputError for any other file."""
    if not path.exists():
        return
    try:
        ours = all(line.count("\t") == 1 for line in path.read_text("utf-8").splitlines())
    except (OSError, ValueError):
        ours = False
    if not ours:
        raise InputError(f"{path} is there already, and is no list of bad files: choose another")
    path.unlink()


def main(argv: Sequence[str] | None = None) -> int:
    def command(arguments: Sequence[str]) -> int:
        args = parser().parse_args(arguments)
        if args.draw_coco:
            print(f"{args.draw_coco}: {draw_masks(args.draw_coco)} masks")
            return 0
        if not any((args.stills, args.davis, args.youtube, args.bl30k)):
            print(catalogue())
            return 0
        roots = {f"--{kind}": getattr(args, kind) for kind in KINDS}
        if args.list:
            keep_apart({}, [args.list], trees=roots, option="--list")
            begin_list(args.list)
        bad, failed = BadFiles(args.list), False
        checks = [lambda r=root: check_stills(r, args.read, bad) for root in args.stills] + [
            lambda r=root, k=kind: check_videos(r, k, args.read, args.flow_folder, bad)
            for kind in ("davis", "youtube", "bl30k")
            for root in getattr(args, kind)
        ]
        for check in checks:
            try:
                print(check())
            except InputError as error:
                print(f"error: {error}")
                failed = True
        for kind, paths in bad.found.items():
            names = [*paths][: bad.shown] + ["..."] * (len(paths) > bad.shown)
            print(f"{kind}: {len(paths)}: {', '.join(names)}")
        return int(failed or any(kind != "mask without an object" for kind in bad.found))

    return run_command(command, argv)
