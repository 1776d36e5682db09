"""The settings file: what is written, what is read, what is refused."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tektonmesh.config.settings import (
    BY_KEY,
    FILE_NAME,
    SETTINGS,
    read_settings,
    settings_text,
    write_settings,
)
from tektonmesh.errors import LocalError


def test_the_written_file_changes_nothing_but_what_was_given(tmp_path: Path) -> None:
    assert write_settings(tmp_path, {"name": "west"})
    assert read_settings(tmp_path) == {"name": "west"}


def test_a_file_that_is_there_is_never_written_over(tmp_path: Path) -> None:
    write_settings(tmp_path, {"name": "west"})
    assert not write_settings(tmp_path, {"name": "east"})
    assert read_settings(tmp_path) == {"name": "west"}


def test_every_setting_stands_in_the_file_with_an_example_that_is_accepted(
    tmp_path: Path,
) -> None:
    uncommented = [
        line.removeprefix("# ")
        for line in settings_text({}).splitlines()
        if line.startswith("# ") and line.removeprefix("# ").partition(" = ")[0] in BY_KEY
    ]
    (tmp_path / FILE_NAME).write_text("\n".join(uncommented))
    assert list(read_settings(tmp_path)) == [setting.key for setting in SETTINGS]


def test_the_untouched_file_is_valid_and_empty(tmp_path: Path) -> None:
    assert tomllib.loads(settings_text({})) == {}


def test_no_file_is_no_settings(tmp_path: Path) -> None:
    assert read_settings(tmp_path) == {}


def refuse(tmp_path: Path, text: str) -> LocalError:
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(LocalError) as caught:
        read_settings(tmp_path)
    assert FILE_NAME in caught.value.detail
    return caught.value


def test_an_unknown_key_is_refused_with_the_nearest_known_one(tmp_path: Path) -> None:
    error = refuse(tmp_path, 'share_defualt = "public"')
    assert "share_defualt" in error.detail
    assert "share_default" in error.hint


def test_an_unknown_key_like_no_other_is_refused_too(tmp_path: Path) -> None:
    assert "zzzz" in refuse(tmp_path, "zzzz = 1").detail


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "3"),
        ("name", '""'),
        ("name", '"Not Valid"'),
        ("mesh", "true"),
        ("admission", '"everyone"'),
        ("allow", '"abc"'),
        ("allow", '["abc"]'),
        ("listen", "[7700]"),
        ("listen", '["nowhere"]'),
        ("seeds", '["west:0"]'),
        ("seeds_only", '"yes"'),
        ("mdns", "1"),
        ("http", "8080"),
        ("http", '"8080"'),
        ("share_default", '"all"'),
        ("relay", "false"),
        ("refresh_s", "true"),
        ("refresh_s", "0"),
        ("refresh_s", '"100"'),
        ("log_level", '"loud"'),
        ("secret_file", "[]"),
    ],
)
def test_a_wrong_value_is_refused_with_file_and_key(tmp_path: Path, key: str, value: str) -> None:
    assert key in refuse(tmp_path, f"{key} = {value}").detail


def test_a_file_that_is_not_toml_is_refused_with_the_place(tmp_path: Path) -> None:
    assert "line 1" in refuse(tmp_path, "name = west").detail


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    with pytest.raises(LocalError, match="cannot be read"):
        read_settings(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="cannot be written"):
        write_settings(tmp_path / "missing", {})
