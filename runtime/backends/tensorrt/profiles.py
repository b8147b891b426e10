"""Optimisation profiles: which shapes the engines of a plan are built for.

Everything is read from the manifest, by the names that graphs declare their dimensions with:

    K, G, 1+K       objects, objects that share a memory, objects and background
    N               memory tokens: those of 1 to the most memory frames
    M, P            memory tokens and prototypes of long-term memory together; new prototypes
    S               memory frames chosen among those held
    Q, R            tokens of the frame and of the memory inside the boxes of an object
    B               frames of several streams, in an encoder that was exported with --batch
    H, W            the frame, of one size per plan; other names are sides that follow from it

TensorRT tunes a profile for one size and runs others slower, and reserves memory for the largest; a
plan for the size that is used costs nothing of that.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import ceil

from vos_deploy.bundle import Graph, TensorSpec
from vos_deploy.errors import InputError, ModelError
from vos_deploy.frames import Size
from vos_deploy.manifest import Profile

# Of the features that are tokens of the memory.
STRIDE = 16

# Smallest, usual and largest.
Range = tuple[int, int, int]

# The most prototypes that long-term memory holds, and that join it at once.
PROTOTYPES = 10_000, 128

# Frames of several streams at once.
BATCH: Range = (1, 4, 8)

# Inputs whose value decides on shapes, by name.
VALUES: dict[str, Range] = {"top_k": (1, 20, 50)}


@dataclass(frozen=True)
class Limits:
    """What a plan has room for.

    ranges: of single dimensions or values by name, for whoever knows better than the table.
    """

    size: Size
    max_objects: int
    memory_frames: int
    ranges: Mapping[str, Range] = field(default_factory=dict)


def dimension_ranges(limits: Limits) -> dict[str, Range]:
    """The dimensions that vary within a plan, by name."""
    height, width = (ceil(side / STRIDE) for side in limits.size)
    tokens = height * width
    objects = (1, min(2, limits.max_objects), limits.max_objects)
    frames = (1, min(5, limits.memory_frames), limits.memory_frames)
    smallest, usual, largest = frames
    return {
        "B": BATCH,
        "K": objects,
        "G": objects,
        "1+K": (2, 1 + objects[1], 1 + objects[2]),
        "N": (tokens * smallest, tokens * usual, tokens * largest),
        "M": (tokens * smallest, tokens * usual, tokens * largest + PROTOTYPES[0]),
        "P": (1, PROTOTYPES[1], PROTOTYPES[1]),
        "S": frames,
        "Q": (1, ceil(tokens / 4), tokens),
        "R": (1, ceil(tokens * usual / 4), tokens * largest),
        **limits.ranges,
    }


def with_sides(graphs: Mapping[str, Graph], sides: Mapping[str, int]) -> dict[str, Graph]:
    """The graphs with sides of the frame put into their shapes; other dimensions keep their
    names."""

    def fixed(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        return tuple(
            replace(spec, shape=tuple(sides.get(str(d), d) for d in spec.shape)) for spec in specs
        )

    return {
        name: replace(graph, inputs=fixed(graph.inputs), outputs=fixed(graph.outputs))
        for name, graph in graphs.items()
    }


def names(specs: Iterable[TensorSpec]) -> set[str]:
    """The dimensions that go by a name."""
    return {side for spec in specs for side in spec.shape if isinstance(side, str)}


def shape_profile(spec: TensorSpec, ranges: Mapping[str, Range]) -> Profile | None:
    """What the shape of an input may be; None if it does not vary.

    Raises ModelError for a dimension whose name says nothing to this version.
    """
    if not any(isinstance(side, str) for side in spec.shape):
        return None
    for side in spec.shape:
        if isinstance(side, str) and side not in ranges:
            raise ModelError(
                f"input {spec.name!r} has a dimension {side!r}, and this version knows "
                f"{', '.join(ranges)}; say what it may be with: --range {side}=MIN,USUAL,MAX"
            )
    low, usual, high = (
        tuple(ranges[side][i] if isinstance(side, str) else side for side in spec.shape)
        for i in range(3)
    )
    return low, usual, high


def value_profile(spec: TensorSpec, ranges: Mapping[str, Range]) -> Profile:
    """What the values of an input may be that decides on shapes.

    Raises ModelError for an input whose name says nothing to this version.
    """
    known = {**VALUES, **ranges}
    if spec.name not in known:
        raise ModelError(
            f"the value of input {spec.name!r} decides on shapes, and this version does not know "
            f"what it may be; say so with: --range {spec.name}=MIN,USUAL,MAX"
        )
    length = 1
    for side in spec.shape:
        length *= int(side)
    low, usual, high = ((value,) * length for value in known[spec.name])
    return low, usual, high


def parse_range(text: str) -> tuple[str, Range]:
    """`NAME=MIN,USUAL,MAX`. Raises InputError for anything else."""
    name, _, values = text.partition("=")
    try:
        low, usual, high = (int(value) for value in values.split(","))
    except ValueError:
        low, usual, high = 0, 0, 0
    if not name or not 1 <= low <= usual <= high:
        raise InputError(
            f"--range {text}: expected NAME=MIN,USUAL,MAX, rising numbers from 1 up, such as "
            "top_k=1,20,100"
        )
    return name, (low, usual, high)
