"""Draws rows of a comparison: four panels over the number of nodes, one line for each protocol.

A row needs `protocol` and `nodes`; each figure that it lacks is a gap. Rows of worlds in which
something went wrong (`condition` is not "calm") are for the table and are not drawn. The picture
has a ground of its own, so that it reads the same on light and on dark pages.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

INK, GRID, GROUND = "#1f2328", "#d8dee4", "#ffffff"
STYLES = {
    "tektonmesh": ("#0550ae", "o"),
    "flooding": ("#bc4c00", "s"),
    "memberlist": ("#1a7f37", "^"),
    "scuttlebutt": ("#8250df", "D"),
    "central": ("#6e7781", "v"),
}
"""Colours (of about one brightness, told apart by the shapes as well) and shapes."""
OTHERS = (("#9a6700", "P"), ("#cf222e", "X"))
"""For protocols that have no style of their own."""
PANELS = (
    ("Time until others show a change", "milliseconds", ("p50_ms", "p99_ms"), True),
    ("Copies that nobody needed", "for each one needed", ("redundancy",), False),
    ("Traffic of one change", "bytes at each node", ("bytes_per_change",), True),
    ("Traffic at rest", "bytes per second and node", ("idle_bytes_s",), True),
)
"""(title, unit, the figures drawn, whether logarithmic)."""
DASHES = ("-", (0, (1, 1.4)))

Row = dict[str, Any]
Point = tuple[int, float]


def plot(rows: list[Row], target: Path) -> None:
    """Draw to `target`; its suffix says how (.svg, .png)."""
    # Names instead of random ids: the same rows give the same file.
    matplotlib.rcParams.update({"svg.hashsalt": "tektonmesh", "svg.fonttype": "path"})
    matplotlib.rcParams.update({"font.size": 10.5, "text.color": INK, "axes.labelcolor": INK})
    calm = [row for row in rows if row.get("condition", "calm") == "calm"]
    names = list(dict.fromkeys(row["protocol"] for row in calm))
    names.sort(key=lambda name: list(STYLES).index(name) if name in STYLES else len(STYLES))
    figure = Figure(figsize=(9.2, 7.6), facecolor=GROUND, layout="constrained")
    for axes, panel in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
        _panel(axes, calm, names, panel)
    _legend(figure, names)
    figure.savefig(target, facecolor=GROUND, metadata={"Date": None}, dpi=110)


def _style(name: str) -> tuple[str, str]:
    return STYLES.get(name) or OTHERS[sum(name.encode()) % len(OTHERS)]


def _panel(axes: Axes, rows: list[Row], names: list[str], panel: tuple[Any, ...]) -> None:
    title, unit, keys, logarithmic = panel
    drawn = 0
    for name in names:
        for key, dash in zip(keys, DASHES, strict=False):
            own = [row for row in rows if row["protocol"] == name and row.get(key) is not None]
            # Nothing at all has no place on a logarithmic scale.
            points = [(row["nodes"], row[key]) for row in own if row[key] > 0 or not logarithmic]
            _line(axes, sorted(points), _style(name), dash)
            drawn += len(points)
    _scales(axes, sorted({row["nodes"] for row in rows}), logarithmic and drawn > 0)
    axes.set_title(title, loc="left", fontsize=11.5, fontweight="bold")
    axes.set_ylabel(unit)
    axes.set_xlabel("nodes")


def _line(axes: Axes, points: list[Point], style: tuple[str, str], dash: Any) -> None:
    axes.plot(
        [point[0] for point in points],
        [point[1] for point in points],
        color=style[0],
        linestyle=dash,
        linewidth=1.9,
        marker=style[1],
        markersize=5.5 if dash == "-" else 4,
    )


def _scales(axes: Axes, sizes: list[int], logarithmic: bool) -> None:
    axes.set_facecolor(GROUND)
    axes.grid(True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(INK)
    axes.tick_params(colors=INK)
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    if logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    else:
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _at: f"{value:,.6g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def _legend(figure: Figure, names: list[str]) -> None:
    entries = [
        Line2D([], [], color=_style(name)[0], marker=_style(name)[1], label=name) for name in names
    ]
    entries.append(Line2D([], [], color=INK, linestyle=DASHES[0], label="median (p50)"))
    entries.append(Line2D([], [], color=INK, linestyle=DASHES[1], label="p99"))
    figure.legend(
        handles=entries, loc="outside upper center", ncols=len(entries), frameon=False,
        handlelength=2.2, columnspacing=1.2,
    )  # fmt: skip
