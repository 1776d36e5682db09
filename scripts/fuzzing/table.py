"""The table of docs/measured/fuzzing.md, from the lines that `./scripts/fuzz --json` printed."""

from __future__ import annotations

from typing import Any

HEAD = (
    "| parser | inputs | accepted | guided | heavy | seconds | edges | features | slowest ms |"
    " slowest guided ms | slowest heavy ms | peak MiB | grown MiB | findings |"
)
_SLOWEST = ("slowest_ms", "slowest_guided_ms", "slowest_heavy_ms")
Row = dict[str, Any]


def as_markdown(lines: list[Row]) -> str:
    """One row for each parser, whose runs are added up, and one for all of them."""
    rows: dict[str, Row] = {}
    for line in lines:
        name = line["parser"]
        rows[name] = _added(rows[name], line) if name in rows else dict(line)
    total: Row = {}
    for row in rows.values():
        total = _added(total, row) if total else dict(row)
    # Edges of different parsers are partly the same ones, so their sum would mean nothing.
    total |= {"parser": "all", "edges": None, "features": None}
    return "\n".join([HEAD, "|---|" + "---:|" * 13, *map(_line, [*rows.values(), total])])


def _added(one: Row, other: Row) -> Row:
    summed = ("inputs", "accepted", "guided", "heavy", "seconds")
    highest = ("edges", "features", *_SLOWEST, "peak_mib", "grown_mib")
    found = [*one["findings"], *(f for f in other["findings"] if f not in one["findings"])]
    return (
        one
        | {key: one[key] + other[key] for key in summed}
        | {key: max(one[key] or 0, other[key] or 0) for key in highest}
        | {"findings": found}
    )


def _line(row: Row) -> str:
    cells = [f"{row[key]:,}" for key in ("inputs", "accepted", "guided", "heavy")]
    cells.append(f"{row['seconds']:,.0f}")
    cells += ["" if row[key] is None else f"{row[key]:,}" for key in ("edges", "features")]
    cells += [f"{row[key]:.2f}" for key in _SLOWEST]
    cells += [f"{row[key]:.0f}" for key in ("peak_mib", "grown_mib")]
    return f"| {row['parser']} | " + " | ".join([*cells, str(len(row["findings"]))]) + " |"
