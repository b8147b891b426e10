"""Video object segmentation, deployed: mark objects in one frame, follow them live."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vos_deploy.errors import InputError, ModelError, VosDeployError
    from vos_deploy.masks import overlay, read_mask, write_mask
    from vos_deploy.prompts import Prompt
    from vos_deploy.runtime.group import Group, GroupError
    from vos_deploy.runtime.model import Model
    from vos_deploy.runtime.segmenter import Segmenter
    from vos_deploy.video import open_source
    from vos_deploy.writers import MaskFolderWriter, VideoWriter

__version__ = version("vos_deploy")

# Name -> its module. Imported when first asked for (PEP 562): every stage imports this package, and
# few need video or inference.
_HOMES = {
    "Group": "runtime.group",
    "GroupError": "runtime.group",
    "InputError": "errors",
    "MaskFolderWriter": "writers",
    "Model": "runtime.model",
    "ModelError": "errors",
    "Prompt": "prompts",
    "Segmenter": "runtime.segmenter",
    "VideoWriter": "writers",
    "VosDeployError": "errors",
    "open_source": "video",
    "overlay": "masks",
    "read_mask": "masks",
    "write_mask": "masks",
}

__all__ = [
    "Group",
    "GroupError",
    "InputError",
    "MaskFolderWriter",
    "Model",
    "ModelError",
    "Prompt",
    "Segmenter",
    "VideoWriter",
    "VosDeployError",
    "__version__",
    "open_source",
    "overlay",
    "read_mask",
    "write_mask",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
