"""What methods share in training whose frames have one key, whatever the objects.

B clips of T frames, K objects, N memory positions, h = H / 16, w = W / 16. Under mixed precision
similarities, softmaxes and logarithms stay in float32.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vos_deploy.errors import InputError
from vos_deploy.models import Network
from vos_deploy.models.aggregate import soft_aggregate
from vos_deploy.models.imagenet import load_imagenet
from vos_deploy.models.shared_keys import STRIDE, memory_read, normalize

from .options import SharedKeyOptions
from .task import Batch, Task, check_multiple

OWN_NAMES = {"layer1": "res2", "layer2": "layer2", "layer3": "layer3"}
TORCHVISION_NAMES = {name: name for name in OWN_NAMES}


class Encoded(NamedTuple):
    """The frames of a batch as the key encoder sees them."""

    frames: Tensor  # [B, T, 3, H, W], normalised
    keys: Tensor  # [B, T, Ck, h, w]
    shared: Tensor  # [B, T, C, h, w], what the decoder sees of a frame beside the readout
    f16: Tensor  # [B, T, C16, h, w]
    skip8: Tensor  # [B, T, C8, H/8, W/8], of the decoder
    skip4: Tensor  # [B, T, C4, H/4, W/4]


def full_precision(tensor: Tensor) -> torch.autocast:
    """Mixed precision off, on the device of `tensor`."""
    return torch.autocast(tensor.device.type, enabled=False)


def read(query_key: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor]) -> Tensor:
    """Readout float32 [B, K, C, h, w] of a query key [B, Ck, h, w] from the keys [B, Ck, h, w] and
    values [B, K, C, h, w] of memory frames: the softmax runs over all their positions."""
    with full_precision(query_key):
        query = query_key.flatten(2).transpose(1, 2)
        memory_key = torch.stack(list(keys), 2).flatten(2).transpose(1, 2)  # [B, N, Ck]
        columns = torch.stack(list(values), 3).flatten(3).flatten(1, 2)  # [B, K*C, N]
        readout = memory_read(query, memory_key, columns.float().transpose(1, 2))
        shape = values[0].shape
        return readout.transpose(1, 2).reshape(shape)


class SharedKeyTask(Task):
    """Memorises frame 0 with its mask, then segments each later frame from those before it.

    Soft predictions go into the memory without being detached: gradients reach back through it.
    """

    model: Any  # with a key_encoder, a value_encoder and a decoder
    options: SharedKeyOptions

    def __init__(self, model: Network, options: SharedKeyOptions) -> None:
        super().__init__(model, options)
        self.leave_others_out()

    @classmethod
    def check(cls, options: SharedKeyOptions) -> None:  # type: ignore[override]
        super().check(options)
        check_multiple("--crop", STRIDE, *options.size)
        if options.imagenet_value is not None and not options.imagenet_value.is_file():
            raise InputError(f"no ImageNet weights at {options.imagenet_value}")
        if options.imagenet and options.backbone != "resnet18" and not options.imagenet_value:
            raise InputError(
                f"--imagenet is of the key encoder, a {options.backbone}: give the value encoder "
                "its ResNet-18 weights by --imagenet-value"
            )

    def load_imagenet(self) -> None:
        options, value_encoder = self.options, self.model.value_encoder
        assert options.imagenet is not None
        load_imagenet(self.model.key_encoder, options.imagenet, OWN_NAMES)
        path = options.imagenet_value or options.imagenet
        load_imagenet(value_encoder, path, TORCHVISION_NAMES)
        masks = value_encoder.conv1.weight.detach()[:, 3:]
        masks.copy_(nn.init.orthogonal_(torch.empty(masks.shape)))
        self.leave_others_out()

    @torch.no_grad()
    def leave_others_out(self) -> None:
        """A network that learns from one object has no weights for the others: it may be used
        with several, and the next stage starts from there."""
        if self.options.objects == 1:
            self.model.value_encoder.conv1.weight[:, 4] = 0

    def features(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Key, what the decoder shares between objects, f16, f8 and f4 of frames [N, 3, H, W]: what
        `encode` asks for."""
        raise NotImplementedError

    @abstractmethod
    def unroll(self, batch: Batch, share: float) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Losses by name, and the probabilities [B, 1+K, H, W] of frames 1..T-1."""

    def encode(self, batch: Batch) -> Encoded:
        frames = normalize(batch["frames"].flatten(0, 1))
        key, shared, f16, f8, f4 = self.features(frames)
        maps = (frames, key, shared, f16, *self.model.decoder.skips(f8, f4))
        return Encoded(*(x.unflatten(0, batch["frames"].shape[:2]) for x in maps))

    def logits(self, clip: Encoded, t: int, decoder_input: Tensor, present: Tensor) -> Tensor:
        """Aggregated logits [B, 1+K, H, W] of frame t from the decoder's input [B, K, C, h, w].

        A slot that holds no object, by present [B, K], takes no part.
        """
        objects = decoder_input.shape[1]
        skips = (x[:, t].repeat_interleave(objects, 0) for x in (clip.skip8, clip.skip4))
        own = self.model.decoder(decoder_input.flatten(0, 1), *skips)
        return self.aggregated(own, present)

    @staticmethod
    def aggregated(own: Tensor, present: Tensor) -> Tensor:
        """Aggregated logits [B, 1+K, H, W] of those of each object, [B*K, 1, H/4, W/4]."""
        full = F.interpolate(own, scale_factor=4.0, mode="bilinear")[:, 0]
        with full_precision(full):
            there = present[..., None, None]
            probabilities = full.float().sigmoid().unflatten(0, present.shape) * there
            logits = soft_aggregate(probabilities)
            absent = torch.cat([torch.zeros_like(there[:, :1]), 1 - there], 1) > 0
            return logits.masked_fill(absent, -torch.inf)

    @torch.no_grad()
    def pictures(self, batch: Batch) -> tuple[Tensor, Tensor]:
        first = {name: tensor[:1] for name, tensor in batch.items()}
        _, probabilities = self.unroll(first, 1.0)
        predicted = torch.cat([p.argmax(1) for p in probabilities])
        return first["frames"][0], torch.cat([first["labels"][0, :1], predicted])
