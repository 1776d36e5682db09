"""The production core beside other protocols, in the simulator. See docs/measured/protocols.md.

Without options: 8, 32 and 128 nodes, every protocol, every condition, printed as a table.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tektonmesh.sim.compare import CONDITIONS, PROTOCOLS, Course, courses, row_of, run_course

SIZES = (8, 32, 128)
COLUMNS = (
    ("protocol", "protocol", 12),
    ("nodes", "nodes", 6),
    ("condition", "condition", 10),
    ("p50_ms", "p50 ms", 9),
    ("p99_ms", "p99 ms", 9),
    ("redundancy", "redundancy", 11),
    ("last_hop", "last hop", 9),
    ("missed", "missed", 7),
    ("bytes_per_change", "B/change", 10),
    ("announce_bytes", "of it told", 11),
    ("idle_bytes_s", "idle B/s", 10),
    ("idle_peak_bytes_s", "busiest B/s", 12),
)
"""(key of a row, heading, width)."""
TABLES, TABLES_END = "<!-- tables: made by ./scripts/compare -->", "<!-- end of the tables -->"

Row = dict[str, Any]


def measure(groups: list[list[Course]], processes: int) -> Iterator[Row]:
    """One row for each group of courses, in their order, as they come."""
    flat = [course for group in groups for course in group]
    with multiprocessing.Pool(processes) as pool:
        reports = pool.imap(run_course, flat)
        for group in groups:
            yield row_of(group, [next(reports) for _ in group])


def line(row: Row) -> str:
    """A row of the table on a terminal."""
    cells = [_cell(row.get(key)) for key, _heading, _width in COLUMNS]
    return _aligned(cells)


def _aligned(cells: list[str]) -> str:
    left = ("protocol", "condition")
    return " ".join(
        f"{cell:<{width}}" if key in left else f"{cell:>{width}}"
        for cell, (key, _heading, width) in zip(cells, COLUMNS, strict=True)
    )


def heading() -> str:
    return _aligned([text for _key, text, _width in COLUMNS])


def show_progress(done: int, count: int) -> None:
    print(f"{done} of {count} rows", file=sys.stderr, flush=True)


def save(rows: list[Row], path: Path) -> None:
    """Write the rows, each on a line of its own; those of the file that were not measured now stay,
    so that large worlds can be added one by one."""
    known = {_key(row): row for row in (read(path) if path.exists() else [])}
    known |= {_key(row): row for row in rows}
    order = [(name, condition) for name in PROTOCOLS for condition in CONDITIONS]
    kept = sorted(known.values(), key=lambda row: (row["nodes"], order.index(_key(row)[::2])))
    path.write_text("[\n" + ",\n".join(json.dumps(row) for row in kept) + "\n]\n")


def _key(row: Row) -> tuple[str, int, str]:
    return row["protocol"], row["nodes"], row.get("condition", CONDITIONS[0])


def read(path: Path) -> list[Row]:
    rows: list[Row] = json.loads(path.read_text())
    return rows


def draw(path: Path) -> None:
    """Draw a file of rows beside it, as SVG, and renew the tables of a page of the same name."""
    from scripts.comparison.plot import plot  # only this needs what draws

    rows = read(path)
    plot(rows, path.with_suffix(".svg"))
    print(f"drawn: {path.with_suffix('.svg')}", file=sys.stderr)
    page = path.with_suffix(".md")
    if page.exists():
        page.write_text(with_tables(page.read_text(encoding="utf-8"), rows), encoding="utf-8")
        print(f"renewed: the tables of {page}", file=sys.stderr)


def with_tables(page: str, rows: list[Row]) -> str:
    """The page with these rows between its marks; as it was if it has none."""
    before, opening, rest = page.partition(TABLES)
    _old, closing, after = rest.partition(TABLES_END)
    if not closing:
        return page
    return before + opening + "\n" + "\n".join(tables(rows)) + "\n" + closing + after


def tables(rows: list[Row]) -> Iterator[str]:
    """A Markdown table for each condition."""
    for condition in CONDITIONS:
        chosen = [row for row in rows if _key(row)[2] == condition]
        columns = [it for it in COLUMNS if any(row.get(it[0]) is not None for row in chosen)]
        columns = [it for it in columns if it[0] != "condition"]
        if chosen:
            yield f"**{condition}**"
            yield ""
            yield "| " + " | ".join(heading for _key, heading, _width in columns) + " |"
            yield "|---" + "|---:" * (len(columns) - 1) + "|"
            for row in chosen:
                cells = [_cell(row.get(key)) for key, _heading, _width in columns]
                yield "| " + " | ".join(cells) + " |"
            yield ""


def _cell(value: Any) -> str:
    """Three digits say all that is known, but for counts."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{float(f'{value:.3g}'):g}"
    return str(value)


def main() -> int:
    parser = argparse.ArgumentParser(prog="./scripts/compare", description=__doc__)
    parser.add_argument("--nodes", nargs="+", type=int, default=SIZES, metavar="N")
    parser.add_argument(
        "--protocols", nargs="+", choices=PROTOCOLS, default=PROTOCOLS, metavar="P",
        help=", ".join(PROTOCOLS),
    )  # fmt: skip
    parser.add_argument(
        "--conditions", nargs="+", choices=CONDITIONS, default=CONDITIONS, metavar="C",
        help=", ".join(CONDITIONS),
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="rows as JSON, one a line")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write FILE.json and FILE.svg")
    parser.add_argument("--draw", type=Path, metavar="FILE", help="only draw a FILE of rows")
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count(), metavar="K")
    options = parser.parse_args()
    if options.draw:
        draw(options.draw)
        return 0
    if min(options.nodes) < 3:
        parser.error("a comparison needs at least 3 nodes")
    groups = courses(options.protocols, options.nodes, options.conditions)
    rows = []
    if not options.json:
        print(heading())
    for row in measure(groups, options.processes):
        rows.append(row)
        print(json.dumps(row) if options.json else line(row), flush=True)
        show_progress(len(rows), len(groups))
    if options.save:
        path = options.save.with_suffix(".json")
        save(rows, path)
        draw(path)
    return 1 if any(row["violations"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
