"""Checkpoints in which equal tensors lie once: python -m vos_deploy.models.sharing WEIGHTS

Networks whose two trunks stayed what they were before training hold the same large tensors twice.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from ..commands import Parser, run_command
from ..files import replacing
from .checkpoint_files import stored

SMALLEST = 1024  # numbers in a tensor that is worth it


def share(path: Path) -> int:
    """Rewrite a .safetensors file; the bytes it has lost.

    The name of the tensor that stands for one left out lies in the metadata, as `save_model` of
    the safetensors library has it. Raises ModelError for a file of another kind.
    """
    state, header = stored(path)
    first: dict[tuple[object, ...], str] = {}
    for name in sorted(state):
        other = first.setdefault(_content(state[name]), name)
        if other != name and state[name].numel() >= SMALLEST:
            del state[name]
            header[name] = other
    before = path.stat().st_size
    with replacing(path) as temporary:
        temporary.write_bytes(save(state, header))
    return before - path.stat().st_size


def _content(tensor: Tensor) -> tuple[object, ...]:
    data = tensor.contiguous().numpy().tobytes()
    return tensor.dtype, tuple(tensor.shape), hashlib.sha256(data).digest()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(_main, argv)


def _main(argv: Sequence[str]) -> int:
    program = "python -m vos_deploy.models.sharing"
    parser = Parser(
        program,
        "WEIGHTS",
        "Shrink a .safetensors checkpoint that holds equal tensors twice.",
        f"{program} runs/run/model.safetensors",
    )
    parser.add_argument("path", type=Path, metavar="WEIGHTS", help="the checkpoint; is rewritten")
    args = parser.parse_args(argv)
    saved = share(args.path)
    print(f"{args.path}: {saved / 1e6:.1f} MB less, {args.path.stat().st_size / 1e6:.1f} MB left")
    return 0


if __name__ == "__main__":
    sys.exit(main())
