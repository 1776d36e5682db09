"""Which exit code and which line every kind of failure has."""

from __future__ import annotations

import click
import pytest

from tektonmesh.cli.failures import error_object, exit_code_of
from tektonmesh.errors import CODES, DeliveryError, LocalError, MeshError


@pytest.mark.parametrize("code", [name for name in CODES if name != "cancelled"])
def test_every_code_of_the_table_has_its_exit_code_and_one_line(
    code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error = MeshError("It went\nwrong.", code=code, hint="Try again.")
    assert exit_code_of(error) == CODES[code].exit
    assert capsys.readouterr().err == "tektonmesh: It went wrong. Try again.\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (MeshError("Cancelled.", code="cancelled"), 130),
        (BrokenPipeError(), 0),
        (SystemExit(7), 7),
        (SystemExit("text"), 1),
        (click.exceptions.Exit(4), 4),
    ],
)
def test_what_the_person_did_is_quiet(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of(error) == code
    assert capsys.readouterr().err == ""


def test_a_fault_is_one_line_that_asks_for_a_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(ValueError("odd\nvalue")) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "ValueError: odd value" in line


def test_a_fault_without_words_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code_of(AssertionError())
    assert "AssertionError" in capsys.readouterr().err


def test_the_traceback_is_shown_on_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TEKTONMESH_TRACEBACK", "1")
    exit_code_of(ValueError("odd"))
    assert "ValueError: odd" in capsys.readouterr().err.splitlines()[0]


def test_a_refusal_of_the_system_names_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(PermissionError(13, "Permission denied", "/etc/x")) == 1
    assert "/etc/x" in capsys.readouterr().err


def test_of_a_group_of_errors_the_telling_one_is_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    group = BaseExceptionGroup(
        "tasks", [ValueError("noise"), ExceptionGroup("inner", [LocalError("This is it.")])]
    )
    assert exit_code_of(group) == 2
    assert "This is it." in capsys.readouterr().err
    assert exit_code_of(BaseExceptionGroup("tasks", [KeyboardInterrupt()])) == 130
    assert exit_code_of(BaseExceptionGroup("tasks", [SystemExit(5)])) == 5


def test_candidates_are_listed_unless_the_sentence_has_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = ["west.a", "west.b"]
    exit_code_of(LocalError("Several fit.", code="ambiguous", data={"candidates": names}))
    assert "west.a, west.b" in capsys.readouterr().err
    said = LocalError("Either west.a or west.b.", code="ambiguous", data={"candidates": names})
    exit_code_of(said)
    assert capsys.readouterr().err.count("west.a") == 1


def test_a_failure_object_always_has_outcome_and_retry() -> None:
    plain = error_object(MeshError("No.", code="not_found"))
    assert (plain["outcome"], plain["retry"]) == ("released", "never")
    lost = DeliveryError("Perhaps.", outcome="indeterminate")
    assert error_object(lost)["outcome"] == "indeterminate"
