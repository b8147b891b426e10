"""Cuts `tests/golden` out of all that was recorded: `python -m tests.support.cut`.

One run of each method, as the tests follow it in a clone that has nothing beside it.
"""

from __future__ import annotations

import json
import shutil
from typing import Any

import numpy as np
from PIL import Image

from tests.support.golden import GOLDEN, PART

# Method -> the arrays that are kept. Of maps named `..._s4`, every second row and column is left
# out once more, and they are named `..._s8`.
CUTS = {
    "stm": ["stm/prob_f32_s4", "stm/mask"],
    "rmnet": ["B_prob_s4", "B_argmax", "B_bbox_mem", "B_bbox_query"],
    "rde": [f"calm.two_frames_compress_top40.{name}" for name in ("prob_s8", "mask")],
    "imsfr": ["E_davis17/prob_s4", "E_davis17/argmax"],
    "stcn": ["late.prob_s8", "late.mask"],
    "xmem": [f"{run}.{name}" for run in ("late", "long") for name in ("prob_s8", "mask")],
    "cutie": [f"small.{run}.{name}" for run in ("add", "long") for name in ("prob_s8", "mask")],
    "gfrtm": ["M/labels", *(f"M/f{t}/o{i}/gate" for t in range(1, 6) for i in (1, 2))],
}


def cut(method: str) -> dict[str, Any]:
    """The arrays of a method that are kept, by the names they are kept under."""
    recorded, kept = np.load(GOLDEN / method / "golden.npz"), {}
    for name in CUTS[method]:
        if name.endswith("_s4"):
            kept[f"{name.removesuffix('_s4')}_s8"] = recorded[name][..., ::2, ::2]
        else:
            kept[name] = recorded[name]
    return kept


def imsfr_draws() -> Any:
    """What the recorded run of IMSFR drew."""
    content = json.loads((GOLDEN / "imsfr/golden_meta.json").read_text())
    return {"sampled": {"E_davis17": content["sampled"]["E_davis17"]}}


def main() -> None:
    PART.mkdir(exist_ok=True)
    shutil.copyfile(GOLDEN / "weights.py", PART / "weights.py")
    clip = np.load(GOLDEN / "input.npz")
    Image.fromarray(clip["frames"].reshape(-1, 432, 3)).save(PART / "frames.png", optimize=True)
    Image.fromarray(clip["mask"]).save(PART / "mask.png", optimize=True)
    (PART / "imsfr.json").write_text(json.dumps(imsfr_draws()) + "\n")
    for method in CUTS:
        np.savez_compressed(PART / f"{method}.npz", **cut(method))


if __name__ == "__main__":
    main()
