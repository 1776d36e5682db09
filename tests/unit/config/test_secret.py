"""The file with the mesh secret."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tektonmesh.config.secret import LAN_TEST_SECRET, LINE_SIZE_MIN, read_or_create_secret
from tektonmesh.errors import LocalError

GOOD, OLD = "n" * LINE_SIZE_MIN, "o" * LINE_SIZE_MIN


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_missing_file_is_made_private_with_a_good_secret(tmp_path: Path) -> None:
    path = tmp_path / "mesh.secret"
    told: list[str] = []
    (secret,) = read_or_create_secret(path, told.append)
    assert len(told) == 1
    assert str(path) in told[0]
    assert secret not in told[0]
    assert len(secret) >= LINE_SIZE_MIN
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_or_create_secret(path) == (secret,)
    assert [item.name for item in path.parent.iterdir()] == ["mesh.secret"]


def test_two_files_never_get_the_same_secret(tmp_path: Path) -> None:
    assert read_or_create_secret(tmp_path / "a") != read_or_create_secret(tmp_path / "b")


def test_two_lines_are_the_new_secret_and_the_old(tmp_path: Path) -> None:
    path = write(tmp_path / "s", f"{GOOD}\n\n  {OLD}  \n")
    assert read_or_create_secret(path) == (GOOD, OLD)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / "s", GOOD, mode)
    with pytest.raises(LocalError, match="read by others") as caught:
        read_or_create_secret(path)
    assert "chmod 600" in caught.value.hint
    assert path.read_text() == GOOD


@pytest.mark.parametrize("text", ["", "tiny!\n", f"{GOOD}\ntiny!\n", f"{GOOD}\n{OLD}\n{GOOD}\n"])
def test_a_short_line_or_a_wrong_count_is_refused_and_the_file_kept(
    tmp_path: Path, text: str
) -> None:
    path = write(tmp_path / "s", text)
    with pytest.raises(LocalError) as caught:
        read_or_create_secret(path)
    assert path.read_text() == text
    assert "tiny!" not in caught.value.sentence(), "a secret is never shown"


def test_bytes_that_are_not_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_bytes(b"\xff" * 40)
    path.chmod(0o600)
    with pytest.raises(LocalError, match="not text"):
        read_or_create_secret(path)


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "real", GOOD)
    (tmp_path / "s").symlink_to(tmp_path / "real")
    with pytest.raises(LocalError, match="cannot be read"):
        read_or_create_secret(tmp_path / "s")


def test_a_pipe_is_not_an_ordinary_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "s", 0o600)
    with pytest.raises(LocalError, match="ordinary file"):
        read_or_create_secret(tmp_path / "s")


def test_a_file_in_a_place_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LocalError, match="cannot be made"):
        read_or_create_secret(tmp_path / "missing" / "s")
    assert not (tmp_path / "missing").exists()
    with pytest.raises(LocalError, match=r"cannot be (made|read)"):
        read_or_create_secret(tmp_path / "file" / "s")


def test_the_test_secret_is_as_long_as_any_must_be() -> None:
    assert len(LAN_TEST_SECRET) >= LINE_SIZE_MIN
