"""Options as the fields of a frozen dataclass: stated once, with default, help and limits; checked
wherever they are made; spelled the same in Python, on the command line and in files.

    @dataclass(frozen=True)
    class ReadOptions(Options):
        top_k: int = option(40, "memory positions that are read", at_least=1)

    ReadOptions(top_k=0)   # InputError: top_k must be at least 1, got 0
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar

from .errors import InputError

O = TypeVar("O", bound="Options")  # noqa: E741

_KINDS = {
    bool: "True or False",
    int: "an int",
    float: "a number",
    str: "a string",
    Path: "a path",
}


def option(
    default: Any,
    help: str,
    group: str = "",
    *,
    choices: Sequence[str] = (),
    at_least: float | None = None,
    at_most: float | None = None,
    metavar: str | None = None,
    aliases: Mapping[str, str] = types.MappingProxyType({}),
    check: Callable[[Any], None] | None = None,
) -> Any:
    """A field of `Options`.

    Args:
        default: taken as it is, unchecked.
        help: for `--help`.
        group: heading it is listed under.
        choices: the values there are.
        at_least, at_most: bounds of a number, or of each of several.
        metavar: what `--help` calls the value.
        aliases: old spelling -> today's.
        check: raises InputError for a value that will not do; replaces the check of the type, for
            a field whose type is Any.
    """
    return dataclasses.field(
        default=default,
        metadata={
            "help": help,
            "group": group,
            "choices": tuple(choices),
            "at_least": at_least,
            "at_most": at_most,
            "metavar": metavar,
            "aliases": aliases,
            "check": check,
        },
    )


@dataclass(frozen=True)
class Options:
    """Base of all options. Fields are bool, int, float, str, Path, one of these or None, a tuple
    of one of these, or Any with a check of its own.

    Raises InputError for a value that a field does not take. Whole numbers do for float, strings
    for Path, and a single value for a tuple.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            given = getattr(self, field.name)
            if given is not field.default:
                # The only place that may: nobody has seen the object yet.
                object.__setattr__(self, field.name, _checked(type(self), field, given))


def build(
    options: type[O],
    layers: Iterable[tuple[str, Mapping[str, Any]]],
    *,
    unknown: Callable[[str], str] | None = None,
) -> O:
    """Options from layers of (where they come from, values); later layers win.

    unknown: what to say of a name that is no option.

    Raises InputError for a name there is not or a value that its option does not take.
    """
    fields = {field.name: field for field in dataclasses.fields(options)}
    values: dict[str, Any] = {}
    for source, layer in layers:
        try:
            for name, value in layer.items():
                key = name.replace("-", "_")
                if key not in fields:
                    raise InputError(
                        unknown(key)
                        if unknown
                        else f"there is no option {name!r}{did_you_mean(key, fields)}"
                    )
                values[key] = _checked(options, fields[key], value)
        except InputError as error:
            raise InputError(f"{source}: {error}" if source else str(error)) from None
    return options(**values)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?` if a known name is near, else nothing."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {near[0]}?" if near else ""


def kind(options: type[Options], name: str) -> tuple[Any, bool]:
    """Type of one value of an option, and whether it takes several."""
    hint = _hint(options, name)
    if typing.get_origin(hint) is tuple:
        return typing.get_args(hint)[0], True
    if isinstance(hint, types.UnionType):
        return next(t for t in typing.get_args(hint) if t is not type(None)), False
    return hint, False


def _hint(options: type[Options], name: str) -> Any:
    return _hints(typing.cast(Any, options))[name]  # a class is hashable, which mypy doubts


@functools.cache
def _hints(options: type) -> dict[str, Any]:
    return typing.get_type_hints(options)


def flag(options: type[Options], field: dataclasses.Field[Any]) -> tuple[str, dict[str, Any]]:
    """Name and keyword arguments of the `add_argument` of an option, its help apart.

    What is not typed does not appear among the parsed arguments.
    """
    of, several = kind(options, field.name)
    metadata = field.metadata
    details: dict[str, Any] = {"default": argparse.SUPPRESS}
    if of is bool:
        details["action"] = argparse.BooleanOptionalAction
    else:
        aliases = metadata["aliases"]
        if aliases:
            details["type"] = lambda text: aliases.get(text, text)
        else:
            details["type"] = str if of is Any else of
        details["metavar"] = metadata["metavar"]
        if metadata["choices"]:
            details["choices"] = metadata["choices"]
        if several:
            details["nargs"] = "*"
    return "--" + field.name.replace("_", "-"), details


def add_flags(
    parser: argparse.ArgumentParser, options: type[Options], shown: Mapping[str, Any]
) -> None:
    """An argument per option, by groups; `shown` are the values where it is not given."""
    groups: dict[str, Any] = {}
    for field in dataclasses.fields(options):
        group = field.metadata["group"]
        if group not in groups:
            groups[group] = parser.add_argument_group(group)
        default = shown.get(field.name, field.default)
        text = " ".join(map(str, default)) if isinstance(default, tuple | list) else str(default)
        empty = default is None or text == ""
        name, details = flag(options, field)
        help = field.metadata["help"] + ("" if empty else f" (default: {text})")
        groups[group].add_argument(name, help=help, **details)


def _checked(options: type[Options], field: dataclasses.Field[Any], value: Any) -> Any:
    """The value as the field holds it. Raises InputError if it takes no such value."""
    of, several = kind(options, field.name)
    if several:
        listed = value if isinstance(value, list | tuple) else [value]
        return tuple(_checked_single(of, field, item) for item in listed)
    optional = isinstance(_hint(options, field.name), types.UnionType)
    return None if value is None and optional else _checked_single(of, field, value)


def _checked_single(of: Any, field: dataclasses.Field[Any], value: Any) -> Any:
    metadata = field.metadata
    if metadata["check"] is not None:
        metadata["check"](value)
        return value
    value = metadata["aliases"].get(value, value) if isinstance(value, str) else value
    choices, low, high = metadata["choices"], metadata["at_least"], metadata["at_most"]
    if choices and value not in choices:
        raise InputError(f"{field.name} must be one of {', '.join(choices)}, got {value!r}")
    converted = _converted(of, value)
    if converted is None:
        raise InputError(f"{field.name} must be {_KINDS[of]}, got {value!r}")
    # Turned around, so that NaN is refused too.
    if low is not None and not converted >= low:
        raise InputError(f"{field.name} must be at least {low:g}, got {value!r}")
    if high is not None and not converted <= high:
        raise InputError(f"{field.name} must be at most {high:g}, got {value!r}")
    return converted


def _converted(of: Any, value: Any) -> Any:
    """The value as the type asked for; None if it is not of its kind."""
    if of is bool:
        return value if isinstance(value, bool) else None
    if isinstance(value, bool):  # an int to Python, but never a count
        return None
    if of is int:
        return int(value) if isinstance(value, Integral) else None
    if of is float:
        return float(value) if isinstance(value, Real) else None
    if of is Path:
        return Path(value) if isinstance(value, str | Path) else None
    # crop = 384 in a file
    return str(value) if isinstance(value, str | Integral) else None
