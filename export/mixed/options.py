"""The options of the export command that say what a precision is tried on and may cost."""

from __future__ import annotations

import argparse
from pathlib import Path

from vos_deploy.arguments import fraction
from vos_deploy.errors import InputError

from ..clip import read_clip
from .calibration import LOSSES, Calibration, read_kept


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("with --precision fp16 or int8").add_argument
    add(
        "--calibrate",
        type=Path,
        metavar="CLIP",
        help="a video or a folder of frames like those to come, whose first 8 frames are followed "
        "to see what the precision costs and, for int8, to measure the ranges of activations; or "
        "a folder with frames/ and mask.png (default: the three frames that ship)",
    )
    add(
        "--calibrate-mask",
        type=Path,
        metavar="FILE",
        help="mask of the objects in the clip's first frame",
    )
    add(
        "--iou-loss",
        type=fraction,
        metavar="X",
        help="what the IoU with the masks of float32 may lose on this clip; as few layers stay in "
        "float32 as that needs. 1: none but those that always do, without a search (default: "
        f"{LOSSES['fp16']} for fp16, {LOSSES['int8']} for int8)",
    )
    add(
        "--keep-float",
        type=Path,
        metavar="FILE",
        help="keep the layers in float32 that this manifest of a model of the same precision "
        "names: no search",
    )


def calibration(args: argparse.Namespace) -> Calibration:
    """What the options say. Raises InputError for one that does not go with the others."""
    given = {
        "--calibrate": args.calibrate,
        "--calibrate-mask": args.calibrate_mask,
        "--iou-loss": args.iou_loss,
        "--keep-float": args.keep_float,
    }
    used = [name for name, value in given.items() if value is not None]
    if args.precision not in LOSSES:
        if used:
            raise InputError(
                f"{used[0]} needs --precision {' or '.join(sorted(LOSSES))}, got {args.precision}"
            )
        return Calibration()
    if args.half_storage and args.precision == "int8":
        raise InputError("--half-storage does not go with --precision int8, which stores bytes")
    if args.calibrate_mask and not args.calibrate:
        raise InputError("--calibrate-mask needs --calibrate, the clip that it belongs to")
    if args.calibrate:
        read_clip(args.calibrate, None, args.calibrate_mask, most=2)  # now, not after minutes
    return Calibration(
        args.calibrate,
        args.calibrate_mask,
        args.iou_loss,
        args.keep_float and read_kept(args.keep_float, args.precision),
    )
