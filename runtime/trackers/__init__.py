"""One tracker per method: which graphs run in which order, and what is memorised when."""

from vos_deploy.bundle import Bundle
from vos_deploy.errors import ModelError
from vos_deploy.extras import UPGRADE
from vos_deploy.methods import METHODS, find_part

from .base import Tracker

__all__ = ["Tracker", "find", "find_all"]


def find_all() -> dict[str, type[Tracker]]:
    """The trackers of all methods, by name."""
    return {method: find_part(method, "TRACKER") for method in METHODS}


def find(bundle: Bundle) -> type[Tracker]:
    """The tracker of a model.

    Raises ModelError for a method this version does not run, or if the model lacks a graph.
    """
    if bundle.method not in METHODS:
        raise ModelError(
            f"the method of {bundle.path} must be one of {', '.join(METHODS)}, got "
            f"{bundle.method!r}; a newer version may have it: {UPGRADE}"
        )
    tracker: type[Tracker] = find_part(bundle.method, "TRACKER")
    missing = [name for name in tracker.graphs if name not in bundle.graphs]
    if missing:
        raise ModelError(
            f"the model in {bundle.path} lacks the graph {missing[0]!r}; export it again with: "
            f"python -m vos_deploy.export --method {bundle.method} --output {bundle.path}"
        )
    return tracker
