"""The ONNX graphs of each method: what a graph computes, its tensors, what counts as equal."""
