"""`python -m vos_deploy.benchmarks`."""

import sys

from .cli import main

sys.exit(main())
