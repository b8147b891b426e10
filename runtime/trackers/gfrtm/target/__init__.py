"""What G-FRTM learns of an object while the video runs, in NumPy: no framework, no gradients tape.

The runtime learns so, and training does, which shows the network the scores that it will get.

stencil    the loss of a full-size label, on the grid of the features
samples    frames to learn from, and the products that the optimiser is made of
optimizer  Gauss-Newton steps by conjugate gradients
model      the target model: learned from the first frame, updated later
augment    more first frames, painted from the one there is
"""

from .model import FAST, SLOW, Schedule, TargetModel, initial_weights

__all__ = ["FAST", "SLOW", "Schedule", "TargetModel", "initial_weights"]
