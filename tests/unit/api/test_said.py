"""What a handler has said of a reply that resumes, and what it says again."""

from __future__ import annotations

import json
from typing import Any

from tektonmesh.api.said import HELD_MAX, Said, name_of


def shown(lines: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.splitlines()]


def parts(lines: bytes) -> list[tuple[int, int, str]]:
    """Delivery, offset and text of each chunk."""
    found = [line["params"] for line in shown(lines) if line.get("method") == "reply.chunk"]
    return [(one["id"], one["offset"], one["data"]) for one in found]


def test_each_part_is_said_with_its_offset_in_bytes() -> None:
    said = Said()
    assert said.attach(7, 0) == b""
    assert parts(said.say("grün")) == [(7, 0, "grün")]
    assert parts(said.say(b"er")) == [(7, 5, "er")]
    assert said.say("") == b""
    assert shown(said.finish("end")) == [
        {"jsonrpc": "2.0", "id": 7, "result": {"body": "end", "offset": 7}}
    ]
    assert said.is_over


def test_while_the_daemon_is_away_nothing_is_said_and_all_of_it_later() -> None:
    said = Said()
    said.attach(7, 0)
    said.say("one ")
    said.delivery = None
    assert said.say("two ") == b"" == said.finish("end")
    lines = said.attach(9, 2)
    assert parts(lines) == [(9, 0, "one "), (9, 4, "two ")]
    assert shown(lines)[-1]["result"] == {"body": "end", "offset": 8}


def test_what_the_daemon_has_is_not_said_again() -> None:
    said = Said()
    said.attach(7, 0)
    for word in ("one ", "two ", "three "):
        said.say(word)
    said.kept(4)
    assert parts(said.attach(8, 8)) == [(8, 8, "three ")]
    assert said.attach(9, 14) == b""


def test_what_is_not_here_any_more_is_a_failure_and_not_a_hole() -> None:
    said = Said()
    said.attach(7, 0)
    said.say("one ")
    said.say("two ")
    said.kept(4)
    [line] = shown(said.attach(8, 0))
    assert line["error"]["data"]["code"] == "ci_failed"


def test_a_new_handler_of_a_reply_that_was_begun_says_it_from_its_beginning() -> None:
    said = Said()
    assert said.attach(7, 100) == b""
    assert parts(said.say("one ")) == [(7, 0, "one ")]


def test_a_handler_may_be_ahead_by_so_much_only() -> None:
    said = Said()
    said.say(bytes(HELD_MAX))
    assert not said.is_full
    said.say(b"x")
    assert said.is_full
    said.kept(HELD_MAX)
    assert not said.is_full


def test_a_message_is_known_by_its_id_and_its_ci_whichever_delivery_it_is() -> None:
    params = {"id": "ab", "to": "Numa", "reply_from": 0}
    assert name_of({"id": 1, "params": params}) == name_of({"id": 2, "params": params}) == "ab numa"
    assert name_of({"id": 1, "params": {"id": "ab", "to": "numa"}}) is None
