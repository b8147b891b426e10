"""How to get optional parts of this package, and newer ones."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Models, plans and states of a newer format need it.
UPGRADE = "git pull, in the checkout of vos_deploy"


def install(extra: str) -> str:
    """The command that installs an extra, from any folder; the package lives in a checkout."""
    here = not (ROOT / "setup.cfg").is_file() or Path.cwd() == ROOT
    return f'pip install -e "{"." if here else ROOT}[{extra}]"'
