"""What a figure depends on besides the code: the machine and the versions of what ran."""

import os
import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from vos_deploy.bundle import Bundle

PACKAGES = ("vos_deploy", "numpy", "opencv-python-headless", "onnxruntime", "onnxruntime-gpu")

# Arguments of Segmenter that every method has; the others are the method's own.
GENERAL = {
    "device", "size", "threads", "memory_every", "memory_frames", "memory_policy", "memory_mib",
    "focus", "decode_in_boxes",
}  # fmt: skip


def model(bundle: Bundle, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a model says of itself, overruled by the arguments the Segmenter was given."""
    return {
        "model": str(bundle.path),
        "method": bundle.method,
        "precision": bundle.precision,
        "checkpoint": bundle.checkpoint.get("name", "unknown"),
        "size": working_size(options["size"] or bundle.size or bundle.short_side),
        "device": options["device"],
        "threads": options["threads"] or "one per physical core",
        **({"decoder": "in boxes"} if options.get("decode_in_boxes") else {}),
        "options": {k: v for k, v in options.items() if k not in GENERAL} or "as exported",
    }


def memory(bundle: Bundle, options: Mapping[str, Any]) -> dict[str, Any]:
    """Which frames are memorised, how many an object's memory holds, and which of them go."""
    facts = {
        "every": options["memory_every"] or bundle.memory.every,
        "frames": options["memory_frames"] or bundle.memory.frames or "unlimited",
    }
    chosen = {"policy": options.get("memory_policy"), "MiB per object": options.get("memory_mib")}
    return facts | {name: value for name, value in chosen.items() if value is not None}


def machine(*more_packages: str) -> dict[str, Any]:
    """CPU, cores, load, system, and versions of Python and the packages that are there."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "load": _load(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": _versions((*PACKAGES, *more_packages)),
    }


def working_size(size: int | tuple[int, int] | None) -> str:
    if isinstance(size, tuple):
        return f"{size[0]}x{size[1]}"
    return "the frame's" if size is None else f"shorter side {size}"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _load() -> float | None:
    """How many processes wanted a core in the last minute; None where that is not known."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    # What was imported counts: a folder on the path hides what is installed.
    if (engine := sys.modules.get("onnxruntime")) is not None:
        found |= {name: engine.__version__ for name in found if name.startswith("onnxruntime")}
    return found
