"""How many processors this process may use: by its affinity and by the quota of its container."""

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def usable(cgroups: Path = CGROUPS) -> int:
    """At least 1. cgroups: where Linux says what a container may use."""
    allowed = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    quota = _quota(cgroups)
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def _quota(cgroups: Path) -> float | None:
    """Processors' worth of time; None for no limit, and where nothing is said."""
    try:
        if (path := cgroups / "cpu.max").exists():  # version 2: "200000 100000" or "max 100000"
            time, period = path.read_text().split()
        else:
            time = (cgroups / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (cgroups / "cpu" / "cpu.cfs_period_us").read_text()
        return float(time) / float(period) if float(time) > 0 else None
    except (OSError, ValueError):
        return None
