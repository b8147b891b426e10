"""What the names of dimensions mean for a plan."""

from __future__ import annotations

import pytest

from vos_deploy.bundle import Graph, TensorSpec
from vos_deploy.errors import InputError, ModelError
from vos_deploy.runtime.backends.tensorrt.profiles import (
    Limits,
    dimension_ranges,
    parse_range,
    shape_profile,
    value_profile,
    with_sides,
)

LIMITS = Limits((480, 854), 4, 20, {})


def test_ranges():
    ranges = dimension_ranges(LIMITS)
    assert ranges["K"] == ranges["G"] == (1, 2, 4)
    assert ranges["1+K"] == (2, 3, 5)
    assert ranges["N"] == (1620, 8100, 32400)
    assert ranges["S"] == (1, 5, 20)
    assert ranges["Q"] == (1, 405, 1620)
    assert ranges["R"] == (1, 2025, 32400)


def test_ranges_of_little_room_still_rise():
    ranges = dimension_ranges(Limits((64, 96), 1, 2, {}))
    assert ranges["K"] == (1, 1, 1)
    assert ranges["N"] == (24, 48, 48)


def test_ranges_may_be_overruled():
    limits = Limits((480, 854), 4, 20, {"N": (1, 2, 3), "P": (4, 5, 6)})
    assert dimension_ranges(limits)["N"] == (1, 2, 3)
    spec = TensorSpec("points", "float32", ("P", 2))
    assert shape_profile(spec, dimension_ranges(limits)) == ((4, 2), (5, 2), (6, 2))


def test_size_is_put_into_the_shapes_and_the_rest_keeps_its_names():
    graph = Graph(
        (TensorSpec("masks", "float32", ("K", "H", "W")),),
        (TensorSpec("memory_key", "float16", ("K", "hw", 128)),),
    )
    fixed = with_sides({"memorize": graph}, {"H": 480, "W": 854, "hw": 1620})["memorize"]
    assert fixed.inputs[0].shape == ("K", 480, 854)
    assert fixed.outputs[0].shape == ("K", 1620, 128)


def test_profiles_of_shapes():
    ranges = dimension_ranges(LIMITS)
    memory = TensorSpec("memory_value", "float16", ("N", "G", 512))
    assert shape_profile(memory, ranges) == ((1620, 1, 512), (8100, 2, 512), (32400, 4, 512))
    assert shape_profile(TensorSpec("image", "uint8", (480, 854, 3)), ranges) is None


def test_profiles_of_values():
    top_k = TensorSpec("top_k", "int64", (1,))
    assert value_profile(top_k, {}) == ((1,), (20,), (50,))
    assert value_profile(top_k, {"top_k": (1, 20, 100)}) == ((1,), (20,), (100,))


def test_names_that_say_nothing():
    with pytest.raises(ModelError, match=r"dimension 'X'.*--range X=MIN,USUAL,MAX"):
        shape_profile(TensorSpec("x", "float32", ("X",)), dimension_ranges(LIMITS))
    with pytest.raises(ModelError, match=r"'steps' decides on shapes.*--range steps=MIN,USUAL,MAX"):
        value_profile(TensorSpec("steps", "int64", (1,)), {})


def test_range_of_the_command_line():
    assert parse_range("top_k=1,20,100") == ("top_k", (1, 20, 100))


@pytest.mark.parametrize(
    "text", ["top_k", "top_k=1,2", "=1,2,3", "a=1,b,3", "a=0,1,2", "a=3,2,1", "a=1,2,3,4"]
)
def test_range_that_is_none(text):
    with pytest.raises(InputError, match="expected NAME=MIN,USUAL,MAX"):
        parse_range(text)
