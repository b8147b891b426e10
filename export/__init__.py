"""Export: a checkpoint becomes a folder of ONNX graphs, checked against PyTorch."""
