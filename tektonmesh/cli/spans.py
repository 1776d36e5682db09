"""Lengths of time as people write them on the command line: `90`, `10m`, `24h`, `7d`."""

from __future__ import annotations

import re

import click

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SPAN = re.compile(r"([0-9]{1,9})([smhd]?)")


class Span(click.ParamType[float]):
    """An option that takes a length of time; its value is in seconds."""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        found = _SPAN.fullmatch(str(value).strip().lower())
        if found is None:
            self.fail(f"'{value}' is no length of time; write 90, 10m, 24h or 7d.", param, ctx)
        return float(int(found[1]) * _UNITS[found[2]])
