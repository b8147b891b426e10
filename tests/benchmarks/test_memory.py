from __future__ import annotations

import mmap

from vos_deploy.benchmarks.memory import grown, resident


def rows(*sizes: float) -> list[dict[str, object]]:
    return [{"frame": i, "resident MiB": size} for i, size in enumerate(sizes)]


def test_growth_is_counted_from_the_first_quarter() -> None:
    assert grown(rows(100, 200, 200, 200, 200, 200, 200, 202)) == 202 / 200 - 1
    assert grown(rows(100)) == 0


def test_resident_memory_sees_an_allocation() -> None:
    before = resident()
    # Straight from the system: a heap may still hold such a block from earlier tests.
    block = mmap.mmap(-1, 64 * 2**20)
    block.write(b"x" * len(block))
    assert resident() - before > 32 * 2**20
    del block
