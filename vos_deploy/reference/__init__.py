"""The published frame loop of each method in plain PyTorch, in the official order.

The oracle: tests, `benchmarks parity` and the PyTorch side of `benchmarks fps` compare with it.
Kept independent of the trackers, which ship.
"""
