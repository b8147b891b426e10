"""Reuse-VOS (G-FRTM): Learning Dynamic Network Using a Reuse Gate Function in Semi-supervised
Video Object Segmentation (Park et al., CVPR 2021)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vos_deploy.bundle import Bundle
from vos_deploy.errors import InputError
from vos_deploy.options import Options
from vos_deploy.padding import grid_size

from ...backends import Array, Backend
from ...blas import one_blas_thread
from ...focus import Move
from ...memory.bank import MemoryPolicy, MemoryState
from ..base import Tracker
from .followed import Followed
from .options import GFRTMOptions
from .target import FAST, SLOW, TargetModel, initial_weights
from .target.augment import PAINTED, augment
from .target.samples import nbytes_of
from .target.stencil import Float

# The logit of an object that has no pixel to be learned from: it is nowhere.
NOWHERE = -100.0


class GFRTM(Tracker):
    """Every object has a target model, which scores the deep features of a frame, and a gate.

    The gate compares the shallow features of a frame with the object's template and last score,
    and decides whether the deep half of the decoder is computed for this object or taken over from
    the last frame for which it was, adapted to the change that the gate sees. When all objects
    reuse, the deep half of the trunk is not run.

    Memory: the samples that a target model is updated on. The annotated frame and four frames
    painted from it come first, then every computed frame with its mask; when the memory is full,
    the oldest sample goes, the annotated frame among them in the end.

    Below, h x w is the feature grid at stride 16 and hw = h * w.

    draw_weights, augment: where a target model starts, and what is painted from its first frame;
        to be replaced by whoever wants other draws.
    """

    graphs = (
        *("f8", "f32", "template", "gate", "score"),
        *("decode_deep", "decode_reuse", "decode_shallow", "merge"),
    )
    grows = False
    policies = ()
    option_type = GFRTMOptions
    state = (*Tracker.state, "objects", "_reused", "_segmented")
    options: GFRTMOptions

    def __init__(
        self, backend: Backend, size: tuple[int, int], policy: MemoryPolicy, options: GFRTMOptions
    ) -> None:
        super().__init__(backend, size, policy, options)
        assert policy.frames is not None  # `check` has seen to it
        self._capacity = policy.frames
        self._schedule = FAST if options.fast else SLOW
        self.draw_weights = initial_weights
        self.augment = augment
        self.objects: list[Followed] = []
        self._reused = self._segmented = 0
        at_4, at_8, at_16, at_32 = (
            grid_size(size, stride, padded_to=1) for stride in (4, 8, 16, 32)
        )
        self.grid, self._grid_8 = at_16, at_8
        self._shallow = {
            name: self._output("f8", name, (1, None, *grid))
            for name, grid in {
                **dict.fromkeys(("layer3", "match", "skip8"), at_8),
                "skip4": at_4,
            }.items()
        }
        self._deep = {
            name: self._output("f32", name, (1, None, *grid))
            for name, grid in {"layer4": at_16, "skip16": at_16, "skip32": at_32}.items()
        }
        self._deep["context"] = self._output("f32", "context", (1, None, 1, 1))
        self._gate = self._output("gate", "gate", (1, 2))
        self._diff = self._output("gate", "diff", (1, 1, *self.grid))
        self._now = {
            "score": self._output("decode_reuse", "reused_score", (1, 1, *self.grid)),
            "deep": self._output("decode_reuse", "reused_deep", (1, None, *self.grid)),
        }
        self._mask_8 = backend.empty((1, 1, *at_8), np.float32)
        self._image = backend.empty((*size, 3), np.uint8)
        # Do the features held belong to `image`?
        self._has_shallow = self._has_deep = False

    @classmethod
    def check(cls, bundle: Bundle, policy: MemoryPolicy, options: Options) -> None:
        if policy.frames is None or policy.frames < PAINTED + 2:
            raise InputError(
                "the target models of gfrtm learn from a limited number of samples: give "
                f"memory_frames a number from {PAINTED + 2} on, or leave it out"
            )

    @property
    def memory(self) -> MemoryState:
        return self._memory(self.objects)

    @property
    def host_bytes(self) -> int:
        return sum(
            nbytes_of(self._capacity, self.grid, followed.project.shape[0])
            for followed in self.objects
        )

    @property
    def statistics(self) -> dict[str, float]:
        """reuse rate: the share of the masks predicted so far for which the deep half was taken
        over, counting every object in every frame."""
        return {"reuse rate": self._reused / self._segmented} if self._segmented else {}

    def add(self) -> None:
        channels = self._deep["layer4"].shape[1]
        projected = self._output("score", "projected", (self.grid[0] * self.grid[1], None))
        middle = projected.shape[1]
        self.objects.append(
            Followed(
                template=self._output("template", "template", (1, None, None)),
                score=self._output("score", "score", (1, 1, *self.grid)),
                deep=self._output("decode_deep", "deep", (1, None, *self.grid)),
                project=self.backend.empty((middle, channels), np.float32),
                kernel=self.backend.empty((9, middle), np.float32),
                projected=projected,
                new_target=lambda: self._target(
                    (np.zeros((middle, channels)), np.zeros((9, middle)))
                ),
            )
        )

    def drop(self, slot: int) -> None:
        del self.objects[slot - 1]

    def move(self, move: Move) -> None:
        super().move(move)
        for followed in self.objects:
            for maps in (followed.score, followed.deep):
                self._moved(move, maps)

    def detach(self, slot: int) -> tuple[Any, MemoryState]:
        followed = self.objects.pop(slot - 1)
        return followed, self._memory([followed])

    def attach(self, memory: Any) -> None:
        self.objects.append(memory)

    def allocate(self) -> None:
        super().allocate()
        self.logits = self.backend.empty((self.num_objects, *self.size), np.float32)

    def memorize(self) -> None:
        drawn = [slot for slot, given in enumerate(self.annotated, start=1) if given]
        masks = {slot: self._mask(slot) > 0.5 for slot in drawn}
        # Nothing can be learned from an object that has no pixel at the working size.
        masks = {slot: mask for slot, mask in masks.items() if mask.any()}
        new = [slot for slot in masks if self.objects[slot - 1].target is None]
        painted = {slot: self._paint(masks[slot]) for slot in new}  # runs over other images
        if masks:
            self._encode_shallow()
            self._encode_deep()
        for slot, mask in masks.items():
            followed = self.objects[slot - 1]
            if slot in new:
                self._start(followed, mask, *painted[slot])
            else:
                self._correct(followed, mask)
            self._take_over(followed, mask)
        for slot, followed in enumerate(self.objects, start=1):
            if followed.computed and not self.annotated[slot - 1]:
                self._learn_from(followed, self._mask(slot))

    def segment(self) -> None:
        self._has_shallow = self._has_deep = False
        self._encode_shallow()
        for index, followed in enumerate(self.objects):
            logits = self.logits[index : index + 1]
            followed.computed = False
            if followed.target is None:
                self.backend.upload(np.full(logits.shape, NOWHERE, np.float32), logits)
                continue
            now = self._reuse(followed) if self._reuses(followed) else self._compute(followed)
            skips = {name: self._shallow[name] for name in ("skip8", "skip4")}
            # The image tells the decoder the size of the mask.
            inputs = {**now, **skips, "image": self.image}
            self.backend.run("decode_shallow", inputs, {"logits": logits})
        outputs = {"probabilities": self.probabilities, "labels": self.labels}
        self.backend.run("merge", {"logits": self.logits}, outputs)

    def _memory(self, objects: Sequence[Followed]) -> MemoryState:
        held = [x.target.samples for x in objects if x.target is not None]
        frames, size = (sum(getattr(x, name) for x in held) for name in ("count", "nbytes"))
        return MemoryState(frames, self._capacity * len(objects), size, "oldest")

    def _reuses(self, followed: Followed) -> bool:
        inputs = {
            "match": self._shallow["match"],
            "score": followed.score,
            "template": followed.template,
        }
        self.backend.run("gate", inputs, {"gate": self._gate, "diff": self._diff})
        reuse = bool(self.backend.download(self._gate)[0, 0] > self.options.reuse_threshold)
        self._segmented += 1
        self._reused += reuse
        return reuse

    def _reuse(self, followed: Followed) -> dict[str, Array]:
        inputs = {"deep": followed.deep, "score": followed.score, "diff": self._diff}
        outputs = {"reused_deep": self._now["deep"], "reused_score": self._now["score"]}
        self.backend.run("decode_reuse", inputs, outputs)
        return self._now

    def _compute(self, followed: Followed) -> dict[str, Array]:
        self._encode_deep()
        self._score(followed, followed.score)
        self._decode_deep(followed, followed.score)
        followed.computed = True
        followed.evaluations += 1
        return {"score": followed.score, "deep": followed.deep}

    def _start(
        self,
        followed: Followed,
        mask: NDArray[np.bool_],
        features: list[NDArray[Any]],
        labels: list[NDArray[np.bool_]],
    ) -> None:
        """Learn an object from the frame its mask was drawn in."""
        channels, middle = followed.project.shape[1], followed.project.shape[0]
        slot = self.objects.index(followed) + 1
        with self._timed("fit"):
            target = self._target(self.draw_weights(slot, channels, middle))
            target.learn([self._features(), *features], [mask, *labels])
        followed.target, followed.evaluations = target, 1
        self.backend.upload(target.project.astype(np.float32), followed.project)
        self.backend.upload(target.kernel.astype(np.float32), followed.kernel)
        self.backend.upload(nearest(mask, self._grid_8), self._mask_8)
        inputs = {"layer3": self._shallow["layer3"], "mask": self._mask_8}
        self.backend.run("template", inputs, {"template": followed.template})

    def _target(self, weights: tuple[Float, Float]) -> TargetModel:
        return TargetModel(weights, self.grid, self._capacity, self._schedule)

    def _correct(self, followed: Followed, mask: NDArray[np.bool_]) -> None:
        """Learn from a mask that was drawn later."""
        assert followed.target is not None
        self._score(followed, self._now["score"])
        with self._timed("update"), one_blas_thread():
            projected = self.backend.read(followed.projected)
            if followed.target.insert(projected, mask.astype(np.float32)):
                followed.target.update()
        self.backend.upload(followed.target.kernel.astype(np.float32), followed.kernel)

    def _take_over(self, followed: Followed, mask: NDArray[np.bool_]) -> None:
        """Reusing starts from the drawn mask, and from the deep half that its score decodes to."""
        self._score(followed, self._now["score"])
        self._decode_deep(followed, self._now["score"])
        self.backend.upload(nearest(mask, self.grid), followed.score)

    def _learn_from(self, followed: Followed, mask: NDArray[np.float32]) -> None:
        """A computed frame becomes a sample, and after every so many the target model learns."""
        assert followed.target is not None
        if not self.policy.is_regular(self.frame):
            return
        with self._timed("update"), one_blas_thread():
            inserted = followed.target.insert(self.backend.read(followed.projected), mask)
            if not inserted or followed.evaluations % self.options.update_every:
                return
            followed.target.update()
        self.backend.upload(followed.target.kernel.astype(np.float32), followed.kernel)

    def _paint(self, mask: NDArray[np.bool_]) -> tuple[list[NDArray[Any]], list[NDArray[np.bool_]]]:
        """Deep features and masks of what is painted from the current frame."""
        with self._timed("augment"):
            images, labels = self.augment(self.backend.download(self.image), mask)
        features = []
        for image in images[1:]:
            self.backend.upload(image, self._image)
            self.backend.run("f8", {"image": self._image}, self._shallow)
            self.backend.run("f32", {"layer3": self._shallow["layer3"]}, self._deep)
            features.append(self._features())
            self._has_shallow = self._has_deep = False
        return features, labels[1:]

    def _encode_shallow(self) -> None:
        if not self._has_shallow:
            self.backend.run("f8", {"image": self.image}, self._shallow)
            self._has_shallow = True

    def _encode_deep(self) -> None:
        if not self._has_deep:
            self.backend.run("f32", {"layer3": self._shallow["layer3"]}, self._deep)
            self._has_deep = True

    def _score(self, followed: Followed, score: Array) -> None:
        inputs = {
            "layer4": self._deep["layer4"],
            "project": followed.project,
            "kernel": followed.kernel,
        }
        self.backend.run("score", inputs, {"projected": followed.projected, "score": score})

    def _decode_deep(self, followed: Followed, score: Array) -> None:
        features = {name: self._deep[name] for name in ("skip16", "skip32", "context")}
        self.backend.run("decode_deep", {"score": score, **features}, {"deep": followed.deep})

    def _features(self) -> NDArray[Any]:
        """The deep features held, on the host, [hw, C]."""
        layer4 = self.backend.download(self._deep["layer4"])
        return layer4.reshape(layer4.shape[1], -1).T

    def _mask(self, slot: int) -> NDArray[np.float32]:
        """The estimate of an object, on the host, [H, W], to be read before the next is made."""
        return self.backend.read(self.probabilities[slot])

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        """Counts work on the host among the graphs."""
        started = perf_counter()
        yield
        timings = self.backend.timings
        timings[stage] = timings.get(stage, 0.0) + perf_counter() - started


def nearest(mask: NDArray[np.bool_], grid: tuple[int, int]) -> NDArray[np.float32]:
    """[H, W] -> [1, 1, h, w], each cell the pixel at its upper left corner."""
    rows, columns = (np.arange(n) * side // n for n, side in zip(grid, mask.shape, strict=True))
    return mask[np.ix_(rows, columns)][None, None].astype(np.float32)
