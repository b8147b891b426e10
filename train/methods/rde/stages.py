"""RDE-VOS (Li et al., CVPR 2022): stage 0 on still images, then 1 and 2 (with BL30K) or 3."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from vos_deploy.options import option

from ...stage import Training
from ..stcn.stages import STCNOptions, published_stages


@dataclass(frozen=True)
class RDEOptions(STCNOptions):
    compress: bool = option(
        True, "train the module that compresses the memory; the first stage has none", "network"
    )
    compression_start: str = option(
        "random",
        "initialisation of the compression: random, or close to the mean of its two frames",
        "network",
        choices=("random", "mean"),
    )
    value_kl: float = option(
        10.0, "weight of the KL between values of perturbed and clean masks", "loss"
    )
    decoder_f2_kl: float = option(
        10.0, "weight of the KL between the decoder's inputs at frame 2, from the embedding and "
        "from all frames", "loss",
    )  # fmt: skip
    decoder_f4_kl: float = option(10.0, "the same at frame 4", "loss")
    temperature: float = option(1.0, "softmax temperature of these losses", "loss")
    detach_teacher: bool = option(
        True,
        "stop the gradient through the teacher side of the KL losses (the official release "
        "does not)",
        "loss",
    )
    halve_losses: bool = option(
        False,
        "halve the running loss after every frame, as the official release does: frames 1 "
        "to 4 weigh 1/16, 1/8, 1/4, 1/2 instead of 1 each",
        "loss",
    )


# Longer clips, and masks of the first frame that are perturbed to an IoU drawn from this range.
PERTURBED: dict[str, Any] = {"perturb": (0.85, 1.0)}
RECURRENT: dict[str, Any] = {**PERTURBED, "frames": 5}
SHORT_BOOTSTRAP = {"bootstrap_from": 5_000, "bootstrap_until": 17_500}
# What RDE-VOS changes in STCN's stages.
CHANGES: dict[str, dict[str, Any]] = {
    "0": {
        **PERTURBED,
        **SHORT_BOOTSTRAP,
        "compress": False,
        "batch": 16,
        "iterations": 75_000,
        "milestones": (37_500.0,),
        "learning_rate": 2e-5,
        # Only this one of the three applies here.
        "value_kl": 10.0,
    },
    "1": RECURRENT,
    "2": {
        **RECURRENT,
        **SHORT_BOOTSTRAP,
        "batch": 8,
        "iterations": 75_000,
        "milestones": (62_500.0,),
        "learning_rate": 2e-5,
        # By the released command; the paper says 10 each.
        "value_kl": 5.0,
        "decoder_f2_kl": 5.0,
        "decoder_f4_kl": 5.0,
    },
    "3": {**RECURRENT, "learning_rate": 2e-5},
}
STAGES = {
    name: replace(stage, values={**stage.values, **CHANGES[name]})
    for name, stage in published_stages().items()
}
STAGES["0"] = replace(
    STAGES["0"], summary="still images, one object, no memory compression", gpus=4
)

TRAINING = Training(RDEOptions, STAGES)
