"""GPU: exports, builds, runs and checks everything there is, on the GPU of this machine."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from vos_deploy.arguments import frame_size, numbers, positive
from vos_deploy.bundle import Bundle
from vos_deploy.commands import Parser, run_command, setup_logging
from vos_deploy.errors import InputError
from vos_deploy.methods import METHODS
from vos_deploy.results import keep_apart
from vos_deploy.runtime import backends
from vos_deploy.runtime.backends import Backend
from vos_deploy.runtime.backends.tensorrt.fused_read import reads
from vos_deploy.runtime.backends.tensorrt.library import RUNTIMES, import_runtime
from vos_deploy.runtime.build import build
from vos_deploy.runtime.segmenter import Segmenter

from . import conditions
from .gpu_measures import STEP, Labels, Outcome, flatness, follow, parity, speed
from .gpu_report import Ledger, write_markdown
from .scene import scene

EXAMPLE = "python -m vos_deploy.benchmarks gpu --checkpoint stm=STM_weights.pth --output gpu.md"
PACKAGES = ("torch", "onnx", "tensorrt", "tensorrt-rtx", "pycuda", "cuda-python")
# TensorRT with the read of the memory as one kernel.
FUSED = "tensorrt-fused"
# Smallest IoU with the reference in any frame, and largest difference of J&F.
LIMITS = (0.995, 0.001)
PARITY_OBJECTS = 2


@dataclass(frozen=True)
class Target:
    """Something that runs a model: its name, the model, and how to make the backend (None: by the
    name itself)."""

    name: str
    model: Path
    make: backends.BackendMaker | None = None

    @contextmanager
    def segmenter(self, **options: Any) -> Iterator[tuple[Segmenter, Backend]]:
        made: list[Backend] = []

        def maker(bundle: Bundle, threads: int | None) -> Backend:
            device = self.name if self.name in backends.DEVICES else "tensorrt"
            made.append(backends.create(bundle, self.make or device, threads))
            return made[0]

        with Segmenter(self.model, device=maker, **options) as segmenter:
            yield segmenter, made[0]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--methods", type=_names, default=",".join(METHODS), metavar="A,B", help="methods to check")
    add(
        "--checkpoint",
        action="append",
        default=[],
        metavar="METHOD=FILE",
        help="weights of a method; left out: those that ship, or random ones, whose labels are "
        "compared and not judged",
    )
    add(
        "--engines",
        type=_names,
        metavar="A,B",
        help="of tensorrt, tensorrt-fused, tensorrt_rtx, cuda and cpu; left out: all that are "
        "installed but cpu",
    )
    add(
        "--torch", choices=("auto", "cuda", "cpu", "none"), default="auto", help="PyTorch beside it"
    )
    add("--precisions", type=_names, default="fp32,fp16", metavar="A,B", help="of the models")
    add("--size", type=frame_size(), default="480x854", metavar="HxW", help="size of the frames")
    add("--objects", type=numbers, default="1,3,8", metavar="K,K", help="numbers of objects timed")
    add("--parity-frames", type=positive, default=20, metavar="N", help="frames compared")
    add("--frames", type=positive, default=100, metavar="N", help="frames timed")
    add("--long", type=positive, default=10_000, metavar="N", help="frames to watch memory over")
    add("--output", type=Path, default=Path("gpu_check.md"), help="Markdown file to write")
    add("--work", type=Path, metavar="FOLDER", help="keep models and plans there")


def run(args: argparse.Namespace) -> int:
    engines = args.engines or _installed()
    for name in engines:
        if name not in (*RUNTIMES, FUSED, "cuda", "cpu"):
            raise InputError(
                f"--engines {name}: expected tensorrt, tensorrt-fused, tensorrt_rtx, cuda or cpu"
            )
    if not engines:
        raise InputError(
            "expected TensorRT, TensorRT for RTX or ONNX Runtime with CUDA, found none of them: "
            'pip install "vos_deploy[tensorrt,export]"'
        )
    checkpoints = dict(text.split("=", 1) for text in args.checkpoint)
    keep_apart({"--checkpoint": [*checkpoints.values()]}, [args.output])
    ledger = Ledger(report=print)
    with tempfile.TemporaryDirectory() as scratch:
        for method in args.methods:
            weights = Path(checkpoints[method]) if method in checkpoints else None
            MethodCheck(method, weights, args, args.work or Path(scratch), ledger).run(engines)
    facts = {"gpu": gpu_facts(), **conditions.machine(*PACKAGES), "size": args.size}
    write_markdown(args.output, facts, ledger)
    failed = sum(row.passed is False for row in ledger.rows)
    print(f"{len(ledger.rows)} checks, {failed} failed; wrote {args.output}")
    return 1 if failed else 0


class MethodCheck:
    """All checks of one method. What one check needs of another that failed fails too."""

    def __init__(
        self,
        method: str,
        weights: Path | None,
        args: argparse.Namespace,
        work: Path,
        ledger: Ledger,
    ) -> None:
        self.method, self.args, self.work, self.ledger = method, args, work, ledger
        self._weights = weights
        self._network: Any = None
        self._trained = True
        self._reference: list[Labels] = []
        self._truth: list[Labels] = []

    def run(self, engines: Sequence[str]) -> None:
        if not self._check("", "", "weights", self._load):
            return
        exported = [
            p for p in self.args.precisions if self._check("", p, "export", self._export, p)
        ]
        if "fp32" in exported:
            self._check("PyTorch", "fp32", "reference", self._refer)
        for precision in exported:
            for engine in engines:
                target = Target(engine, self._folder(precision))
                if engine == FUSED and not self._fusable(precision):
                    continue
                if engine in (*RUNTIMES, FUSED):
                    plan = self.work / f"{self.method}-{precision}-{engine}.plan"
                    target = Target(engine, plan)
                    if not self._check(engine, precision, "build", self._build, engine, precision):
                        continue
                self._measure(target, precision)
            for target in self._torch_targets(precision):
                self._measure(target, precision)

    def _measure(self, target: Target, precision: str) -> None:
        self._check(target.name, precision, "parity", self._parity, target)
        for objects in self.args.objects:
            name = f"speed, {objects} objects"
            self._check(target.name, precision, name, self._speed, target, precision, objects)
        if target.make is None:
            self._check(target.name, precision, "memory", self._flat, target)

    def _check(
        self,
        engine: str,
        precision: str,
        check: str,
        function: Callable[..., Outcome],
        *arguments: Any,
    ) -> bool:
        """Run a check on its own: whatever it raises is a row that says so."""
        return self.ledger.run((self.method, engine, precision, check), function, *arguments)

    def _folder(self, precision: str) -> Path:
        return self.work / f"{self.method}-{precision}"

    def _load(self) -> Outcome:
        from vos_deploy.export.cli import demonstration_weights
        from vos_deploy.models import create, load_model

        path = self._weights
        if path is None:
            try:
                path = demonstration_weights(self.method)
            except InputError:
                self._trained = False
                self._network = create(self.method).eval()
                return Outcome("random: labels are compared and not judged")
        self._network = load_model(path, self.method)
        return Outcome(path.name, True)

    def _export(self, precision: str) -> Outcome:
        from vos_deploy.export.export import Options, export

        options = Options(size=self.args.size, precision=precision)
        bundle, passed = export(self._network, self._folder(precision), options)
        worst = max(e["error"] / e["tolerance"] for e in bundle.parity["errors"].values())
        return Outcome(f"largest error {worst:.2f} of its tolerance, against PyTorch", passed)

    def _build(self, engine: str, precision: str) -> Outcome:
        bundle = build(
            Bundle.load(self._folder(precision)),
            self.work / f"{self.method}-{precision}-{engine}.plan",
            max_objects=max(PARITY_OBJECTS, *self.args.objects),
            runtime=engine.removesuffix("-fused"),
            fused_read=engine == FUSED,
        )
        return Outcome(f"{bundle.path.stat().st_size / 2**20:.0f} MiB", True)

    def _fusable(self, precision: str) -> bool:
        bundle = Bundle.load(self._folder(precision))
        return any(reads(bundle.read(name)) for name in bundle.graphs)

    def _refer(self) -> Outcome:
        frames = self.args.parity_frames
        target = Target("PyTorch", self._folder("fp32"), self._torch("cpu", "eager"))
        with target.segmenter() as (segmenter, _):
            self._reference = follow(segmenter, scene(self.args.size, PARITY_OBJECTS), frames)
        clip = islice(scene(self.args.size, PARITY_OBJECTS), frames)
        self._truth = [mask for _, mask in clip][1:]
        return Outcome(f"{frames} frames, {PARITY_OBJECTS} objects, on the CPU")

    def _parity(self, target: Target) -> Outcome:
        if not self._reference:
            raise InputError("there is no reference to compare with")
        clip = scene(self.args.size, PARITY_OBJECTS)
        with target.segmenter() as (segmenter, _):
            labels = follow(segmenter, clip, self.args.parity_frames)
        found = parity(labels, self._reference, self._truth)
        text = f"smallest IoU {found.iou:.4f}, J&F {100 * found.score:+.2f}, against FP32 PyTorch"
        return Outcome(text, found.judge(*LIMITS) if self._trained else None)

    def _speed(self, target: Target, precision: str, objects: int) -> Outcome:
        with target.segmenter() as (segmenter, _):
            memory = segmenter.bundle.memory
            untimed = memory.every * memory.frames
            times = speed(segmenter, scene(self.args.size, objects), untimed, self.args.frames)
        self.ledger.add_times((self.method, target.name, precision, objects), times)
        return Outcome(f"{1000 / times[STEP]['p50']:.1f} FPS at the median step")

    def _flat(self, target: Target) -> Outcome:
        with target.segmenter() as (segmenter, backend):
            gpu = getattr(backend, "gpu", None)
            used = None if gpu is None else gpu.used
            return flatness(segmenter, scene(self.args.size, 1), self.args.long, used)

    def _torch_targets(self, precision: str) -> list[Target]:
        """PyTorch eager and compiled, on the GPU if there is one."""
        import torch

        place = self.args.torch
        if place == "auto":
            place = "cuda" if torch.cuda.is_available() else "none"
        folder = self._folder(precision)
        modes = () if place == "none" else ("eager", "compiled")
        return [Target(f"PyTorch {mode}", folder, self._torch(place, mode)) for mode in modes]

    def _torch(self, place: str, mode: str) -> backends.BackendMaker:
        from vos_deploy.export.export import graph_modules
        from vos_deploy.runtime.backends.torch import TorchBackend

        return lambda bundle, threads: TorchBackend(
            bundle, graph_modules(self._network, bundle.precision), place, mode == "compiled"
        )


def _installed() -> list[str]:
    from vos_deploy.runtime.backends.ort_cuda import is_offered

    found = []
    for name in RUNTIMES:
        try:
            import_runtime(name)
        except InputError:
            continue
        found.append(name)
    if "tensorrt" in found and find_spec("triton"):
        found.append(FUSED)
    return [*found, "cuda"] if is_offered() else found


def gpu_facts() -> str:
    """Name, driver and memory of the GPU, as its driver tells."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown ({error})"
    return done.stdout.strip().replace("\n", "; ")


def _names(text: str) -> list[str]:
    return text.split(",")


def main(argv: Sequence[str]) -> int:
    setup_logging()
    parser = Parser("python -m vos_deploy.benchmarks.gpu_check", "[options]", str(__doc__), EXAMPLE)
    add_arguments(parser)
    return run(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(run_command(main))
