"""One measured figure, its floor, and how both are printed."""

from __future__ import annotations

import json
import os
import statistics
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """`limit` is the floor, or a peer, measured in the same run; `ratio` is value / limit. With
    up to 100 samples p99 is the largest."""

    bench: str
    name: str
    value: float
    unit: str
    n: int
    p50: float | None = None
    p99: float | None = None
    limit: tuple[str, float] | None = None
    goal: str = ""

    def as_dict(self) -> dict[str, Any]:
        row: dict[str, Any] = {
            "bench": self.bench,
            "name": self.name,
            "value": round(self.value, 3),
            "unit": self.unit,
            "n": self.n,
            "p50": self.p50,
            "p99": self.p99,
            "limit": None,
            "ratio": None,
            "goal": self.goal,
        }
        if self.limit is not None:
            row["limit"] = {"name": self.limit[0], "value": round(self.limit[1], 3)}
            row["ratio"] = round(self.value / self.limit[1], 3)
        return row

    def line(self) -> str:
        row = self.as_dict()
        shown = f"{self.bench:12} {self.name:28} {row['value']:>12,} {self.unit:6}"
        if self.p99 is not None:
            shown += f" p99 {round(self.p99, 3):>10,}"
        if self.limit is not None:
            shown += f"  {self.limit[0]} {row['limit']['value']:,} (x{row['ratio']})"
        return shown + (f"  goal: {self.goal}" if self.goal else "")

    def cells(self) -> str:
        """One row of the table that begins with `MARKDOWN_HEAD`."""
        row = self.as_dict()
        floor = "" if self.limit is None else f"{self.limit[0]} {row['limit']['value']:,}"
        ratio = "" if self.limit is None else str(row["ratio"])
        p99 = "" if self.p99 is None else f"{round(self.p99, 3):,}"
        value = f"{row['value']:,} {self.unit}"
        words = [self.bench, self.name, value, p99, f"{self.n:,}", floor, ratio, self.goal]
        return f"| {' | '.join(words)} |"


MARKDOWN_HEAD = """\
| bench | figure | value | p99 | n | beside | ratio | goal |
|---|---|---|---|---|---|---|---|"""


def quantile(values: list[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def middle(values: list[float]) -> float:
    return statistics.median(values)


def show(figure: Figure, form: str) -> None:
    """Print one figure as `text`, `json` or a row of `markdown`."""
    if form == "json":
        print(json.dumps(figure.as_dict()), flush=True)
    else:
        print(figure.cells() if form == "markdown" else figure.line(), flush=True)


def load_average() -> str:
    return " ".join(f"{value:.2f}" for value in os.getloadavg())
