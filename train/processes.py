"""This process among those of a run, and its random state."""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import torch


class Processes:
    """One process of those that torchrun started; a single one without it."""

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", 0))
        self.count = int(os.environ.get("WORLD_SIZE", 1))
        cuda = torch.cuda.is_available()
        local = int(os.environ.get("LOCAL_RANK", 0))
        self.device = torch.device("cuda", local) if cuda else torch.device("cpu")
        if cuda:
            torch.cuda.set_device(self.device)
        if self.count > 1:
            torch.distributed.init_process_group("nccl" if cuda else "gloo")

    @property
    def first(self) -> bool:
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """The value of each process, in their order, on all of them."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(values, value)
        return values

    def close(self) -> None:
        if self.count > 1:
            torch.distributed.destroy_process_group()


def random_state() -> dict[str, Any]:
    """The state of every global generator, of types that load without unpickling code."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002
    version, numbers, next_gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "numpy": [str(name), torch.from_numpy(np.array(keys, np.int64)), int(position),
                  int(has_gauss), float(gauss)],
        "python": [version, list(numbers), next_gauss],
    }  # fmt: skip


def restore_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    version, numbers, next_gauss = state["python"]
    random.setstate((version, tuple(numbers), next_gauss))
