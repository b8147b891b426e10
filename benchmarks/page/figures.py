"""The figures of a page, as SVG to put into HTML."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vos_deploy.errors import InputError
from vos_deploy.extras import install

WIDTH, HEIGHT = 7.6, 3.6  # inches
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # words stay words
    "svg.hashsalt": "vos_deploy",  # the same figure is the same text
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "axes.edgecolor": "#888888",
    "figure.constrained_layout.use": True,
    "savefig.transparent": True,
}
DASHES = ("-", "--", ":")
# Numbers within such a ratio have too few marks at 1, 2 and 5.
FEW = 8.0


@dataclass(frozen=True)
class Line:
    """A line through points (x, y); those of one group share a colour, and have a dash each."""

    name: str
    points: Sequence[tuple[float, float]]
    group: str = ""


def import_matplotlib() -> Any:
    """Raises InputError if it is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(f"figures need: {install('report')} ({error})") from error
    return Figure


def scatter(points: Mapping[str, tuple[float, float]], x: str, y: str) -> str:
    """Named points, with x on a logarithmic scale."""
    figure, axes = _axes(x, y)
    # One point has no range of its own.
    axes.set_ylim(*_around([up for _, up in points.values()], 5.0, (0.0, 100.0)))
    for number, (name, (across, up)) in enumerate(points.items()):
        axes.scatter([across], [up], s=55, color=f"C{number % 10}", zorder=3, label=name)
    axes.set_xscale("log")
    times = [across for across, _ in points.values()]
    _plain_numbers(axes.xaxis, max(times) / min(times))
    axes.margins(x=0.15)
    _legend(axes)
    return _svg(figure)


def lines(drawn: Sequence[Line], x: str, y: str, *, whole: bool = False) -> str:
    """Lines from zero upwards. whole: x counts something."""
    figure, axes = _axes(x, y)
    groups = list(dict.fromkeys(line.group or line.name for line in drawn))
    seen: dict[str, int] = {}
    for line in drawn:
        group = line.group or line.name
        dash = DASHES[seen.get(group, 0) % len(DASHES)]
        seen[group] = seen.get(group, 0) + 1
        color = f"C{groups.index(group) % 10}"
        across, up = zip(*line.points, strict=True)
        axes.plot(across, up, dash, color=color, marker="o", markersize=4, label=line.name)
    if whole:
        axes.set_xticks(sorted({point[0] for line in drawn for point in line.points}))
    axes.set_ylim(0, 1.1 * max(point[1] for line in drawn for point in line.points))
    _legend(axes)
    return _svg(figure)


def stacked(bars: Mapping[str, Mapping[str, float]], x: str) -> str:
    """A horizontal bar for each name, made of parts by their names."""
    parts = list(dict.fromkeys(part for bar in bars.values() for part in bar))
    height = 0.9 + max(0.42 * len(bars), 0.21 * len(parts))
    figure, axes = _axes(x, "", height)
    starts = dict.fromkeys(bars, 0.0)
    for number, part in enumerate(parts):
        widths = [bar.get(part, 0.0) for bar in bars.values()]
        axes.barh(
            list(bars), widths, 0.65, left=list(starts.values()), label=part,
            color=f"C{number % 10}",
        )  # fmt: skip
        starts = {name: starts[name] + bar.get(part, 0.0) for name, bar in bars.items()}
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    _legend(axes)
    return _svg(figure)


def alone(svg: str) -> str:
    """A figure as a file of its own, on white: a page around it may be dark."""
    white = '<rect width="100%" height="100%" fill="white"/>'
    return re.sub(r"(<svg [^>]*>)", rf"\1{white}", svg, count=1)


def _axes(x: str, y: str, height: float = HEIGHT) -> tuple[Any, Any]:
    make = import_matplotlib()
    from matplotlib import rc_context

    with rc_context(STYLE):
        figure = make(figsize=(WIDTH, height))
        axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes


def _legend(axes: Any) -> None:
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _around(
    values: Sequence[float], room: float, within: tuple[float, float]
) -> tuple[float, float]:
    return max(within[0], min(values) - room), min(within[1], max(values) + room)


def _plain_numbers(axis: Any, ratio: float) -> None:
    """ratio: of the largest number to the smallest."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    fine = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
    axis.set_major_locator(LogLocator(subs=fine if ratio < FEW else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(FuncFormatter(lambda value, _: ""))


def _svg(figure: Any) -> str:
    from matplotlib import rc_context

    written = io.StringIO()
    with rc_context(STYLE):
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    # Within HTML, an SVG has neither a declaration nor a size of its own.
    text = written.getvalue()
    text = text[text.index("<svg") :]
    return re.sub(
        r'(<svg [^>]*?)width="[^"]*" height="[^"]*"|height="[^"]*pt" ', r"\1", text, count=1
    )
