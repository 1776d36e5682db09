"""Which home, which socket, and what a home is for."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tektonmesh.config.home import (
    SOCKET_PATH_MAX,
    claim_home,
    lan_homes,
    prepare_socket_folder,
    resolve_home,
    socket_path,
    state_folder,
    tekton_environment,
)
from tektonmesh.errors import LocalError


def test_the_home_given_wins_over_everything(tmp_path: Path) -> None:
    environ = {"TEKTONMESH_HOME": "/elsewhere", "TEKTON_ROOT": "/tekton"}
    assert resolve_home(tmp_path, environ) == tmp_path


def test_the_environment_names_the_home_before_tekton_does() -> None:
    environ = {"TEKTONMESH_HOME": "/elsewhere", "TEKTON_ROOT": "/tekton"}
    assert resolve_home(None, environ) == Path("/elsewhere")
    del environ["TEKTONMESH_HOME"]
    assert resolve_home(None, environ) == Path("/tekton/.tekton/tektonmesh")


def test_without_any_word_the_home_is_in_the_state_folder() -> None:
    assert resolve_home(None, {}) == state_folder() / "default"


def test_a_relative_home_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_home("here") == tmp_path / "here"


def test_a_bare_word_is_a_home_beside_the_default_one_unless_it_is_a_folder_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.chdir(tmp_path)
    beside = state_folder() / "lan-2"
    assert resolve_home("lan-2") == tmp_path / "lan-2"
    beside.mkdir(parents=True)
    assert resolve_home("lan-2") == beside
    (tmp_path / "lan-2").mkdir()
    assert resolve_home("lan-2") == tmp_path / "lan-2"


def test_test_stacks_have_numbered_homes_beside_the_default_one() -> None:
    numbers = [(number, home.name) for number, home in lan_homes()][:3]
    assert numbers == [(1, "lan-1"), (2, "lan-2"), (3, "lan-3")]


# --- the socket ----------------------------------------------------------------------------------


@pytest.fixture
def short_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder whose own path is short enough for a socket in it."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as folder:
        monkeypatch.setattr("tempfile.tempdir", folder)
        yield Path(folder)


def long_home(tmp_path: Path) -> Path:
    home = tmp_path / ("x" * SOCKET_PATH_MAX)
    home.mkdir()
    return home


def test_the_socket_is_in_the_home_when_its_path_is_short() -> None:
    assert socket_path(Path("/h"), {}) == Path("/h/tektonmesh.sock")


def test_a_long_path_gets_a_short_socket_that_depends_on_the_home_alone(tmp_path: Path) -> None:
    home = long_home(tmp_path)
    runtime = {"XDG_RUNTIME_DIR": "/run/user/7"}
    short = socket_path(home, runtime)
    assert short == socket_path(home, runtime)
    assert len(os.fsencode(short)) <= SOCKET_PATH_MAX
    assert short.is_relative_to("/run/user/7")
    assert not socket_path(home, {}).is_relative_to(home)


def test_two_homes_never_share_a_short_socket(tmp_path: Path) -> None:
    one, two = tmp_path / ("a" * SOCKET_PATH_MAX), tmp_path / ("b" * SOCKET_PATH_MAX)
    assert socket_path(one, {}) != socket_path(two, {})


def test_a_client_without_a_runtime_folder_finds_the_socket_that_exists(
    short_folder: Path,
) -> None:
    home = long_home(short_folder)
    made = socket_path(home, {})
    prepare_socket_folder(made, home)
    made.touch()
    assert socket_path(home, {"XDG_RUNTIME_DIR": "/nonexistent"}) == made


def test_a_socket_in_a_folder_that_others_may_write_is_never_taken(
    short_folder: Path,
) -> None:
    home = long_home(short_folder)
    planted = socket_path(home, {})
    planted.parent.mkdir()
    planted.parent.chmod(0o777)
    planted.touch()
    assert socket_path(home, {"XDG_RUNTIME_DIR": "/nonexistent"}) != planted
    with pytest.raises(LocalError, match="not ours alone"):
        prepare_socket_folder(planted, home)


def test_preparing_the_folder_of_a_short_socket_makes_it_private(
    short_folder: Path,
) -> None:
    home = long_home(short_folder)
    path = socket_path(home, {})
    prepare_socket_folder(path, home)
    prepare_socket_folder(path, home)
    assert path.parent.stat().st_mode & 0o777 == 0o700


# --- what a home is for --------------------------------------------------------------------------


def test_a_new_home_is_private_and_new_only_once(tmp_path: Path) -> None:
    home = tmp_path / "state" / "home"
    assert claim_home(home, lan=False)
    assert not claim_home(home, lan=False)
    assert home.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("lan", [True, False])
def test_a_home_serves_one_profile_for_all_its_life(tmp_path: Path, lan: bool) -> None:
    claim_home(tmp_path / "home", lan=lan)
    with pytest.raises(LocalError):
        claim_home(tmp_path / "home", lan=not lan)
    assert not claim_home(tmp_path / "home", lan=lan)


def test_a_home_with_an_identity_and_no_mark_was_used_in_normal_mode(tmp_path: Path) -> None:
    (tmp_path / "identity").mkdir()
    with pytest.raises(LocalError, match="normal mode"):
        claim_home(tmp_path, lan=True)


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LocalError, match="cannot be made"):
        claim_home(tmp_path / "file" / "home", lan=False)


# --- Tekton --------------------------------------------------------------------------------------


def test_tektons_files_are_read_and_the_later_one_wins(tmp_path: Path) -> None:
    (tmp_path / ".env.tekton").write_text(
        "# a comment\nTEKTON_REGISTRY_NAME=primary\nexport TEKTON_PORT_BASE='8100'\nno equals\n"
        'QUOTED="a b" # after\nBARE=x # after\n=nothing\n'
    )
    (tmp_path / ".env.local").write_text("TEKTON_REGISTRY_NAME=local\n")
    found = tekton_environment({"TEKTON_ROOT": str(tmp_path)})
    assert found["TEKTON_REGISTRY_NAME"] == "local"
    assert found["TEKTON_PORT_BASE"] == "8100"
    assert (found["QUOTED"], found["BARE"]) == ("a b", "x")


def test_the_processes_own_environment_wins_over_tektons_files(tmp_path: Path) -> None:
    (tmp_path / ".env.local").write_text("TEKTON_REGISTRY_NAME=local\n")
    environ = {"TEKTON_ROOT": str(tmp_path), "TEKTON_REGISTRY_NAME": "mine"}
    assert tekton_environment(environ)["TEKTON_REGISTRY_NAME"] == "mine"
