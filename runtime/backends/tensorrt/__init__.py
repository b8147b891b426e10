"""Engines: ONNX graphs compiled by TensorRT, or by TensorRT for RTX, which has the same API."""
