"""The options of the methods: one way from what was given to a tracker's options, and the same
names on the command line as in Python."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from vos_deploy.errors import InputError
from vos_deploy.options import Options, build, did_you_mean, flag

from .trackers import Tracker, find_all

# What every method takes: the other arguments of `Segmenter`.
GENERAL = (
    "device", "memory_every", "memory_frames", "memory_policy", "memory_mib", "size", "focus",
    "decode_in_boxes", "threads", "setting",
)  # fmt: skip

Field = dataclasses.Field[Any]


def configure(
    tracker: type[Tracker], given: Mapping[str, Any], setting: str | None = None
) -> tuple[Options, int | None]:
    """The options of a method, and `memory_every` where it was given or the setting says it.

    given: options by name, and perhaps `memory_every`; they override those of the setting.

    Raises InputError for an option or a setting that the method does not have, or a value that an
    option does not take.
    """
    values = {**_setting(tracker, setting), **given}
    every = values.pop("memory_every", None)
    options = build(
        tracker.option_type, [("", values)], unknown=lambda name: _unknown(tracker, name)
    )
    return options, every


def add_method_options(parser: argparse.ArgumentParser) -> None:
    """One argument per option name, grouped by the methods that have it; a method refuses options
    that are not its own."""
    methods = find_all()
    settings = {name: list(tracker.settings) for name, tracker in methods.items()}
    parser.add_argument_group("options of the methods").add_argument(
        "--setting",
        default=argparse.SUPPRESS,
        help="the authors' preset for a data set; explicit options override it ("
        + "; ".join(f"{method}: {', '.join(names)}" for method, names in settings.items() if names)
        + ")",
    )
    groups: dict[str, Any] = {}
    for owners in _by_name().values():
        title = f"options of {', '.join(owners)}"
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        details = [flag(methods[m].option_type, field) for m, field in owners.items()]
        name, arguments = details[0]
        choices = [c for _, other in details for c in other.get("choices", ())]
        if choices:
            arguments["choices"] = tuple(dict.fromkeys(choices))
        groups[title].add_argument(name, help=_help(owners), **arguments)


def given_options(args: argparse.Namespace) -> dict[str, Any]:
    """What was typed of the arguments above, as keyword arguments of `Segmenter`."""
    return {name: getattr(args, name) for name in ("setting", *_by_name()) if hasattr(args, name)}


def _help(owners: Mapping[str, Field]) -> str:
    """What is said, and the default, once for the methods that agree; None is no default."""
    said = {method: field.metadata["help"] for method, field in owners.items()}
    given = {m: str(field.default) for m, field in owners.items() if field.default is not None}
    texts, defaults = _together(said, owners, ": "), ", ".join(_together(given, owners, " "))
    return "; ".join(texts) + (f" (default: {defaults})" if defaults else "")


def _together(by_method: Mapping[str, str], owners: Iterable[str], colon: str) -> list[str]:
    """The different texts, each after the methods it is of; alone if it is that of all owners."""
    methods: dict[str, list[str]] = {}
    for method, text in by_method.items():
        methods.setdefault(text, []).append(method)
    if list(methods.values()) == [[*owners]]:
        return list(methods)
    return [f"{'/'.join(names)}{colon}{text}" for text, names in methods.items()]


def _setting(tracker: type[Tracker], name: str | None) -> Mapping[str, Any]:
    """A preset by name; nothing for None."""
    if name is None:
        return {}
    if name not in tracker.settings:
        raise InputError(
            f"{tracker.__name__} has no setting {name!r}; it has "
            f"{', '.join(tracker.settings) or 'none'}"
        )
    return tracker.settings[name]


def _unknown(tracker: type[Tracker], name: str) -> str:
    owners = _by_name().get(name)
    own = [field.name for field in dataclasses.fields(tracker.option_type)]
    hint = did_you_mean(name, [*GENERAL, *own]) or f"; it has {', '.join(own) or 'none'}"
    if owners:
        hint = f"; it belongs to {', '.join(owners)}"
    return f"{tracker.__name__} has no option {name!r}{hint}"


def _by_name() -> dict[str, dict[str, Field]]:
    """Option name -> the methods that have it, each with its own field."""
    table: dict[str, dict[str, Field]] = {}
    for method, tracker in find_all().items():
        for field in dataclasses.fields(tracker.option_type):
            table.setdefault(field.name, {})[method] = field
    return table
