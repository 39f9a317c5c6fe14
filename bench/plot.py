"""The picture of the case `wait`: messages per second by wait, a panel for each number of
connections.

Usage: plot.py JSON SVG, where JSON was written by `run.py --wait --json JSON`; `run.py --svg SVG`
does the same at the end of a run.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import median
from string import Template

from cases import WAIT
from shell import BenchError
from waits import LOOKUP, PAIRS, WAITS_MS, Cell, cell_of

Points = dict[Cell, dict[str, float]]  # messages per second, by program

# A panel's plot, and what is around it, in pixels.
WIDTH, HEIGHT = 340, 220
LEFT, RIGHT, TOP, BOTTOM = 70, 14, 30, 44
LEGEND = 58
COLUMNS = 2
RADIUS = 3.5
DASHES = ("", "6 3")  # ours, the peer's

# Colours by the reader's scheme. The two hues can be told apart by those who do not see all colours
# too, and the peers' lines are dashed.
LIGHT = {
    "paper": "#ffffff",
    "ink": "#24292f",
    "faint": "#d0d7de",
    "one": "#0072b2",
    "two": "#c04f00",
}
DARK = {
    "paper": "#0d1117",
    "ink": "#e6edf3",
    "faint": "#3d444d",
    "one": "#56b4e9",
    "two": "#f0a030",
}
COLOURS = Template(""".paper { fill: $paper }
text { fill: $ink }
.grid { stroke: $faint }
.bound { stroke: $ink }
.line.hue0, .ring.hue0 { stroke: $one }
.line.hue1, .ring.hue1 { stroke: $two }
.dot.hue0 { fill: $one }
.dot.hue1 { fill: $two }
.ring { fill: $paper }""")
STYLE = f"""
text {{ font: 12px system-ui, sans-serif }}
.title {{ font-weight: 600; font-size: 13px }}
.line {{ stroke-width: 2; fill: none }}
.bound {{ stroke-width: 1.5; stroke-dasharray: 1.5 4; fill: none }}
{COLOURS.substitute(LIGHT)}
@media (prefers-color-scheme: dark) {{
{COLOURS.substitute(DARK)}
}}
"""


@dataclass(frozen=True)
class Scale:
    """A logarithmic axis: from values to pixels."""

    least: float
    most: float
    begin: float
    end: float

    def at(self, value: float) -> float:
        """Where a value is."""
        share = math.log(value / self.least) / math.log(self.most / self.least)
        return self.begin + share * (self.end - self.begin)


def points_of(samples: dict[str, dict[str, dict[str, list[float]]]]) -> Points:
    """The medians of the rates of the case `wait` in what --json wrote; look-ups, which are no
    sleep, are left out."""
    found: Points = {}
    for case, programs in samples.items():
        name, _, cell = case.partition(" ")
        if name == WAIT and not cell.startswith(LOOKUP):
            found[cell_of(cell)] = {
                program: median(metrics["rate"])
                for program, metrics in programs.items()
                if "rate" in metrics
            }
    return found


def series() -> Iterator[tuple[str, str, str, bool]]:
    """Each program with the class of its hue, its dashes, and whether it is ours."""
    for number, pair in enumerate(PAIRS):
        for ours, (name, dashes) in enumerate(zip(pair, DASHES, strict=True)):
            yield name, f"hue{number}", dashes, ours == 0


def text(x: float, y: float, words: str, anchor: str = "middle", more: str = "") -> str:
    """A text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    """A straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}"/>'


def path(places: list[tuple[float, float]], style: str, dashes: str) -> str:
    """A line through places."""
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    more = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<polyline points="{joined}" class="{style}"{more}/>'


def marks(places: list[tuple[float, float]], hue: str, ours: bool) -> Iterator[str]:
    """The points of a line: full ones are ours."""
    style = f"{'dot' if ours else 'ring'} {hue}"
    for x, y in places:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS}" class="{style}"/>'


def short(value: float) -> str:
    """A number on an axis."""
    return f"{value:g}" if value < 1000 else f"{value / 1000:g}k"


def axes(x: Scale, y: Scale, waits: list[float]) -> Iterator[str]:
    """The grid of a panel with its numbers."""
    for wait in waits:
        yield line(x.at(wait), y.begin, x.at(wait), y.end, "grid")
        yield text(x.at(wait), y.begin + 16, f"{wait:g}")
    for power in range(round(math.log10(y.least)), round(math.log10(y.most)) + 1):
        value = 10.0**power
        yield line(x.begin - 6, y.at(value), x.end + 6, y.at(value), "grid")
        yield text(x.begin - 12, y.at(value) + 4, short(value), "end")


def panel(x: Scale, y: Scale, connections: int, points: Points) -> Iterator[str]:
    """The lines of one number of connections."""
    cells = sorted(
        (cell for cell in points if cell.connections == connections),
        key=lambda cell: WAITS_MS[cell.wait],
    )
    middle = (x.begin + x.end) / 2
    yield text(middle, y.end - 10, f"{connections} connections", more=' class="title"')
    yield text(middle, y.begin + 34, "wait of each message, ms")
    yield from axes(x, y, [WAITS_MS[cell.wait] for cell in cells])
    least, most = (WAITS_MS[cells[at].wait] for at in (0, -1))
    begin = max(least, connections * 1000 / y.most)  # where the bound comes into the panel
    if begin <= most:
        ends = [(x.at(ms), y.at(connections * 1000 / ms)) for ms in (begin, most)]
        yield path(ends, "bound", "")
    for name, hue, dashes, ours in series():
        places = [
            (x.at(WAITS_MS[cell.wait]), y.at(points[cell][name]))
            for cell in cells
            if name in points[cell]
        ]
        if places:
            yield path(places, f"line {hue}", dashes)
            yield from marks(places, hue, ours)


def legend(y: float) -> Iterator[str]:
    """What the lines are."""
    for number, (name, hue, dashes, ours) in enumerate(series()):
        x, at = LEFT + number % 2 * 330, y + number // 2 * 18
        yield path([(x, at), (x + 34, at)], f"line {hue}", dashes)
        yield from marks([(x + 17, at)], hue, ours)
        yield text(x + 42, at + 4, name if name != "ours" else "ours, in Python", "start")
    x = LEFT + 580
    yield path([(x, y), (x + 34, y)], "bound", "")
    yield text(x + 42, y + 4, "connections / wait", "start")


def svg(points: Points) -> str:
    """The picture. Raises BenchError without points."""
    rates = [rate for programs in points.values() for rate in programs.values() if rate > 0]
    if not rates:
        raise BenchError("there is nothing to draw: no cell of the case wait was measured")
    waits = [WAITS_MS[cell.wait] for cell in points]
    counts = sorted({cell.connections for cell in points})
    least = 10 ** math.floor(math.log10(min(rates)))
    most = 10 ** math.ceil(math.log10(max(rates)))
    step = (LEFT + WIDTH + RIGHT, TOP + HEIGHT + BOTTOM)
    size = (COLUMNS * step[0], LEGEND + math.ceil(len(counts) / COLUMNS) * step[1])
    parts = list(legend(18))
    for number, connections in enumerate(counts):
        left = number % COLUMNS * step[0] + LEFT
        top = LEGEND + number // COLUMNS * step[1] + TOP
        x = Scale(min(waits) * 0.99, max(waits) * 1.01, left, left + WIDTH)
        parts += panel(x, Scale(least, most, top + HEIGHT, top), connections, points)
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}" '
            f'width="{size[0]}" height="{size[1]}" role="img">',
            "<title>Messages per second by wait and connections</title>",
            f"<style>{STYLE}</style>",
            f'<rect width="{size[0]}" height="{size[1]}" class="paper"/>',
            text(LEFT - 58, LEGEND + 10, "messages/s", "start"),
            *parts,
            "</svg>\n",
        )
    )


def main() -> int:
    """Draws from a file."""
    if len(sys.argv) != 3:
        print("usage: plot.py JSON SVG", file=sys.stderr)
        return 2
    try:
        samples = json.loads(Path(sys.argv[1]).read_text())["samples"]
        Path(sys.argv[2]).write_text(svg(points_of(samples)))
    except (OSError, json.JSONDecodeError, BenchError) as error:
        print(f"plot.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
