"""vos-deploy-export, or `python -m vos_deploy.export`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from vos_deploy.arguments import frame_size, positive
from vos_deploy.bundle import bundled_weights, check_replaceable
from vos_deploy.commands import Parser, run_command, setup_logging
from vos_deploy.errors import InputError, ModelError
from vos_deploy.extras import install
from vos_deploy.files import sha256
from vos_deploy.manifest import PRECISIONS
from vos_deploy.methods import METHODS
from vos_deploy.results import keep_apart

from .mixed.options import add_arguments, calibration

EXAMPLE = (
    "python -m vos_deploy.export --method stm --checkpoint STM_weights.pth --size 480x854 "
    "--output stm/"
)


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        "vos-deploy-export",
        "--method METHOD --checkpoint FILE [options]",
        "Export a checkpoint as ONNX graphs that the runtime, or any ONNX runtime, executes, and "
        "check them against PyTorch on real frames.",
        EXAMPLE,
    )
    add = parser.add_argument
    add("--method", required=True, choices=METHODS, help="method of the checkpoint")
    add(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="official weights or your own, .pth or .safetensors (default: the bundled demo "
        "weights)",
    )
    add(
        "--trunk",
        type=Path,
        metavar="FILE",
        help="torchvision's ImageNet weights, for methods whose official checkpoint has no trunk",
    )
    add(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="model folder to write (default: the name of the method)",
    )
    add(
        "--size",
        type=_size,
        metavar="HxW",
        help="fix the graphs to this height and width, such as 480x854 (default: any)",
    )
    add(
        "--short-side",
        type=positive,
        metavar="N",
        help="resize frames so that their shorter side is this long (default: keep their size)",
    )
    add(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="fp16: half-precision graphs, for GPUs; softmax and aggregation stay fp32, and what "
        "loses too much or overflows. int8: convolutions in bytes, for CPUs and TensorRT, but "
        "where that costs too much",
    )
    add(
        "--half-storage",
        action="store_true",
        help="store fp32 weights as fp16: half the size, weights rounded to 11 bits",
    )
    add(
        "--memory-every",
        type=positive,
        metavar="N",
        help="keep every Nth frame in memory (default: the method's)",
    )
    add(
        "--memory-frames",
        type=positive,
        metavar="N",
        help="frames in memory at most (default: the method's)",
    )
    add(
        "--batch",
        action="store_true",
        help="an encoder that takes frames of several streams at once, for `Model.group`",
    )
    add_arguments(parser)
    add("--licence", metavar="TEXT", help="licence of the weights, for the manifest")
    add("--json", action="store_true", help="print the errors as JSON")
    return parser


def _size(text: str) -> tuple[int, int] | None:
    return None if text == "any" else frame_size(smallest=32)(text)


def weights_or_error(method: str) -> Path:
    """The weights that ship. Raises ModelError for a method that has none."""
    path = bundled_weights(method)
    if not path.is_file():
        raise ModelError(
            f"there are no bundled weights for {method}: give --checkpoint, or train some with: "
            f"python -m vos_deploy.train --method {method}"
        )
    return path


def export_command(args: argparse.Namespace) -> int:
    if args.size and args.short_side:
        raise InputError("--short-side needs --size any: the graphs are fixed to one size")
    calibrated = calibration(args)
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"export needs PyTorch and ONNX; install them with: {install('export')}"
        ) from error
    from vos_deploy.models import load_model

    from .export import Options, export

    output = args.output or Path(args.method)
    path = args.checkpoint or weights_or_error(args.method)
    named = "checkpoint", "trunk", "calibrate", "calibrate_mask", "keep_float"
    read = {f"--{name.replace('_', '-')}": getattr(args, name) for name in named}
    keep_apart({**read, "--checkpoint": path}, [output])
    check_replaceable(output)  # now, not after minutes of work
    model = load_model(path, args.method, args.trunk)
    checkpoint = {"name": path.name, "sha256": sha256(path)}
    if args.trunk:
        checkpoint |= {"trunk": args.trunk.name, "trunk_sha256": sha256(args.trunk)}
    bundle, passed = export(
        model,
        output,
        Options(
            size=args.size,
            short_side=args.short_side,
            precision=args.precision,
            half_storage=args.half_storage,
            memory_every=args.memory_every,
            memory_frames=args.memory_frames,
            licence=args.licence,
            calibration=calibrated,
            batch=args.batch,
        ),
        checkpoint,
        report=lambda comparison: None if args.json else print(comparison),
        stage=tell,
    )
    if args.json:
        print(json.dumps({"output": str(output), "passed": passed, **bundle.parity}, indent=2))
    else:
        print(f"{'wrote' if passed else 'OUT OF TOLERANCE, wrote'} {output}")
        if passed:
            print(f"run it: vos-deploy-run --model {quote(str(output))} --video VIDEO --mask MASK")
    return 0 if passed else 1


def tell(stage: str) -> None:
    """What is being done, on stderr: stdout is for results."""
    print(f"{stage} ...", file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    def command(arguments: Sequence[str]) -> int:
        args = parser().parse_args(arguments)
        setup_logging()
        return export_command(args)

    return run_command(command, argv)


if __name__ == "__main__":
    sys.exit(main())
