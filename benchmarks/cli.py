"""`python -m vos_deploy.benchmarks <subcommand>`: picks the benchmark and runs it."""

import argparse
from collections.abc import Sequence
from typing import Protocol

from vos_deploy.commands import HelpFormatter, setup_logging

from . import fps, jf, memory, parity
from .gpu import command as gpu


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
    "gpu": gpu,
}


def main(argv: Sequence[str]) -> int:
    setup_logging()
    args = make_parser().parse_args(argv)
    benchmark = BENCHMARKS[args.benchmark]
    return benchmark.run(args)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m vos_deploy.benchmarks",
        description="Accuracy and speed of exported models, with the conditions they depend on.",
        formatter_class=HelpFormatter,
    )
    subparsers = parser.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    for name, benchmark in BENCHMARKS.items():
        summary = (benchmark.__doc__ or "").splitlines()[0]
        subparser = subparsers.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=f"example:\n  {benchmark.EXAMPLE}",
            formatter_class=HelpFormatter,
        )
        benchmark.add_arguments(subparser)
    return parser
