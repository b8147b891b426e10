"""`python -m vos_deploy.benchmarks`."""

import sys

from vos_deploy.commands import run_command

from .cli import main

sys.exit(run_command(main))
