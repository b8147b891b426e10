"""The options of the methods on the command line, spelled as in Python."""

import argparse
from typing import Any

from .trackers import Option, find_all


def add_method_options(parser: argparse.ArgumentParser) -> None:
    """One argument per option name; a method refuses options that are not its own."""
    group = parser.add_argument_group("options of the methods")
    settings = {name: list(t.settings) for name, t in find_all().items() if t.settings}
    group.add_argument(
        "--setting",
        default=argparse.SUPPRESS,
        help="what the authors use on a data set, for what is not given: "
        + "; ".join(f"{method}: {', '.join(names)}" for method, names in settings.items()),
    )
    for name, owners in _by_name().items():
        options = list(owners.values())
        kind: dict[str, Any] = {"type": options[0].kind}
        if options[0].kind is bool:
            kind = {"action": argparse.BooleanOptionalAction}
        elif all(option.choices for option in options):
            kind["choices"] = list(dict.fromkeys(c for option in options for c in option.choices))
        group.add_argument(
            f"--{name.replace('_', '-')}",
            default=argparse.SUPPRESS,  # so that only what was typed reaches the method
            help="; ".join(
                f"{method}: {option.help} (default: {option.default})"
                for method, option in owners.items()
            ),
            **kind,
        )


def given_options(args: argparse.Namespace) -> dict[str, Any]:
    """What was typed of the arguments above, as keyword arguments of `Segmenter`."""
    return {name: getattr(args, name) for name in ("setting", *_by_name()) if hasattr(args, name)}


def _by_name() -> dict[str, dict[str, Option]]:
    """Option name -> the methods that have it, each with its own."""
    table: dict[str, dict[str, Option]] = {}
    for method, tracker in find_all().items():
        for option in tracker.options:
            table.setdefault(option.name, {})[method] = option
    return table
