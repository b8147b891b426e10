"""The object transformer: what is known of an object as a whole puts right what its pixels say.

Q queries stand for an object, half for its foreground and half for its background. They look at
the pixels, each half at its own, and the pixels look at them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..aggregate import soft_aggregate
from .layers import CAResBlock, PositionalEncoding

HEADS = 8
BLOCKS = 3


class Attention(nn.Module):
    """Multi-head attention under the keys of torch's own, written out to be exported."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, blocked: Tensor | None = None) -> Tensor:
        """q [R, L, C], k and v [R, S, C] -> [R, L, C]; blocked: bool [R, L, S]."""
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (
            F.linear(x, weight, bias).unflatten(2, (HEADS, -1)).transpose(1, 2)
            for x, weight, bias in zip((q, k, v), weights, biases, strict=True)
        )  # [R, heads, tokens, C / heads]
        scores = (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5).float()
        if blocked is not None:
            scores = scores.masked_fill(blocked.unsqueeze(1), -torch.inf)
        read = scores.softmax(-1).to(v.dtype) @ v
        return self.out_proj(read.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    def __init__(self, width: int, norm: bool) -> None:
        super().__init__()
        self.cross_attn = Attention(width)
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()

    def forward(
        self, x: Tensor, place: Tensor, seen: Tensor, seen_place: Tensor, blocked: Tensor | None
    ) -> Tensor:
        """x looks at what is seen; the residual is the normalised x."""
        x = self.norm(x)
        return x + self.cross_attn(x + place, seen + seen_place, seen, blocked)


class SelfAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.self_attn = Attention(width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, place: Tensor) -> Tensor:
        x = self.norm(x)
        return x + self.self_attn(x + place, x + place, x)


class FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, 8 * width)
        self.linear2 = nn.Linear(8 * width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear2(F.relu(self.linear1(self.norm(x))))


class PixelFeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = CAResBlock(width)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.read_from_pixel = CrossAttention(width, norm=True)
        self.self_attn = SelfAttention(width)
        self.ffn = FeedForward(width)
        self.read_from_query = CrossAttention(width, norm=False)
        self.pixel_ffn = PixelFeedForward(width)

    def forward(
        self, query: Tensor, pixel: Tensor, query_place: Tensor, pixel_place: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """query [R, Q, C], pixel [R, C, h, w]; their places [R, Q, C] and [R, hw, C]."""
        tokens = pixel.flatten(2).transpose(1, 2)
        query = self.read_from_pixel(query, query_place, tokens, pixel_place, mask)
        query = self.ffn(self.self_attn(query, query_place))
        tokens = self.read_from_query(tokens, pixel_place, query, query_place, None)
        return query, self.pixel_ffn.conv(tokens.transpose(1, 2).reshape(pixel.shape))


class ObjectTransformer(nn.Module):
    def __init__(self, width: int, queries: int, blocks: int = BLOCKS) -> None:
        super().__init__()
        self.queries = queries
        self.query_init = nn.Embedding(queries, width)
        self.query_emb = nn.Embedding(queries, width)
        self.summary_to_query_init = nn.Linear(width, width)
        self.summary_to_query_emb = nn.Linear(width, width)
        self.pixel_init_proj = nn.Conv2d(width, width, 1)
        self.pixel_emb_proj = nn.Conv2d(width, width, 1)
        self.spatial_pe = PositionalEncoding(width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.mask_pred = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Conv2d(width, 1, 1)) for _ in range(blocks + 1)
        )

    def forward(
        self,
        pixel: Tensor,
        object_memory: Tensor,
        objects: int,
        present: Tensor | None = None,
        last_mask: bool = False,
    ) -> tuple[Tensor, list[Tensor]]:
        """pixel [B*K, C, h, w] and object_memory [B*K, Q, C+1] -> pixel, and the logits
        [B, K, h, w] of the masks that the blocks were guided by.

        objects: K. present: float [B, K], 0 where a slot holds no object. last_mask: with the mask
        after the last block, which nothing is guided by, for the auxiliary loss.
        """
        summary = (object_memory[..., :-1] / (object_memory[..., -1:] + 1e-4)).to(pixel.dtype)
        query = self.query_init.weight + self.summary_to_query_init(summary)
        query_place = self.query_emb.weight + self.summary_to_query_emb(summary)
        place = self.spatial_pe(pixel).flatten(0, 1).to(pixel.dtype)
        pixel_place = self.pixel_emb_proj(pixel).flatten(2).transpose(1, 2) + place
        pixel = self.pixel_init_proj(pixel)
        logits = [self._mask(0, pixel, objects)]
        for index, block in enumerate(self.blocks):
            blocked = self.blocked(logits[-1], present)
            query, pixel = block(query, pixel, query_place, pixel_place, blocked)
            if last_mask or index + 1 < len(self.blocks):
                logits.append(self._mask(index + 1, pixel, objects))
        return pixel, logits

    def _mask(self, index: int, pixel: Tensor, objects: int) -> Tensor:
        return self.mask_pred[index](pixel)[:, 0].unflatten(0, (-1, objects)).float()

    def blocked(self, logits: Tensor, present: Tensor | None = None) -> Tensor:
        """Which pixels a query does not look at, bool [B*K, Q, hw], by logits [B, K, h, w].

        The first half of the queries looks where the object wins, the other half elsewhere; a
        query with nothing to look at looks everywhere.
        """
        probabilities = logits.sigmoid()
        if present is not None:
            probabilities = probabilities * present[..., None, None]
        slots = soft_aggregate(probabilities)
        foreground = (slots[:, 1:] >= slots.amax(1, keepdim=True)).flatten(0, 1).flatten(1)
        sides = torch.stack([~foreground, foreground], 1)  # [B*K, 2, hw]
        sides = sides & ~sides.all(-1, keepdim=True)
        half = self.queries // 2
        return sides.unsqueeze(2).expand(-1, -1, half, -1).flatten(1, 2)
