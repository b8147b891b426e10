"""GPUs by their public data sheets, and what a frame should take there: an estimate, never run."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from vos_deploy.options import did_you_mean

# A video of so many frames per second is a stream.
REAL_TIME = 25


@dataclass(frozen=True)
class Sheet:
    """tflops: 10^12 operations per second on FP16 by tensor cores, dense, a multiplication and an
    addition being two. bandwidth: GB/s. memory: GB."""

    name: str
    tflops: float
    bandwidth: float
    memory: float


# NVIDIA's data sheets; where they give a figure with sparsity, half of it.
SHEETS = (
    Sheet("Jetson Orin Nano 8GB", 10, 68, 8),
    Sheet("Jetson AGX Orin 64GB", 42.5, 204.8, 64),
    Sheet("T4", 65, 320, 16),
    Sheet("L4", 121, 300, 24),
    Sheet("A10", 125, 600, 24),
    Sheet("RTX 4090", 165, 1008, 24),
    Sheet("L40S", 362, 864, 48),
    Sheet("A100 80GB", 312, 2039, 80),
    Sheet("H100 SXM", 989, 3350, 80),
    Sheet("H200", 989, 4800, 141),
)


@dataclass(frozen=True)
class Work:
    """What a frame takes. macs: multiplications with additions. moved: bytes of weights, and of
    activations written and read once each. held: bytes of a stream's memory."""

    macs: float
    moved: float
    held: float

    @property
    def in_fp16(self) -> Work:
        """The same work on numbers of half the size."""
        return Work(self.macs, self.moved / 2, self.held / 2)

    def milliseconds(self, sheet: Sheet) -> tuple[float, float]:
        """By operations and by bytes, if nothing else took time."""
        return 2e3 * self.macs / (1e12 * sheet.tflops), 1e3 * self.moved / (1e9 * sheet.bandwidth)

    def bound(self, sheet: Sheet) -> float:
        """Frames per second at most."""
        return 1000 / max(self.milliseconds(sheet))


@dataclass(frozen=True)
class Measured:
    """Frames per second on one of the GPUs."""

    sheet: Sheet
    speed: float


def estimates(work: Work, measured: Measured | None) -> list[dict[str, str]]:
    """A row for each GPU; with a measurement also what is left of its bound if the share of it is
    the same, and how many streams that is."""
    rows = []
    for sheet in SHEETS:
        operations, moved = work.milliseconds(sheet)
        bound = work.bound(sheet)
        row = {
            "GPU": sheet.name,
            "TFLOP/s": f"{sheet.tflops:g}",
            "GB/s": f"{sheet.bandwidth:g}",
            "ms by operations": f"{operations:.2f}",
            "ms by bytes": f"{moved:.2f}",
            "frames/s at most": f"{bound:.0f}",
            "streams in its memory": f"{1e9 * sheet.memory / work.held:.0f}",
        }
        if measured is not None:
            likely = measured.speed / work.bound(measured.sheet) * bound
            row["frames/s at the share measured"] = f"{likely:.0f}"
            row[f"streams of {REAL_TIME}/s"] = f"{likely / REAL_TIME:.1f}"
        rows.append(row)
    return rows


def parse_measured(text: str) -> Measured:
    """`H200=192`. For argparse, whose error it raises."""
    name, _, speed = text.rpartition("=")
    found = {sheet.name: sheet for sheet in SHEETS}
    if name not in found:
        hint = did_you_mean(name, found) or f"; it must be one of {', '.join(found)}"
        raise argparse.ArgumentTypeError(f"there is no data sheet of {name!r}{hint}")
    if not _is_positive(speed):
        raise argparse.ArgumentTypeError(f"must be GPU=FRAMES_PER_SECOND, got {text!r}")
    return Measured(found[name], float(speed))


def _is_positive(text: str) -> bool:
    try:
        return 0 < float(text) < float("inf")
    except ValueError:
        return False
