"""How results look: JSON for programs, aligned text for pipes, tables for people at a terminal.

Names, descriptions and replies come from other stacks, so control characters never reach a
terminal: an escape sequence in a reply could rewrite the screen or the clipboard.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

_KEPT = "\n\t"


def emit_json(value: Any) -> None:
    """One JSON value on one line of stdout, flushed, so that a reader of a stream has it now."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def safe_text(text: str) -> str:
    """`text` with control characters (but not line ends and tabs) and the characters that turn
    the direction of writing replaced by '?'."""
    if text.isprintable():
        return text
    return "".join(_safe_character(character) for character in text)


def _safe_character(character: str) -> str:
    point = ord(character)
    control = (point < 0x20 and character not in _KEPT) or 0x7F <= point < 0xA0
    turns = 0x202A <= point <= 0x202E or 0x2066 <= point <= 0x2069
    lone = 0xD800 <= point <= 0xDFFF
    return "?" if control or turns or lone else character


def on_terminal(stream: TextIO | None = None) -> bool:
    """Whether a person watches this stream (stdout unless given)."""
    return (stream or sys.stdout).isatty()


def colour_wanted(stream: TextIO | None = None) -> bool:
    """Colour only on a terminal, and never against https://no-color.org."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return on_terminal(stream) and not plain


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """Print rows under their columns; `empty` is the sentence for no rows at all."""
    shown = [[_cell(value) for value in row] for row in rows]
    if not shown:
        print(empty, file=sys.stderr)
    elif on_terminal():
        _rich_table(columns, shown)
    else:
        for line in aligned([list(columns), *shown]):
            print(line)


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, list | tuple):
        return safe_text(",".join(str(item) for item in value)) or "-"
    return safe_text(str(value)).replace("\n", " ").replace("\t", " ")


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of columns that are as wide as their widest cell."""
    count = max(len(row) for row in rows)
    widths = [max(len(row[at]) for row in rows if at < len(row)) for at in range(count)]
    return [
        "  ".join(cell.ljust(widths[at]) for at, cell in enumerate(row)).rstrip() for row in rows
    ]


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    Console(no_color=not colour_wanted(), highlight=False).print(shown)


_STYLES = {
    "up": "green",
    "self": "green",
    "ok": "green",
    "admitted": "green",
    "unreachable": "yellow",
    "pending": "yellow",
    "warn": "yellow",
    "offline": "red",
    "deregistered": "red",
    "refused": "red",
    "evicted": "red",
    "fail": "red",
    "failed": "red",
}


def duration(seconds: float | None) -> str:
    """A length of time for people: `0.4 ms`, `12 s`, `3 min`, `2 h`, `5 d`."""
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def milliseconds(value: float | None) -> str:
    """A figure that is already in milliseconds."""
    return "-" if value is None else duration(value / 1000)
