"""What the names of dimensions mean for a plan."""

from __future__ import annotations

import pytest

from vos_deploy.bundle import Bundle, Graph, TensorSpec
from vos_deploy.errors import InputError, ModelError
from vos_deploy.runtime.engines.profiles import (
    Limits,
    dimension_ranges,
    fixed_to,
    frame_dimensions,
    parse_range,
    shape_profile,
    value_profile,
)

LIMITS = Limits((480, 854), 4, 20, 16, {})


def test_dimensions_of_a_frame_are_those_of_the_padded_one():
    sides = frame_dimensions((480, 854), 16)
    assert (sides["H"], sides["W"], sides["H16"], sides["W16"]) == (480, 854, 480, 864)
    assert (sides["h"], sides["w"], sides["hw"]) == (30, 54, 1620)
    assert (sides["h8"], sides["w8"], sides["h4"], sides["w4"]) == (60, 108, 120, 216)


def test_dimensions_of_a_frame_that_is_not_padded():
    sides = frame_dimensions((33, 70), 1)
    assert (sides["h"], sides["w"], sides["h8"], sides["w8"]) == (3, 5, 5, 9)


def test_ranges():
    ranges = dimension_ranges(LIMITS)
    assert ranges["K"] == ranges["G"] == (1, 2, 4)
    assert ranges["1+K"] == (2, 3, 5)
    assert ranges["N"] == (1620, 8100, 32400)
    assert ranges["S"] == (1, 5, 20)


def test_ranges_of_little_room_still_rise():
    ranges = dimension_ranges(Limits((64, 96), 1, 2, 16, {}))
    assert ranges["K"] == (1, 1, 1)
    assert ranges["N"] == (24, 48, 48)


def test_ranges_may_be_overruled():
    limits = Limits((480, 854), 4, 20, 16, {"N": (1, 2, 3), "P": (4, 5, 6)})
    assert dimension_ranges(limits)["N"] == (1, 2, 3)
    spec = TensorSpec("points", "float32", ("P", 2))
    assert shape_profile(spec, dimension_ranges(limits)) == ((4, 2), (5, 2), (6, 2))


def test_size_is_put_into_the_shapes_and_the_rest_keeps_its_names():
    graph = Graph(
        (TensorSpec("masks", "float32", ("K", "H", "W")),),
        (TensorSpec("memory_key", "float16", ("K", "hw", 128)),),
    )
    fixed = fixed_to(Bundle("stm", "fp16", {"memorize": graph}), LIMITS)["memorize"]
    assert fixed.inputs[0].shape == ("K", 480, 854)
    assert fixed.outputs[0].shape == ("K", 1620, 128)


def test_profiles_of_shapes():
    ranges = dimension_ranges(LIMITS)
    memory = TensorSpec("memory_value", "float16", ("N", "G", 512))
    assert shape_profile(memory, ranges) == ((1620, 1, 512), (8100, 2, 512), (32400, 4, 512))
    assert shape_profile(TensorSpec("image", "uint8", (480, 854, 3)), ranges) is None


def test_profiles_of_values():
    top_k = TensorSpec("top_k", "int64", (1,))
    assert value_profile(top_k, {}) == ((1,), (50,), (128,))
    assert value_profile(top_k, {"top_k": (1, 20, 100)}) == ((1,), (20,), (100,))


def test_names_that_say_nothing():
    with pytest.raises(ModelError, match=r"dimension 'Q'.*--range Q=MIN,USUAL,MAX"):
        shape_profile(TensorSpec("x", "float32", ("Q",)), dimension_ranges(LIMITS))
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
