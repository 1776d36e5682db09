"""How words become verbs, and failures one line and an exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tektonmesh.cli.main import main
from tektonmesh.cli.verbs import VERBS
from tektonmesh.config import socket_path


@pytest.fixture(autouse=True)
def no_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("TEKTON_ROOT", "TEKTONMESH_SOCKET", "TEKTON_REGISTRY_NAME"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("TEKTONMESH_HOME", str(tmp_path / "home"))


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith("tektonmesh: ")
    return captured.err


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("ask", ["--help", "-h", "help"])
def test_every_verb_has_help_with_an_example(
    verb: str, ask: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, ask]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"Example: tektonmesh {verb}" in shown or "numa@west" in shown
    for option in ("--home", "--socket", "--json"):
        assert option in shown


@pytest.mark.parametrize("words", [[], ["help"], ["--help"]])
def test_help_lists_every_verb(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {verb} " in shown for verb in VERBS)


def test_help_of_a_verb_may_be_asked_for_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "status"]) == 0
    assert "tektonmesh status" in capsys.readouterr().out


def test_an_unknown_verb_is_answered_with_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["statsu"]) == 2
    assert "'status'" in one_line(capsys)


def test_a_verb_like_no_other_is_answered_with_where_to_look(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["qqqq"]) == 2
    assert "tektonmesh help" in one_line(capsys)


def test_an_unknown_option_is_answered_with_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["status", "--jsn"]) == 2
    assert "--json" in one_line(capsys)


@pytest.mark.parametrize(
    "words",
    [
        ["status", "extra"],
        ["trace"],
        ["send"],
        ["find"],
        ["register"],
        ["register", "a", "--share", "all"],
        ["deregister"],
        ["attach"],
        ["attach", "a"],
        ["attach", "a", "--parallel", "0", "--", "cat"],
        ["attach", "a", "--", "no-such-command-anywhere"],
        ["send", "a", "b", "--timeout", "soon"],
        ["trace", "a", "--timeout", "-1"],
        ["watch", "--kind"],
        ["peers", "approve"],
        ["peers", "list", "x"],
        ["peers", "forgive", "x"],
        ["demo", "--stacks", "2"],
        ["sim", "--nodes", "0"],
        ["init", "--name", "Not Valid"],
        ["run", "--seed", "nowhere"],
        ["run", "--listen", "::1:7700"],
        ["run", "--admit", "abc"],
        ["run", "--http", "80"],
        ["run", "--mesh", "a@b"],
        ["cis", "--home"],
    ],
)
def test_wrong_arguments_are_one_line_and_exit_2(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    one_line(capsys)


@pytest.mark.parametrize(
    "words",
    [
        ["status"],
        ["stacks"],
        ["cis"],
        ["find", "x"],
        ["trace", "x"],
        ["trace", "x", "--dry-run"],
        ["watch"],
        ["send", "numa@west", "hello"],
        ["numa@west", "hello"],
        ["register", "numa"],
        ["deregister", "numa"],
        ["attach", "numa", "--", "cat"],
        ["peers"],
        ["peers", "approve", "abc"],
    ],
)
def test_without_a_daemon_a_verb_is_one_line_and_exit_3(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 3
    assert "tektonmesh run" in one_line(capsys)


def test_the_hint_names_the_home_that_was_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--home", str(tmp_path / "other")]) == 3
    assert f"--home {tmp_path / 'other'}" in one_line(capsys)


def test_running_test_stacks_are_named_when_the_default_home_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TEKTONMESH_HOME")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    first = tmp_path / "tektonmesh" / "lan-1"
    first.mkdir(parents=True)
    socket_path(first).parent.mkdir(mode=0o700, exist_ok=True)
    socket_path(first).touch()
    assert main(["status"]) == 3
    assert "--home lan-1" in one_line(capsys)


def test_options_before_the_verb_count_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--home", str(tmp_path / "first"), "status"]) == 3
    assert "first" in one_line(capsys)
    assert (
        main(["--home", str(tmp_path / "first"), "status", "--home", str(tmp_path / "last")]) == 3
    )
    assert "last" in one_line(capsys)


@pytest.mark.parametrize("words", [["cis", "--json"], ["cis", "json"], ["--json", "cis"]])
def test_a_failure_under_json_is_an_object_on_stdout_and_a_line_on_stderr(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    assert main(words) == 3
    captured = capsys.readouterr()
    error = json.loads(captured.out)["error"]
    assert error["code"] == "no_daemon"
    assert set(error) >= {"code", "detail", "outcome", "retry"}
    assert captured.err.count("\n") == 1


def test_the_word_json_is_an_argument_where_one_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["trace", "json"]) == 3
    one_line(capsys)


def test_help_imports_neither_trio_nor_any_verb() -> None:
    code = (
        "import sys; from tektonmesh.cli.main import main; main(['help']);"
        "loaded = [m for m in sys.modules if m.startswith(('trio', 'rich', 'tektonmesh.cli.com'))];"
        "assert loaded == ['tektonmesh.cli.common'], loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_status_imports_neither_trio_nor_rich() -> None:
    code = (
        "import sys; from tektonmesh.cli.main import main;"
        "assert main(['status', '--home', '/nonexistent']) == 3;"
        "assert not {'trio', 'rich', 'httpx', 'nacl'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stderr=subprocess.DEVNULL)
