"""`python -m vos_deploy.formats`, the same as vos-deploy-convert."""

import sys

from .command import main

sys.exit(main())
