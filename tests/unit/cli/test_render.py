"""What may reach a terminal, and how tables and times look."""

from __future__ import annotations

import io
import json

import pytest

from tektonmesh.cli import render


def test_json_is_one_line_with_letters_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    render.emit_json({"body": "grüße\n", "n": [1]})
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert "grüße" in line
    assert json.loads(line) == {"body": "grüße\n", "n": [1]}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ünïcödé 日本", "plain ünïcödé 日本"),
        ("two\nlines\tand", "two\nlines\tand"),
        ("\x1b[2Jclear", "?[2Jclear"),
        ("bell\x07 cr\r del\x7f c1\x9b", "bell? cr? del? c1?"),
        ("turn\u202e me \u2066round", "turn? me ?round"),
        ("half \ud800", "half ?"),
    ],
)
def test_control_characters_never_reach_a_terminal(text: str, shown: str) -> None:
    assert render.safe_text(text) == shown


def test_a_table_in_a_pipe_is_aligned_text(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("numa", True, ["a", "b"], 1.25), ("long-name\x1b", None, [], "x\ny")]
    render.table(("name", "up", "list", "n"), rows, empty="None.")
    assert capsys.readouterr().out.splitlines() == [
        "name        up   list  n",
        "numa        yes  a,b   1.2",
        "long-name?  -    -     x y",
    ]


def test_no_rows_are_a_sentence_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    render.table(("name",), [], empty="No CI fits.")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "No CI fits.\n")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colour_needs_a_terminal_and_no_objection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert render.colour_wanted(Terminal())
    assert not render.colour_wanted(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not render.colour_wanted(Terminal())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not render.colour_wanted(Terminal())


def test_a_table_on_a_terminal_is_drawn_and_names_in_it_are_not_markup(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    render.table(("name", "state"), [("[red]x[/red]", "up")], empty="None.")
    shown = terminal.getvalue()
    assert "[red]x[/red]" in shown
    assert "─" in shown
    assert "\x1b[32m" not in shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"),
        (0.0004, "0.4 ms"),
        (1, "1 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7200, "2 h"),
        (86400 * 3, "3 d"),
    ],
)
def test_times_are_for_people(seconds: float | None, shown: str) -> None:
    assert render.duration(seconds) == shown


def test_milliseconds_are_shown_in_the_unit_that_fits() -> None:
    assert render.milliseconds(None) == "-"
    assert render.milliseconds(1.26) == "1.3 ms"
    assert render.milliseconds(2500) == "2 s"
