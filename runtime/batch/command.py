"""vos-deploy-run --videos: the command line of a batch."""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from vos_deploy.arguments import positive
from vos_deploy.bundle import demonstration_model
from vos_deploy.commands import EXIT_INTERRUPTED, progress
from vos_deploy.errors import InputError, VosDeployError
from vos_deploy.results import keep_apart

from ..arguments import segmenter_options
from ..model import load
from ..settings import Settings
from .data_sets import LAYOUTS, YOUTUBE, data_set_jobs, is_data_set, pack
from .jobs import Job, find_jobs
from .lock import batch_lock
from .pool import Pool
from .ray_pool import RayPool, connected
from .report import REPORT, BatchReport
from .storage import (
    at_hand,
    fetch,
    is_stored,
    keep_apart_there,
    location_argument,
    reaching,
    store,
)
from .work import FAILED, MASKS, Result, Work

logger = logging.getLogger(__name__)

# What is for a single video.
SINGLE = (
    *("save_frame", "no_masks", "fps", "audio", "frames", "rate"),
    *("remove", "pause", "box", "point", "not_point"),
)
# What a single video does not take.
SEVERAL = ("workers", "ray", "gpus_per_worker", "resume", "checkpoint_every", "layout", "set")
CHECKPOINT_EVERY = 30.0  # seconds
REFRESH = 0.5  # seconds between looks at the bar


def add_batch_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("many videos")
    add = group.add_argument
    add(
        "--videos",
        type=location_argument,
        metavar="FOLDER|LIST",
        help="in place of --video: a folder of video files and folders of frames, each with its "
        "mask NAME.png or NAME_masks/ beside it or in the folder --mask; a DAVIS or YouTube-VOS "
        "folder; or a text file with a line VIDEO,MASK[,NAME] for each. Masks go to "
        "OUTPUT/NAME/masks/, a report to OUTPUT/report.json; no overlay is made. All paths may be "
        "addresses on storage, such as s3://bucket/videos. With --serve the folder whose videos "
        "the page may open",
    )
    add("--workers", type=positive, metavar="N", help="processes side by side (default: 1)")
    add(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="workers are actors on the Ray cluster at ADDRESS (default: that of RAY_ADDRESS, one "
        "that runs here, or else one of this machine alone)",
    )
    add(
        "--gpus-per-worker",
        type=_amount,
        metavar="X",
        help="with --ray: GPUs that each worker takes, such as 1 or 0.25 (default: 1 if --device "
        "is a GPU, else 0)",
    )
    add(
        "--resume",
        action="store_true",
        help="skip what an earlier run has finished, and go on with what it had begun",
    )
    add(
        "--checkpoint-every",
        type=_amount,
        metavar="SECONDS",
        help="how much work of a video is lost at most when a run is killed (default: "
        f"{CHECKPOINT_EVERY:g})",
    )
    add(
        "--layout",
        choices=LAYOUTS,
        help="also pack the masks as the evaluation server takes them; youtube: only of the frames "
        "that meta.json asks for",
    )
    add("--set", metavar="NAME", help="of a DAVIS folder, a list in ImageSets: 2017/test-dev")


def refuse_batch_arguments(args: argparse.Namespace) -> None:
    """Raise InputError for arguments that say nothing without a batch."""
    for name in SEVERAL:
        value = getattr(args, name)
        if not (value is None or value is False):
            raise InputError(f"--{name.replace('_', '-')} is for a batch: give --videos")


def run_batch(args: argparse.Namespace) -> int:
    """Run the batch that the arguments describe; returns the exit code."""
    _check(args)
    with reaching(args.videos):
        jobs = _jobs(args)
    options = segmenter_options(args)
    work = Work(
        model=args.model,
        output=args.output,
        device=options.pop("device"),
        threads=options.pop("threads"),
        options=options,
        binary=args.binary_mask,
        objects=None if args.objects is None else tuple(args.objects),
        resume=args.resume,
        checkpoint_every=CHECKPOINT_EVERY
        if args.checkpoint_every is None
        else args.checkpoint_every,
        batch=uuid.uuid4().hex,
    )
    _check_options(work)
    workers = min(args.workers or 1, len(jobs))
    if args.ray is None:
        return _run(args, Pool(work, workers), jobs)
    with connected(args.ray or None):
        return _run(args, RayPool(work, workers, args.gpus_per_worker), jobs)


