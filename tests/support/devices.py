"""References on devices that are not here, or may not be."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np

from vos_deploy.benchmarks.scene import scene


def follow_on_meta(kind: type[Any], network: Any, **options: Any) -> None:
    """Run a reference on PyTorch's device without numbers, with an object that is added.

    A tensor that is made on the CPU in between fails there, as it does on a GPU.
    """

    class Blind(kind):  # type: ignore[misc]
        def labels(self) -> Any:
            return self.probabilities

    reference = Blind(network.to("meta"), memory_every=1, **options)
    for t, (frame, mask) in enumerate(islice(scene((72, 100), 2), 4)):
        given = {0: mask == 1, 2: 2 * (mask == 2)}.get(t)
        labels = reference.step(frame, None if given is None else given.astype(np.uint8))
        assert labels.device.type == "meta"
        assert labels.shape == (2 if t < 2 else 3, 72, 100)
