"""Each step in a process of its own: one that CUDA ends does so alone, and one that hangs can be
stopped."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from threading import Thread

from vos_deploy.errors import VosDeployError

from .steps import Step

logger = logging.getLogger(__name__)


def in_a_process(step: Step, seconds: float) -> None:
    """This command once more, for one step. Raises VosDeployError if it fails or is too slow."""
    command = [sys.executable, *sys.orig_argv[1:], "--step", step.name]
    with tempfile.TemporaryFile() as errors:
        # The pipe closes when this process ends, however that comes about; see `end_with_parent`.
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=errors, start_new_session=True
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise VosDeployError(f"stopped after {seconds:.0f} s") from None
        finally:
            _kill(process)
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip()
    logger.debug("%s", said)
    if code:
        last = said.rpartition("\n")[2].removeprefix("error: ")
        raise VosDeployError(f"{last} (exit code {code})")


def end_with_parent() -> None:
    """Exit when the process that started this one is gone: nobody would stop it any more."""

    def watch() -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock Python wants when it ends
            pass
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started, such as compilers."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):  # all have ended
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()
