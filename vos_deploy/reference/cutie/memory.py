"""The memory of objects that were marked in the same frame, as Cutie's authors keep it.

B is 1, or 2 with the mirrored frame; K the objects, P the tokens of a frame, N all tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...models.anisotropic import anisotropic_similarity

BORN = 1e-7  # the life of a new token, which its use is divided by


@dataclass(frozen=True)
class LongTerm:
    """working_frames: when the working memory holds as many, all but the first and the newest
    min_frames - 1 become `prototypes` tokens. long_term_tokens: the most that are held of these.
    buffer_tokens: room that is made beyond what is needed when there is none left."""

    working_frames: int = 10
    min_frames: int = 5
    prototypes: int = 128
    long_term_tokens: int = 10_000
    buffer_tokens: int = 2_000


@dataclass
class Tokens:
    """Tokens and how much they were used; only what may become prototypes has a selection."""

    key: Tensor  # [B, N, Ck]
    shrinkage: Tensor  # [B, N, 1]
    value: Tensor  # [B, K, C, N]
    use: Tensor  # [B, N]
    life: Tensor  # [B, N]
    selection: Tensor  # [B, N, Ck]

    @classmethod
    def new(cls, key: Tensor, shrinkage: Tensor, value: Tensor, selection: Tensor) -> Tokens:
        zeros = torch.zeros_like(shrinkage[..., 0])
        return cls(key, shrinkage, value, zeros, zeros + BORN, selection)

    def __len__(self) -> int:
        return self.key.shape[1]

    def joined(self, other: Tokens) -> Tokens:
        pairs = zip(vars(self).items(), vars(other).values(), strict=True)
        return Tokens(**{n: torch.cat([a, b], -1 if n == "value" else 1) for (n, a), b in pairs})

    def part(self, tokens: slice) -> Tokens:
        cut = {n: x[..., tokens] if n == "value" else x[:, tokens] for n, x in vars(self).items()}
        return Tokens(**cut)

    def chosen(self, index: Tensor) -> Tokens:
        """The tokens index [B, n] of each item of the batch."""
        rows = [
            {
                name: x[b : b + 1, ..., index[b]] if name == "value" else x[b : b + 1, index[b]]
                for name, x in vars(self).items()
            }
            for b in range(len(index))
        ]
        return Tokens(**{name: torch.cat([row[name] for row in rows]) for name in rows[0]})

    def best(self, count: int) -> Tensor:
        """The tokens that were used most for their age, int64 [B, count], best first."""
        return (self.use / self.life).topk(count).indices

    def used(self, usage: Tensor) -> None:
        self.use, self.life = self.use + usage, self.life + 1


class Bucket:
    """permanent: what always stays. temporary: the other memory frames, oldest first. compressed:
    the prototypes, with long-term memory."""

    def __init__(self, limit: int | None, long_term: LongTerm | None) -> None:
        """limit: frames held without long-term memory, the permanent one included."""
        self.limit, self.long_term = limit, long_term
        self.permanent: Tokens | None = None
        self.temporary: Tokens | None = None
        self.compressed: Tokens | None = None
        self.frame_tokens = 0

    @property
    def parts(self) -> list[Tokens]:
        """In the order of the affinity: long-term memory before the working memory."""
        every = (self.compressed, self.permanent, self.temporary)
        return [tokens for tokens in every if tokens is not None]

    def read(self) -> tuple[Tensor, Tensor, Tensor]:
        """Keys [B, N, Ck], shrinkages [B, N, 1] and values [B, K, C, N]."""
        return (
            torch.cat([tokens.key for tokens in self.parts], 1),
            torch.cat([tokens.shrinkage for tokens in self.parts], 1),
            torch.cat([tokens.value for tokens in self.parts], -1),
        )

    def count(self, affinity: Tensor) -> None:
        """Count what was read, affinity [B, P, N]; the permanent tokens need no count."""
        usage = affinity.sum(1).split([len(tokens) for tokens in self.parts], 1)
        for tokens, used in zip(self.parts, usage, strict=True):
            if tokens is not self.permanent:
                tokens.used(used)

    def add(self, frame: Tokens, permanent: bool) -> None:
        self.frame_tokens = self.frame_tokens or len(frame)
        if self.permanent is None:
            self.permanent = frame
        elif permanent:
            self.permanent = frame.joined(self.permanent)
        else:
            old = self.temporary
            self.temporary = frame if old is None else old.joined(frame)
        if self.temporary is None:
            return
        if self.long_term is not None:
            if len(self.temporary) >= (self.long_term.working_frames - 1) * self.frame_tokens:
                self.consolidate(self.long_term)
        elif self.limit is not None:
            kept = (self.limit - 1) * self.frame_tokens
            self.temporary = self.temporary.part(slice(max(0, len(self.temporary) - kept), None))

    def consolidate(self, settings: LongTerm) -> None:
        assert self.temporary is not None
        free = settings.long_term_tokens - settings.prototypes
        if self.compressed is not None and len(self.compressed) >= free:
            best = self.compressed.best(free - settings.buffer_tokens)
            self.compressed = self.compressed.chosen(best)
        newest = len(self.temporary) - (settings.min_frames - 1) * self.frame_tokens
        candidates = self.temporary.part(slice(newest))
        self.temporary = self.temporary.part(slice(newest, None))
        made = prototypes(candidates, settings.prototypes)
        self.compressed = made if self.compressed is None else self.compressed.joined(made)

    def drop(self, index: int) -> None:
        """Forget the object at a position."""
        for tokens in self.parts:
            value = tokens.value
            tokens.value = torch.cat([value[:, :index], value[:, index + 1 :]], 1)


def prototypes(candidates: Tokens, count: int) -> Tokens:
    """The candidates of highest usage, each with the mean of what is like it."""
    chosen = candidates.chosen(candidates.best(count))
    scores = anisotropic_similarity(
        candidates.key, candidates.shrinkage, chosen.key, chosen.selection
    )
    affinity = scores.softmax(-1)  # [B, prototypes, candidates]
    value = candidates.value @ affinity.transpose(1, 2).unsqueeze(1)
    return Tokens.new(chosen.key, affinity @ candidates.shrinkage, value, chosen.selection)