def _run(args: argparse.Namespace, pool: Pool | RayPool, jobs: list[Job]) -> int:
    about = {"model": str(args.model or demonstration_model()), "device": pool.work.device}
    about |= {"workers": str(pool.workers), "threads": str(pool.work.threads)}
    report = BatchReport(jobs, about)
    with batch_lock(args.output):
        report.write(args.output)  # now is the time to learn that it cannot be
        interrupted = _work(pool, jobs, report, args.output)
        if args.layout and not interrupted:
            _pack(args, jobs, report)
        report.write(args.output)
    print(json.dumps(report.as_json(), indent=2) if args.json else report)
    if interrupted:
        return EXIT_INTERRUPTED
    return VosDeployError.exit_code if report.count(FAILED) else 0


def _work(pool: Pool | RayPool, jobs: list[Job], report: BatchReport, output: Path) -> bool:
    """Whether Ctrl-C ended it."""
    bar: Any
    with progress(total=len(jobs), unit="video") as bar:
        frames: dict[str, int] = {}
        shown = time.monotonic()

        def tell(name: str, done: int, expected: int | None) -> None:
            nonlocal shown
            frames[name] = done
            if time.monotonic() - shown > REFRESH:
                shown = time.monotonic()
                bar.set_postfix_str(f"{sum(frames.values())} frames")

        def finish(result: Result) -> None:
            if result.state == FAILED:
                logger.warning("%s failed: %s", result.name, result.reason)
            report.add(result)
            report.write(output)
            bar.update()

        try:
            pool.run(jobs, tell, finish)
        except KeyboardInterrupt:
            logger.warning("interrupted: --resume goes on from here")
            return True
    return False


def _pack(args: argparse.Namespace, jobs: list[Job], report: BatchReport) -> None:
    if report.count(FAILED):
        logger.warning("%s.zip is not written: videos are missing", args.layout)
        return
    if not is_stored(args.output):
        report.files.append(str(pack(args.layout, args.output, jobs)))
        return
    with tempfile.TemporaryDirectory(prefix="vos_deploy-") as name:
        scratch = Path(name)
        for job in jobs:
            fetch(args.output / job.name / MASKS, scratch / job.name)
        report.files.append(str(store(pack(args.layout, scratch, jobs), args.output)))


def _jobs(args: argparse.Namespace) -> list[Job]:
    if args.layout or args.set or is_data_set(args.videos):
        if args.mask is not None:
            raise InputError("the masks of a data set are its Annotations: leave --mask out")
        jobs = data_set_jobs(args.videos, args.layout, args.set)
    else:
        jobs = find_jobs(args.videos, args.mask)
    trees = {"--videos": args.videos, "--mask": args.mask, "--model": args.model}
    keep_apart_there(trees, args.output)
    if not is_stored(args.output):
        here = {name: path for name, path in trees.items() if not is_stored(path)}
        keep_apart({}, [args.output / REPORT], trees=here)
    return jobs


def _check(args: argparse.Namespace) -> None:
    if args.video is not None:
        raise InputError("give --video or --videos, and not both")
    for name in SINGLE:
        value = getattr(args, name)
        if not (value is None or value is False or value == []):
            raise InputError(f"--{name.replace('_', '-')} is for a single --video")
    if args.ray is None and args.gpus_per_worker is not None:
        raise InputError("--gpus-per-worker is for --ray: here workers share the GPU")
    if args.layout == YOUTUBE and args.objects:
        raise InputError("--objects would leave out what YouTube-VOS asks for")


def _check_options(work: Work) -> None:
    """Raise InputError or ModelError for what no worker could work with, before any is started."""
    with at_hand(work.model) as model:
        bundle = load(model)
    options = dict(work.options)
    names = (
        *("memory_frames", "size", "setting", "memory_policy", "memory_mib"),
        *("focus", "decode_in_boxes"),
    )
    general = [options.pop(name, None) for name in names]
    Settings.of(bundle, options, *general)


def _amount(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of at least 0, got {text!r}")
    return number
