"""What every command shares: exit codes, logging, progress bars and `--help`.

A command is `main(argv) -> int | None`, wrapped once:

    if __name__ == "__main__":
        sys.exit(run_command(main))
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, TypeVar

from tqdm import tqdm

from vos_deploy.errors import InputError, VosDeployError
from vos_deploy.options import did_you_mean

T = TypeVar("T")

# What a shell reports for a program ended by SIGINT and by SIGPIPE.
EXIT_INTERRUPTED = 130
EXIT_CLOSED_PIPE = 141

_LEVELS = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)


def run_command(
    main: Callable[[Sequence[str]], int | None], argv: Sequence[str] | None = None
) -> int:
    """Run a command and return its exit code.

    A `VosDeployError` becomes one `error: ...` line on stderr and its own exit code, Ctrl-C
    becomes 130, and a reader that closed stdout early (`... | head`) ends the command quietly
    with 141. A file that cannot be read or written is named, exit code 1. Any other exception is a
    defect and keeps its traceback.

    Args:
        main: gets the arguments without the program name; None counts as 0.
        argv: the arguments, or None for those of the process.
    """
    try:
        code = main(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()  # here, so that a closed pipe shows now and not at shutdown
    except VosDeployError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _discard_stdout()
        return EXIT_CLOSED_PIPE
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return VosDeployError.exit_code
    return code or 0


def _discard_stdout() -> None:
    """Point stdout at nothing: Python flushes it once more at shutdown, and would complain."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)


def setup_logging(verbosity: int = 0) -> None:
    """Send the package's log to stderr.

    Args:
        verbosity: -1 errors only, 0 also warnings, 1 also information, 2 everything.
    """
    handler = _ProgressAwareHandler()
    handler.setFormatter(_LevelFormatter())
    logger = logging.getLogger("vos_deploy")
    logger.handlers = [handler]  # a second call must not double every line
    logger.setLevel(_LEVELS[min(max(verbosity, -1), 2) + 1])


class _ProgressAwareHandler(logging.Handler):
    """Writes to stderr without tearing a progress bar that is being drawn there."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(self.format(record), file=sys.stderr)
        except Exception:
            self.handleError(record)


class _LevelFormatter(logging.Formatter):
    """`warning: text`, in the shape of the `error: text` a failed command ends with."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {super().format(record)}"


def progress(
    iterable: Iterable[T] | None = None,
    *,
    total: int | None = None,
    description: str | None = None,
    unit: str = "frame",
) -> "tqdm[T]":
    """A tqdm bar on stderr that is silent when stderr is not a terminal."""
    return tqdm(
        iterable,
        total=total,
        desc=description,
        unit=unit,
        disable=None,  # tqdm's own spelling of "only on a terminal"
        dynamic_ncols=True,
    )


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults, keeps the line breaks of descriptions and examples."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        # "(default: None)", "(default: False)" and "(default: [])" tell a reader nothing.
        if not action.default or "(default:" in (action.help or ""):
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An argument parser with a short usage, which raises InputError for a wrong command line.

    Args:
        prog: the command.
        synopsis: the arguments that are usually given; the options are not listed one by one.
        description: what the command does.
        example: a command line, or several.
    """

    def __init__(self, prog: str, synopsis: str, description: str, example: str) -> None:
        super().__init__(
            prog=prog,
            usage=f"{prog} {synopsis}",
            description=description,
            epilog=f"example:\n  {example}",
            formatter_class=_HelpFormatter,
            # An abbreviation would change its meaning when an option is added.
            allow_abbrev=False,
        )
        from . import __version__

        version = f"vos_deploy {__version__}"
        self.add_argument("--version", action="version", version=version, help="show the version")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, but nothing is left over. Subcommands are parsed by this method, too."""
        namespace, unknown = super().parse_known_args(args, namespace)
        for text in unknown:
            if not text.startswith("-"):
                self.error(f"unexpected argument {text!r}")
            name = text.partition("=")[0]
            self.error(f"unknown option {name}{did_you_mean(name, self._option_string_actions)}")
        return namespace, unknown

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")
