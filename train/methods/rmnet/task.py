"""What RMNet and its TinyFlowNet do with a clip in training (Xie et al., CVPR 2021, section 4)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from vos_deploy.errors import InputError
from vos_deploy.models.aggregate import soft_aggregate
from vos_deploy.models.imagenet import load_imagenet
from vos_deploy.models.padding import crop, pad_to_stride
from vos_deploy.models.rmnet.network import RMNet, memory_region, normalize, query_region
from vos_deploy.models.rmnet.regions import flow_warp
from vos_deploy.models.upsample import upsample
from vos_deploy.padding import STRIDE

from ...data.mixture import Sample
from ...keys import KeyParts, align_keys
from ...losses import bootstrapped_cross_entropy, flow_l1, lovasz_softmax
from ...options import TrainOptions
from ...schedule import Step, bootstrap_share
from ...task import Batch, Losses, Task
from .stages import RMNetOptions

# What a network's parameters begin with, by the name of the option.
PARTS = {"rmnet": "rmnet.", "tinyflownet": "tflownet."}


class RMNetTask(Task):
    """Trains one of the two networks; the other stays as it is.

    RMNet memorises every frame, the first with its mask and later ones with their soft
    predictions, and segments the next from all of them. Predictions are not detached: gradients
    reach back through the memory. The regions of the query come from the given flow.

    TinyFlowNet is taught the given flow.
    """

    model: RMNet
    options: RMNetOptions

    @classmethod
    def network(cls, options: TrainOptions) -> RMNet:
        assert isinstance(options, RMNetOptions)
        model = RMNet(
            backbone=options.backbone,
            key_dim=options.key_dim,
            value_dim=options.value_dim,
            decoder_width=options.decoder_width,
            flow_width=options.flow_width,
        )
        parts = model.rmnet
        for part in (parts.kv_memory, parts.kv_query, parts.decoder, model.tflownet):
            part.apply(start_normal)
        return model

    @classmethod
    def check(cls, options: TrainOptions) -> None:
        super().check(options)
        assert isinstance(options, RMNetOptions)
        if options.flow == "none":
            raise InputError("--flow none: rmnet is trained with optical flow: give files or dis")

    def load_imagenet(self) -> None:
        assert self.options.imagenet is not None
        parts = self.model.rmnet
        for encoder in (parts.encoder_memory, parts.encoder_query):
            load_imagenet(encoder, self.options.imagenet)

    def prepare(self, clips: Dataset[Sample]) -> None:
        if self.options.align_keys and self.options.network == "rmnet":
            parts = self.model.rmnet
            heads = parts.kv_query.key_conv, parts.kv_memory.key_conv
            align_keys(
                KeyParts(parts.encoder_query, parts.encoder_memory, *heads, normalize), clips
            )

    def frozen(self, name: str) -> bool:
        return not name.startswith(PARTS[self.options.network]) or super().frozen(name)

    def forward(self, batch: Batch, step: Step) -> Losses:
        if self.options.network == "tinyflownet":
            return {"loss": flow_l1(self.flows(batch), batch["flows"][:, 1:].flatten(0, 1))}
        logits = self.unroll(batch)
        # All frames and clips together: Lovász-softmax is of a set of pixels.
        labels = batch["labels"][:, 1:].transpose(0, 1).flatten(0, 1)
        together = torch.cat(logits)
        lovasz = lovasz_softmax(together.softmax(1), labels)
        share = bootstrap_share(self.options, step.iteration)
        cross_entropy = bootstrapped_cross_entropy(together, labels, share)
        loss = self.options.lovasz * lovasz + self.options.cross_entropy * cross_entropy
        return {
            "loss": loss,
            "lovasz": lovasz.detach(),
            "cross_entropy": cross_entropy.detach(),
        }

    def unroll(self, batch: Batch) -> list[Tensor]:
        """Logits [B, 1+K, H, W] of frames 1, 2, ..."""
        frames, masks, flows = batch["frames"], batch["masks"], batch["flows"]
        size = frames.shape[-2], frames.shape[-1]
        padded, pads = pad_to_stride(normalize(frames), STRIDE)
        # As many slots as a clip has objects. With `--slots any` some lie beyond and are never
        # predicted, as in the release.
        count = batch["present"].sum(1, keepdim=True)
        slots = torch.arange(masks.shape[2], device=masks.device) < count
        predicting = slots.unflatten(1, (-1, 1, 1)).to(masks.dtype)
        background = 1 - masks[:, 0].sum(1, keepdim=True)
        previous = torch.cat([background, masks[:, 0]], 1)
        keys: list[Tensor] = []
        values: list[Tensor] = []
        result = []
        for t in range(1, frames.shape[1]):
            memorized = pad_to_stride(previous, STRIDE)[0]
            region = self.region(memorized, of_query=False).unsqueeze(2)
            key, value = self.model.rmnet.memorize(padded[:, t - 1], memorized[:, 1:])
            keys.append(key * region)
            values.append(value * region)
            region = self.region(flow_warp(previous, flows[:, t]), of_query=True)
            query = self.model.rmnet.encode_query(padded[:, t])
            readout = self.model.rmnet.read(
                query, region, torch.stack(keys, 3), torch.stack(values, 3)
            )
            parts = self.model.rmnet.decode(readout, region, query)
            full = upsample(parts.flatten(0, 1), padded.shape).float().softmax(1)[:, 1]
            objects = crop(full.unflatten(0, parts.shape[:2]), pads, (size[0], size[1]))
            result.append(soft_aggregate(objects * predicting))
            previous = result[-1].softmax(1)
        return result

    def region(self, slots: Tensor, of_query: bool) -> Tensor:
        """Token map [B, K, h, w] of slots [B, 1+K, H, W], background first.

        A box does not change with its mask but in jumps: the map has no gradient, unless the
        release's is asked for.
        """
        _, on = (query_region if of_query else memory_region)(slots[:, 1:].detach())
        if self.options.region_gradient == "ones" and slots.requires_grad:
            on = OnesGradient.apply(slots, on)
        return on

    def flows(self, batch: Batch) -> Tensor:
        """TinyFlowNet's flow [B * (T - 1), 2, H, W] of frames 1, 2, ... to those before."""
        frames = normalize(batch["frames"])
        flow: Tensor = self.model.tflownet(
            frames[:, 1:].flatten(0, 1), frames[:, :-1].flatten(0, 1)
        )
        return flow

    @torch.no_grad()
    def pictures(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Of TinyFlowNet: the true masks of each frame moved into the next by its flow."""
        first = {name: tensor[:1] for name, tensor in batch.items()}
        if self.options.network == "tinyflownet":
            moved = flow_warp(first["masks"][0, :-1], self.flows(first))
            labels = torch.cat([torch.full_like(moved[:, :1], 0.5), moved], 1).argmax(1)
        else:
            labels = torch.cat([logits.argmax(1) for logits in self.unroll(first)])
        return first["frames"][0], torch.cat([first["labels"][0, :1], labels])


class OnesGradient(torch.autograd.Function):
    """Passes a region on; the gradient to the slots it comes from is one everywhere, whatever
    comes back. The softmax that made the slots turns that into nothing."""

    @staticmethod
    def forward(ctx: Any, slots: Tensor, region: Tensor) -> Tensor:
        ctx.shape = slots.shape
        return region.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.new_ones(ctx.shape), None


def start_normal(module: nn.Module) -> None:
    """He et al., "Delving Deep into Rectifiers" (ICCV 2015): the released initialisation."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


TASK = RMNetTask
