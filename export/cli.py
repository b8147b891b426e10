"""`python -m vos_deploy.export`."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from shlex import quote

from vos_deploy.bundle import check_replaceable
from vos_deploy.commands import make_parser, run_command, setup_logging
from vos_deploy.errors import InputError, ModelError
from vos_deploy.files import sha256
from vos_deploy.methods import METHODS

EXAMPLE = (
    "python -m vos_deploy.export --method stm --checkpoint STM_weights.pth --size 480x854 "
    "--output stm/"
)


def parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "python -m vos_deploy.export",
        "Export a checkpoint as ONNX graphs that the runtime, or any ONNX runtime, executes, and "
        "check them against PyTorch on real frames.",
        EXAMPLE,
    )
    add = parser.add_argument
    add("--method", required=True, choices=METHODS, help="method of the checkpoint")
    add(
        "--checkpoint",
        type=Path,
        help="official or own weights, .pth or .safetensors; left out: "
        "the demonstration weights that ship with the package",
    )
    add(
        "--trunk",
        type=Path,
        help="torchvision's ImageNet weights, for a method whose official checkpoint "
        "leaves its trunk to them",
    )
    add("--output", type=Path, help="model folder to write; left out: the name of the method")
    add("--size", default="any", help="HxW to fix the graphs to, such as 480x854, or any")
    add(
        "--short-side",
        type=int,
        help="with --size any: frames are resized so that their shorter "
        "side is this long; left out: they keep their size",
    )
    add(
        "--precision",
        choices=("fp32", "fp16"),
        default="fp32",
        help="fp16: typed half precision, for GPUs; softmax and aggregation stay fp32",
    )
    add(
        "--half-storage",
        action="store_true",
        help="store fp32 weights as fp16: half the size, weights rounded to 11 bits",
    )
    add(
        "--memory-every",
        type=int,
        help="default of the model: every which frame is kept in memory (default: the method's)",
    )
    add(
        "--memory-frames",
        type=int,
        help="default of the model: most frames in memory (default: the method's)",
    )
    add("--licence", help="licence of the weights, for the manifest")
    add("--json", action="store_true", help="print the errors as JSON")
    return parser


def parse_size(text: str) -> tuple[int, int] | None:
    if text == "any":
        return None
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match or min(int(side) for side in match.groups()) < 32:
        raise InputError(
            f"--size {text}: expected HEIGHTxWIDTH with sides from 32 on, such as 480x854, or any"
        )
    return int(match[1]), int(match[2])


def demonstration_weights(method: str) -> Path:
    path = Path(str(resources.files("vos_deploy"))) / "weights" / f"{method}.safetensors"
    if not path.is_file():
        raise ModelError(
            f"no weights of {method} ship with this package: give --checkpoint, or train some "
            f"with python -m vos_deploy.train --method {method}"
        )
    return path


def export_command(args: argparse.Namespace) -> int:
    size = parse_size(args.size)
    if size and args.short_side:
        raise InputError("--short-side goes with --size any: a fixed size leaves no choice")
    if any(n is not None and n < 1 for n in (args.memory_every, args.memory_frames)):
        raise InputError("--memory-every and --memory-frames must be at least 1")
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise InputError(
            'export needs PyTorch and onnx: pip install "vos_deploy[export]"'
        ) from error
    from vos_deploy.models import load_model

    from .export import Options, export

    output = args.output or Path(args.method)
    check_replaceable(output)  # now, not after minutes of work
    path = args.checkpoint or demonstration_weights(args.method)
    model = load_model(path, args.method, args.trunk)
    checkpoint = {"name": path.name, "sha256": sha256(path)}
    if args.trunk:
        checkpoint |= {"trunk": args.trunk.name, "trunk_sha256": sha256(args.trunk)}
    bundle, passed = export(
        model,
        output,
        Options(
            size=size,
            short_side=args.short_side,
            precision=args.precision,
            half_storage=args.half_storage,
            memory_every=args.memory_every,
            memory_frames=args.memory_frames,
            licence=args.licence,
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
