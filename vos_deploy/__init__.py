"""Video object segmentation, deployed: mark objects in one frame, follow them live."""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vos_deploy.runtime.segmenter import Segmenter

__all__ = ["Segmenter", "__version__"]

__version__ = version("vos_deploy")


def __getattr__(name: str) -> Any:
    # Lazy (PEP 562), because every stage imports this package and only one of them runs models.
    if name == "Segmenter":
        from vos_deploy.runtime.segmenter import Segmenter

        return Segmenter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
