"""One tracker per method: which graphs run in which order, and what is memorised when."""

from vos_deploy.bundle import Bundle
from vos_deploy.errors import ModelError

from .base import Option, Tracker
from .gfrtm import GFRTM
from .imsfr import IMSFR
from .rde import RDE
from .rmnet import RMNet
from .stm import STM

__all__ = ["TRACKERS", "Option", "Tracker", "find"]

TRACKERS: dict[str, type[Tracker]] = {
    "stm": STM,
    "rmnet": RMNet,
    "rde": RDE,
    "imsfr": IMSFR,
    "gfrtm": GFRTM,
}


def find(bundle: Bundle) -> type[Tracker]:
    """The tracker of a model.

    Raises ModelError for a method this version does not run, or if the model lacks a graph.
    """
    tracker = TRACKERS.get(bundle.method)
    if tracker is None:
        raise ModelError(
            f"the model in {bundle.folder} is of the method {bundle.method!r}, and this version "
            f"runs {', '.join(TRACKERS)}; upgrade with: pip install --upgrade vos_deploy"
        )
    missing = [name for name in tracker.graphs if name not in bundle.graphs]
    if missing:
        raise ModelError(
            f"the model in {bundle.folder} lacks the graph {missing[0]!r}; export it again with: "
            f"python -m vos_deploy.export --method {bundle.method} --output {bundle.folder}"
        )
    return tracker
