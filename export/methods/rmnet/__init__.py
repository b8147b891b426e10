"""The ONNX graphs of RMNet."""

from .graphs import EXPORT

__all__ = ["EXPORT"]
