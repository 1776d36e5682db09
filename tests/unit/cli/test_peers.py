"""How the list of peers looks at a terminal, and what ends an attached command."""

from __future__ import annotations

import pytest

from tektonmesh.cli.commands.attach import end_if_removed
from tektonmesh.cli.commands.peers import lines_for_people
from tektonmesh.errors import MeshError


def test_an_id_stands_whole_on_a_line_of_its_own() -> None:
    peer = {"id": "a" * 52, "name": "west", "state": "pending", "last_seen": None, "reason": ""}
    lines = lines_for_people([peer])
    assert lines[2].strip() == "a" * 52
    assert max(len(line) for line in lines) < 80


def test_a_peer_that_is_held_off_is_shown_with_that_instead_of_why_it_was_admitted() -> None:
    peer = {"id": "a" * 52, "name": "west", "state": "admitted", "reason": "secret"}
    assert "secret" in lines_for_people([peer | {"held_off_s": 0.0}])[1]
    line = lines_for_people([peer | {"held_off_s": 59.6}])[1]
    assert "held off for 60 s" in line and "secret" not in line


def test_an_attached_command_ends_when_its_ci_is_removed() -> None:
    end_if_removed("numa", {"kind": "ci_deregistered", "ci": "other"})
    with pytest.raises(MeshError, match="somebody else") as failure:
        end_if_removed("Numa", {"kind": "ci_deregistered", "ci": "numa"})
    assert failure.value.code.exit == 1
