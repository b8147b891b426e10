"""A folder of results belongs to one batch at a time, and to nobody until the last worker of an
older one is gone. On storage, which knows no locks, nobody is kept out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from vos_deploy.errors import InputError
from vos_deploy.files import writing

from .storage import is_stored

try:
    import fcntl
except ImportError:  # Windows: nobody is kept out
    fcntl = None  # type: ignore[assignment]

# Workers notice at once that whoever started them is gone.
PATIENCE = 10.0
_BATCH, _WORKERS = ".batch.lock", ".workers.lock"


@contextmanager
def batch_lock(folder: Path) -> Iterator[None]:
    """Raises InputError if another batch writes there, VosDeployError if nothing can be written."""
    if is_stored(folder):
        yield
        return
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _open(folder / _BATCH) as batch, _open(folder / _WORKERS) as workers:
        if fcntl is not None:
            _take(batch, 0.0, folder)
            _take(workers, PATIENCE, folder)
            fcntl.flock(workers, fcntl.LOCK_UN)
        yield


@contextmanager
def worker_lock(folder: Path) -> Iterator[None]:
    """Held by each worker of a batch."""
    if is_stored(folder):
        yield
        return
    with _open(folder / _WORKERS) as workers:
        if fcntl is not None:
            fcntl.flock(workers, fcntl.LOCK_SH)
        yield


def _open(path: Path) -> IO[bytes]:
    with writing(path):
        return path.open("a+b")  # over NFS a shared lock is of what is read


def _take(lock: IO[bytes], patience: float, folder: Path) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError:
            if time.monotonic() >= deadline:
                raise InputError(
                    f"another run is writing to {folder}: wait for it, or choose another --output"
                ) from None
            time.sleep(0.05)
