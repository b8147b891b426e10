"""The graphs of STCN.

    encoder      image                                  -> key, features of the frame, decoder skips
    memorize     image, features, masks                 -> memory value of a group of objects
    memory_read  query key, memory key and value, top-k -> readout of a group of objects
    decoder      readout, features, skips, image        -> probabilities and label map

They are those of RDE-VOS but for the one that compresses the memory.
"""

from __future__ import annotations

from vos_deploy.bundle import MemoryDefaults

from ..graph import MethodExport
from .rde import shared_graphs

EXPORT = MethodExport(
    shared_graphs,
    MemoryDefaults(every=5, frames=20),
    "The official STCN repository is under the MIT licence; it names no other licence for its "
    "weights. Part of the training data of some of them, BL30K, derives from ShapeNet and is for "
    "non-commercial use. Weights you trained yourself are yours, within the terms of their data.",
)
