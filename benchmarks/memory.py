"""Memory: resident memory of the process over a long video."""

import argparse
import itertools
from typing import Any

from vos_deploy.arguments import positive
from vos_deploy.commands import progress
from vos_deploy.errors import InputError
from vos_deploy.frames import Size
from vos_deploy.runtime.arguments import add_segmenter_arguments, segmenter_options
from vos_deploy.runtime.segmenter import Segmenter

from . import conditions, report
from .options import add_model_argument, add_report_arguments, open_model
from .scene import scene

FILES = ("memory.csv", "memory.json")
EXAMPLE = "python -m vos_deploy.benchmarks memory --model stm/ --frames 2000 --size 240x432"
DEFAULT_SIZE = (240, 432)
SAMPLES = 20
# Growth beyond this share, after the memory bank is full, counts as a leak.
FLAT = 0.02


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_model_argument(parser)
    add("--frames", type=positive, default=2000, metavar="N", help="length of the video")
    add("--objects", type=positive, default=1, metavar="K", help="number of objects")
    add_segmenter_arguments(parser)
    add_report_arguments(parser, " and ".join(FILES))


def run(args: argparse.Namespace) -> int:
    bundle = open_model(args, FILES)
    options = segmenter_options(args)
    options["size"] = whole_size(options["size"] or bundle.size or DEFAULT_SIZE)
    with Segmenter(bundle.path, **options) as segmenter:
        rows = follow(segmenter, options["size"], args.objects, args.frames)
        held = str(segmenter.memory)
    growth = grown(rows)
    facts = {
        **conditions.model(bundle, options),
        "memory": conditions.memory(bundle, options),
        "objects": args.objects,
        "held": held,
        "growth after the first quarter": f"{growth:+.2%}",
        **conditions.machine(),
    }
    report.publish(args, FILES, rows, {"conditions": facts, "rows": rows}, report.plain)
    return 0 if growth <= FLAT else 1


def whole_size(size: int | Size) -> Size:
    """The size that frames are made of. Raises InputError for a shorter side alone."""
    if not isinstance(size, tuple):
        raise InputError("--size takes HEIGHTxWIDTH here, such as 240x432")
    return size


def follow(
    segmenter: Segmenter, size: tuple[int, int], objects: int, frames: int
) -> list[dict[str, Any]]:
    """Frame number, resident MiB and memory frames held, sampled evenly over the video."""
    rows = []
    clip = itertools.islice(scene(size, objects), frames)
    for index, (frame, mask) in enumerate(progress(clip, total=frames)):
        segmenter.step(frame, None if index else mask)
        if (index + 1) % max(1, frames // SAMPLES) == 0:
            rows.append(
                {
                    "frame": index + 1,
                    "resident MiB": round(resident() / 2**20, 1),
                    "memory frames": segmenter.memory.frames,
                }
            )
    return rows


def grown(rows: list[dict[str, Any]]) -> float:
    """Relative growth from the first quarter, when banks and arenas have filled, to the end."""
    settled = rows[: max(1, len(rows) // 4)][-1]["resident MiB"]
    return float(rows[-1]["resident MiB"] / settled - 1)


def resident() -> int:
    """Bytes of this process in memory now."""
    try:
        import psutil
    except ImportError as error:
        raise InputError("this benchmark needs psutil: pip install psutil") from error
    return int(psutil.Process().memory_info().rss)
