"""Lengths of time on the command line."""

from __future__ import annotations

import click
import pytest

from tektonmesh.cli.spans import Span


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("24H", 86400), (" 7d ", 604800)]
)
def test_lengths_of_time_are_read(text: str, seconds: float) -> None:
    assert Span().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "-1", "1w", "1.5h", "h", "9999999999"])
def test_others_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(click.BadParameter, match="24h"):
        Span().convert(text, None, None)
