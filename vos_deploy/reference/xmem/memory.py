"""XMem's feature memory as released: working memory, consolidation into long-term memory, eviction.

Tokens are rows: keys [N, Ck], shrinkage [N], values [N, G, Cv] of a group of G objects.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import InputError
from ...models.anisotropic import anisotropic_similarity, top_k_weights

FRESH = 1e-7  # the age of a new token, in reads


@dataclass
class Tokens:
    """What is held of each token, whatever the objects."""

    key: Tensor  # [N, Ck]
    shrinkage: Tensor  # [N]
    selection: Tensor  # [N, Ck]; unused in long-term memory
    use: Tensor  # [N], how much of it was read so far
    life: Tensor  # [N], in how many reads

    @classmethod
    def new(cls, key: Tensor, shrinkage: Tensor, selection: Tensor) -> Tokens:
        zero = torch.zeros_like(shrinkage)
        return cls(key, shrinkage, selection, zero, zero + FRESH)

    @property
    def usage(self) -> Tensor:
        return self.use / self.life

    def take(self, index: Tensor) -> Tokens:
        parts = (self.key, self.shrinkage, self.selection, self.use, self.life)
        return Tokens(*(part[index] for part in parts))

    def __add__(self, other: Tokens) -> Tokens:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Tokens(*(torch.cat(pair) for pair in pairs))

    def __len__(self) -> int:
        return len(self.key)


@dataclass(frozen=True)
class LongTerm:
    """When working memory is consolidated (it is full at `most` frames and goes on with `fewest`),
    into how many prototypes each time, and the most tokens that long-term memory holds."""

    fewest: int
    most: int
    prototypes: int
    tokens: int


class Memory:
    """One set of tokens, and the values of one group of objects or of several.

    A group's values belong to the last tokens of working and of long-term memory: so objects that
    appear later share the keys of those before them. After a consolidation that no longer holds
    for them (the official code does not see to it): a memory of one group is always right.
    """

    def __init__(self, long_term: LongTerm | None, limit: int | None, top_k: int | None) -> None:
        """limit: the most working memory frames where there is no long-term memory."""
        self.long_term, self.limit, self.top_k = long_term, limit, top_k
        self.work: Tokens | None = None
        self.values: list[Tensor] = []
        self.long: Tokens | None = None
        self.long_values: list[Tensor] = []
        self.hw = 0
        self.events: list[dict[str, Tensor]] = []  # of consolidations and evictions, for tests

    def read(self, key: Tensor, selection: Tensor) -> list[Tensor]:
        """Readouts [hw, G, Cv] by group, for queries [hw, Ck]; counts what the first one read."""
        assert self.work is not None
        stores = [s for s in (self.long, self.work) if s is not None]
        scores = torch.cat(
            [anisotropic_similarity(s.key, s.shrinkage[:, None], key, selection) for s in stores], 1
        )
        length, readouts = len(scores[0]) - len(self.work), []
        for group, values in enumerate(self.values):
            held = self.long_values[group : group + 1]
            rows = torch.cat([*held, values])
            first = length - sum(map(len, held))
            end = length + len(self.work)
            own = torch.cat([scores[:, first:length], scores[:, end - len(values) : end]], 1)
            weights = top_k_weights(own, self.top_k)
            readouts.append((weights @ rows.flatten(1)).unflatten(1, rows.shape[1:]))
            if group == 0:
                for store, used in zip(
                    stores, weights.sum(0).split([len(s) for s in stores]), strict=True
                ):
                    store.use = store.use + used
                    store.life = store.life + 1
        return readouts

    def undo(self, before: list[Tokens]) -> None:
        """Forget the counts of the last read; `before` is what `counts` gave before it."""
        for store, old in zip((s for s in (self.long, self.work) if s), before, strict=True):
            store.use, store.life = old.use, old.life

    def counts(self) -> list[Tokens]:
        stores = [s for s in (self.long, self.work) if s is not None]
        return [Tokens(s.key, s.shrinkage, s.selection, s.use, s.life) for s in stores]

    def add(self, tokens: Tokens, values: list[Tensor]) -> None:
        """Take in a frame; `values` are of all groups, a new one the last."""
        self.hw = len(tokens)
        self.work = tokens if self.work is None else self.work + tokens
        self.values = [
            torch.cat([*self.values[i : i + 1], value]) for i, value in enumerate(values)
        ]
        if self.long_term is None:
            if self.limit is not None and len(self.work) > self.limit * self.hw:
                first = min(self.limit - 1, 1)
                self._drop(slice(first * self.hw, (first + 1) * self.hw))
        elif len(self.work) >= self.long_term.most * self.hw:
            if self.long is not None:
                self.evict()
            self.consolidate()

    def _drop(self, gone: slice) -> None:
        assert self.work is not None and len(self.values) == 1
        self.work = self.work.take(_without(len(self.work), gone, self.work.key.device))
        self.values = [v[_without(len(v), gone, v.device)] for v in self.values]

    def consolidate(self) -> None:
        """Turn all working memory frames but the first and the newest into prototypes."""
        assert self.work is not None and self.long_term is not None
        fewest, total = self.long_term.fewest, len(self.work)
        device = self.work.key.device
        gone = slice(self.hw, total - (fewest - 1) * self.hw)
        candidates = self.work.take(torch.arange(total, device=device)[gone])
        count = min(self.long_term.prototypes, len(candidates))
        chosen = candidates.usage.topk(count).indices
        new = candidates.take(chosen)
        new = Tokens.new(new.key, new.shrinkage, new.selection)
        scores = anisotropic_similarity(
            candidates.key, candidates.shrinkage[:, None], new.key, new.selection
        )
        event = {"index": chosen, "usage": candidates.usage, "key": new.key}

        for group, values in enumerate(self.values):
            own = values[self.hw : len(values) - (fewest - 1) * self.hw]
            if len(values) != total and len(values) <= (fewest + 1) * self.hw:
                own = values[:0]
            valid = chosen >= len(candidates) - len(own)
            if len(own) and valid.any():
                weights = top_k_weights(scores[valid][:, len(candidates) - len(own) :], None)
                prototypes = (weights @ own.flatten(1)).unflatten(1, own.shape[1:])
                self.long_values[group : group + 1] = [
                    torch.cat([*self.long_values[group : group + 1], prototypes])
                ]
                event[f"value{group}"] = prototypes
                if group == 0:
                    new.shrinkage = weights @ candidates.shrinkage
            if len(values) >= (fewest + 1) * self.hw:
                kept = slice(self.hw, len(values) - (fewest - 1) * self.hw)
                self.values[group] = values[_without(len(values), kept, device)]
        event["shrinkage"] = new.shrinkage
        self.events.append(event)
        self.work = self.work.take(_without(total, gone, device))
        self.long = new if self.long is None else self.long + new

    def evict(self) -> None:
        """Make room in long-term memory for the next prototypes: the least used tokens go."""
        assert self.long is not None and self.long_term is not None
        room = self.long_term.tokens - self.long_term.prototypes
        if len(self.long) <= room:
            return
        if len(self.long_values) > 1:
            raise InputError(
                "the released loop cannot evict from a long-term memory of objects that appeared "
                "in different frames: raise long_term_tokens, or use late_objects='corrected'"
            )
        usage = self.long.usage
        threshold = usage.sort().values[len(usage) - room - 1]
        survivors = (usage > threshold).nonzero().squeeze(1)
        self.events.append({"survivors": survivors})
        self.long = self.long.take(survivors)
        self.long_values = [values[survivors] for values in self.long_values]


def _without(length: int, gone: slice, device: torch.device) -> Tensor:
    kept = torch.ones(length, dtype=torch.bool, device=device)
    kept[gone] = False
    return kept.nonzero().squeeze(1)
