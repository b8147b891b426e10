"""What a page shows of the outcomes: a section for each question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..fps import COMPILED, EXPORTED, PYTORCH, STEP
from ..jf import PROCESSORS
from . import figures
from .figures import Line
from .plan import ACCURACY, FRAMES, GPU, KINDS, MEMORY, OBJECTS, PARITY, SIZES, STEADY
from .runs import Outcome

SIDES = (EXPORTED, PYTORCH, COMPILED)


@dataclass(frozen=True)
class Section:
    """title, what its figures mean, rows of a table, figures as SVG, pictures with a caption, the
    commands that all of it is from, and what was not run, with the reason."""

    title: str
    text: str
    rows: Sequence[Mapping[str, str]] = ()
    drawn: Sequence[str] = ()
    pictures: Sequence[tuple[str, Path]] = ()
    commands: Sequence[str] = field(default_factory=list)
    missing: Sequence[tuple[str, str]] = ()


def sections(outcomes: Sequence[Outcome], kinds: Sequence[str] = KINDS) -> list[Section]:
    """The sections of these kinds, in the order of the page."""
    made = []
    for make, kind in (
        (_accuracy, ACCURACY),
        (_stages, OBJECTS),
        (_objects, OBJECTS),
        (_frames, FRAMES),
        (_sizes, SIZES),
        (_memory, MEMORY),
        (_steady, STEADY),
        (_graphs, STEADY),
        (_parity, PARITY),
        (_gpu, GPU),
    ):
        if kind not in kinds:
            continue
        of_kind = [outcome for outcome in outcomes if outcome.planned.section == kind]
        made.append(make(of_kind))
    return made


def _made(outcomes: Sequence[Outcome], title: str, text: str, **more: Any) -> Section:
    commands = [outcome.planned.command for outcome in outcomes if outcome.data]
    missing = [(outcome.planned.of, outcome.reason) for outcome in outcomes if outcome.reason]
    return Section(title, text, commands=commands, missing=missing, **more)


def _accuracy(outcomes: Sequence[Outcome]) -> Section:
    by_clock, by_processors, rows = {}, {}, []
    for outcome in outcomes:
        if outcome.data:
            overall = outcome.data["scores"][-1]
            milliseconds = 1000 / overall["FPS"]
            name, score = outcome.planned.of, 100 * overall["J&F-Mean"]
            by_clock[name] = milliseconds, score
            by_processors[name] = overall[PROCESSORS], score
            facts = outcome.data["conditions"]
            rows.append(
                {
                    "": outcome.planned.of,
                    "J&F": f"{100 * overall['J&F-Mean']:.1f}",
                    "J": f"{100 * overall['J-Mean']:.1f}",
                    "F": f"{100 * overall['F-Mean']:.1f}",
                    "ms per frame": f"{milliseconds:.1f}",
                    "CPU ms": f"{overall[PROCESSORS]:.1f}",
                    "precision": facts.get("precision", ""),
                    "data": facts["data"],
                    "timed": facts["timed"],
                }
            )
    drawn = [
        figures.scatter(points, f"{words} per frame", "J&F, %")
        for points, words in (
            (by_processors, "milliseconds of all processors"),
            (by_clock, "milliseconds"),
        )
        if points
    ]
    text = (
        "J&F in percent against the time of a frame; further up and to the left is better. "
        "Accuracy and time of a point are of the same run. Other work on the machine makes a frame "
        "take longer on the clock, and hardly changes the time of all processors together."
    )
    return _made(outcomes, "Accuracy against time", text, rows=rows, drawn=drawn)


def _stages(outcomes: Sequence[Outcome]) -> Section:
    bars: dict[str, dict[str, float]] = {}
    for outcome in outcomes:
        timings = outcome.data.get("timings", [])
        fewest = min((row["Objects"] for row in timings), default=0)
        for side in SIDES:
            found = {
                row["Stage"]: row[f"{side} mean ms"]
                for row in timings
                if row["Objects"] == fewest and row.get(f"{side} mean ms")
            }
            whole = found.pop(STEP, 0.0)
            if found:
                rest = max(0.0, whole - sum(found.values()))
                bars[_side(outcome, side)] = {**found, "other": rest}
    rows = [{"": name, **{k: f"{v:.1f}" for k, v in bar.items()}} for name, bar in bars.items()]
    drawn = [figures.stacked(bars, "milliseconds per frame")] if bars else []
    text = (
        "Mean milliseconds of a step on one object (the fewest that were timed) by stage, with a "
        "full memory. No decoding, resizing or writing. Both engines take turns in one process."
    )
    return _made(outcomes, "Where the time goes", text, rows=rows, drawn=drawn)


def _objects(outcomes: Sequence[Outcome]) -> Section:
    return _cost(outcomes, "Objects", "Cost against objects", SIDES)


def _frames(outcomes: Sequence[Outcome]) -> Section:
    return _cost(outcomes, "Memory", "Cost against memory frames", (EXPORTED,))


def _cost(outcomes: Sequence[Outcome], by: str, title: str, sides: Sequence[str]) -> Section:
    drawn, rows = [], []
    for outcome in outcomes:
        steps = [row for row in outcome.data.get("timings", []) if row["Stage"] == STEP]
        for side in sides:
            points = [
                (row[by], row[f"{side} mean ms"]) for row in steps if row.get(f"{side} mean ms")
            ]
            if points:
                drawn.append(Line(_side(outcome, side), points, outcome.planned.of))
        for row in steps:
            times = {side: row.get(f"{side} mean ms") for side in sides}
            cells = {f"{side}, ms": f"{time:.1f}" for side, time in times.items() if time}
            rows.append({"": outcome.planned.of, by.lower(): str(row[by]), **cells})
    words = {"Objects": "objects", "Memory": "memory frames"}[by]
    plots = [figures.lines(drawn, words, "milliseconds per frame", whole=True)] if drawn else []
    text = f"Mean milliseconds of a step by the number of {words}."
    return _made(outcomes, title, text, rows=rows, drawn=plots)


def _sizes(outcomes: Sequence[Outcome]) -> Section:
    lines: dict[str, list[tuple[float, float]]] = {}
    rows = []
    for outcome in outcomes:
        for row in outcome.data.get("timings", []):
            if row["Stage"] == STEP:
                size = outcome.data["conditions"]["size"]
                height, _, width = size.partition("x")
                time = row[f"{EXPORTED} mean ms"]
                points = lines.setdefault(outcome.planned.of, [])
                points.append((int(height) * int(width) / 1e6, time))
                rows.append({"": outcome.planned.of, "size": size, "ms": f"{time:.1f}"})
    drawn = [Line(name, sorted(points)) for name, points in lines.items()]
    plots = [figures.lines(drawn, "megapixels", "milliseconds per frame")] if drawn else []
    text = "Mean milliseconds of a step on one object by the working size."
    return _made(outcomes, "Cost against resolution", text, rows=rows, drawn=plots)


def _memory(outcomes: Sequence[Outcome]) -> Section:
    drawn, rows = [], []
    for outcome in outcomes:
        if outcome.data:
            samples = outcome.data["rows"]
            points = [(row["frame"], row["resident MiB"]) for row in samples]
            drawn.append(Line(outcome.planned.of, points))
            facts = outcome.data["conditions"]
            rows.append(
                {
                    "": outcome.planned.of,
                    "frames": str(samples[-1]["frame"]),
                    "resident MiB": f"{samples[-1]['resident MiB']:.0f}",
                    "growth after the first quarter": facts["growth after the first quarter"],
                    "held": facts["held"],
                }
            )
    plots = [figures.lines(drawn, "frame", "resident MiB")] if drawn else []
    text = "Resident memory of the process along a video; a flat line is what it should be."
    return _made(outcomes, "Memory over time", text, rows=rows, drawn=plots)


def _steady(outcomes: Sequence[Outcome]) -> Section:
    rows = []
    for outcome in outcomes:
        if outcome.data:
            found = outcome.data["rows"] or [{"line": "nothing of that size"}]
            for row in found:
                cells = {name: str(value) for name, value in row.items() if name != "source"}
                rows.append({"": outcome.planned.of, "line": cells.pop("line"), **cells})
    text = (
        "Every allocation and copy of 1 MB and more in a step with a full memory, with the line "
        "that makes it, by tracemalloc and by the backend; of large frames, resized to the size "
        "the model works at."
    )
    return _made(outcomes, "Steady state", text, rows=rows)


def _graphs(outcomes: Sequence[Outcome]) -> Section:
    rows = [
        {"": outcome.planned.of, **row}
        for outcome in outcomes
        for row in outcome.data.get("graphs", ())
    ]
    text = (
        "By ONNX Runtime's own profile: what the nodes of a graph write in a step, how much of it "
        "they only move, and the working memory that is kept from step to step. It should not grow."
    )
    return _made(outcomes, "Working memory of the graphs", text, rows=rows)


def _parity(outcomes: Sequence[Outcome]) -> Section:
    rows, pictures = [], []
    for outcome in outcomes:
        if outcome.data:
            frames = outcome.data["frames"]
            rows.append(
                {
                    "": outcome.planned.of,
                    "frames": str(len(frames)),
                    "smallest IoU": f"{min(row['smallest IoU'] for row in frames):.4f}",
                    "pixels differing, most": f"{max(r['pixels differing'] for r in frames):.5f}",
                    "probability, most": f"{max(row['probability max'] for row in frames):.5f}",
                    "within tolerance": "yes" if outcome.data["passed"] else "NO",
                }
            )
            for path in outcome.pictures:
                frame = int(path.stem.rpartition("_")[2])
                agreement = next(r["smallest IoU"] for r in frames if r["frame"] == frame)
                caption = f"{outcome.planned.of}, frame {frame}: IoU {agreement:.4f}"
                pictures.append((caption, path))
    text = (
        "The exported model and the network in PyTorch with the same weights, each on its own past "
        "(closed loop). The pictures are of the frames that agree least: exported, PyTorch, and in "
        "magenta where they differ."
    )
    return _made(outcomes, "Parity with PyTorch", text, rows=rows, pictures=pictures)


def _gpu(outcomes: Sequence[Outcome]) -> Section:
    text = "What runs on an NVIDIA GPU is measured by a benchmark with a time limit and a journal."
    return _made(outcomes, "On a GPU", text)


def _side(outcome: Outcome, side: str) -> str:
    return outcome.planned.of if side == EXPORTED else f"{outcome.planned.of}, {side}"
