"""The target models of Reuse-VOS's training clips: learned from the first frame, kept on disk."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vos_deploy.errors import InputError
from vos_deploy.files import replacing
from vos_deploy.models.gfrtm.network import FullTrunk
from vos_deploy.runtime.trackers.gfrtm.target import Schedule, TargetModel, initial_weights
from vos_deploy.runtime.trackers.gfrtm.target.augment import CANDIDATES, augment

from .stages import GFRTMOptions

# Regularisation and preconditioner of projection and kernel, and what is kept of a direction:
# those of the released training, not those of its evaluation.
PROJECT_SCALE, KERNEL_SCALE, FORGET = 1e-5, 1e-4, 0.9**75


class Targets:
    """Learns a target model per first frame and object, as the runtime does, in NumPy.

    trunk: its stages up to stride 16 must not change, for what is kept would no longer hold.
    """

    def __init__(self, trunk: FullTrunk, options: GFRTMOptions) -> None:
        self.trunk, self.options = trunk, options
        self.schedule = Schedule(
            options.target_iterations,
            options.target_update,
            PROJECT_SCALE,
            KERNEL_SCALE,
            FORGET,
            weigh_pixels=False,
        )
        self._trunk_digest = ""

    @staticmethod
    def check(options: GFRTMOptions) -> None:
        if not 1 <= options.target_augment <= 1 + CANDIDATES:
            raise InputError(
                f"--target-augment must be from 1 to {1 + CANDIDATES} views, got "
                f"{options.target_augment}"
            )
        if options.target_memory < options.target_augment:
            raise InputError(
                f"--target-memory {options.target_memory} has no room for --target-augment "
                f"{options.target_augment} views"
            )

    def __call__(self, frame: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Projection float32 [m, C] and kernel float32 [9, m] on the frame's device.

        frame float [3, H, W] in [0, 1]; mask [H, W], with at least one pixel above one half.
        """
        image = (frame.permute(1, 2, 0) * 255).round().byte().cpu().numpy()
        drawn = mask.cpu().numpy() > 0.5
        path = self.path(image, drawn)
        found = _read(path) if path is not None else None
        if found is None:
            found = self.learn(image, drawn)
            if path is not None:
                _write(path, found)
        return found[0].to(frame.device), found[1].to(frame.device)

    @torch.no_grad()
    def learn(self, image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
        """image uint8 [H, W, 3] and mask [H, W] -> projection and kernel."""
        options = self.options
        images, masks = augment(image, mask, options.target_augment - 1)
        weight = self.trunk.conv1.weight
        features = []
        for view in images:
            frame = torch.from_numpy(view).to(weight.device).permute(2, 0, 1).unsqueeze(0) / 255
            layer4 = self.trunk.res4(self.trunk.shallow(frame)[1])
            features.append(layer4[0].flatten(1).T.cpu().numpy())
        grid = (layer4.shape[2], layer4.shape[3])
        weights = initial_weights(1, features[0].shape[1], options.target_channels)
        target = TargetModel(weights, grid, options.target_memory, self.schedule)
        target.learn(features, masks)
        project, kernel = (
            torch.from_numpy(x.astype(np.float32)) for x in (target.project, target.kernel)
        )
        return project, kernel

    def path(self, image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> Path | None:
        """Where the model of these pixels, this trunk and these settings is kept."""
        folder = self.options.target_cache
        if folder is None:
            return None
        digest = hashlib.sha256(self._digest().encode())
        settings = (self.schedule, *(getattr(self.options, f"target_{name}")
                    for name in ("channels", "memory", "augment")), image.shape)  # fmt: skip
        digest.update(repr(settings).encode())
        digest.update(image.tobytes())
        digest.update(mask.tobytes())
        return folder / f"{digest.hexdigest()[:32]}.safetensors"

    def _digest(self) -> str:
        if not self._trunk_digest:
            digest = hashlib.sha256()
            for key, value in self.trunk.state_dict().items():
                if not key.startswith("res5."):
                    digest.update(value.detach().cpu().contiguous().numpy().tobytes())
            self._trunk_digest = digest.hexdigest()
        return self._trunk_digest


def _read(path: Path) -> tuple[Tensor, Tensor] | None:
    """None if it is not there; one that is damaged is learned anew."""
    try:
        content = load_file(path)
        return content["project"], content["kernel"]
    except (FileNotFoundError, SafetensorError, KeyError):
        return None


def _write(path: Path, target: tuple[Tensor, Tensor]) -> None:
    """Whole or not at all: the processes of a run share the folder."""
    with replacing(path) as temporary:
        save_file({"project": target[0].contiguous(), "kernel": target[1].contiguous()}, temporary)
