"""Arguments that several benchmarks share."""

import argparse
from pathlib import Path


def add_report_arguments(parser: argparse.ArgumentParser, files: str) -> None:
    parser.add_argument("--output", type=Path, metavar="FOLDER", help=f"write {files} there")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
