"""vos-deploy-benchmark, or `python -m vos_deploy.benchmarks`: picks a benchmark and runs it."""

import argparse
from collections.abc import Sequence
from typing import Protocol

from vos_deploy.commands import Parser, run_command, setup_logging

from . import cost, focus, fps, jf, live, loops, memory, parity, prompts, steady, streams
from .gpu import command as gpu
from .page import command as page


class Benchmark(Protocol):
    """A subcommand is a module of this shape; the first line of its docstring is its help.

    `run` prints its results on stdout and returns the exit code.
    """

    __doc__: str | None
    EXAMPLE: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int: ...


BENCHMARKS: dict[str, Benchmark] = {
    "jf": jf,
    "fps": fps,
    "parity": parity,
    "memory": memory,
    "steady": steady,
    "cost": cost,
    "prompts": prompts,
    "loops": loops,
    "streams": streams,
    "live": live,
    "focus": focus,
    "gpu": gpu,
    "report": page,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(_main, argv)


def _main(argv: Sequence[str]) -> int:
    setup_logging()
    args = parser().parse_args(argv)
    return BENCHMARKS[args.benchmark].run(args)


def parser() -> Parser:
    name = "vos-deploy-benchmark"
    parser = Parser(
        name,
        "BENCHMARK [options]",
        "Accuracy and speed of exported models, with the conditions they depend on.",
        jf.EXAMPLE,
    )
    subparsers = parser.add_subparsers(
        dest="benchmark", required=True, metavar="BENCHMARK", prog=name, parser_class=Parser
    )
    for name, benchmark in BENCHMARKS.items():
        summary = (benchmark.__doc__ or "").splitlines()[0]
        subparser = subparsers.add_parser(
            name,
            help=summary,
            synopsis="[options]",
            description=summary,
            example=benchmark.EXAMPLE,
        )
        benchmark.add_arguments(subparser)
    return parser
