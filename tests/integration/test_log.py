"""The log: one line per entry, nothing that was not ours to write, JSON on demand."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from tektonmesh.core.effects import Notice
from tektonmesh.core.ids import show_id
from tektonmesh.net.log import clean, log_to, plain, sentence
from tektonmesh.net.notices import Notices


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where the package logs to during the test."""
    logger = logging.getLogger("tektonmesh")
    before = (logger.handlers[:], logger.level, logger.propagate)
    try:
        yield io.StringIO()
    finally:
        logger.handlers[:], logger.propagate = before[0], before[2]
        logger.setLevel(before[1])


def test_a_notice_is_one_readable_line(stream: io.StringIO) -> None:
    log_to(stream, "info")
    Notices().take(Notice("stack_up", {"name": "west", "rtt_ms": 1.25, "why": "it is back"}))
    (line,) = stream.getvalue().splitlines()
    assert line.endswith(' info mesh: stack up: name=west rtt_ms=1.25 why="it is back"')


def test_a_notice_is_one_json_object_when_asked(stream: io.StringIO) -> None:
    log_to(stream, "info", as_json=True)
    Notices().take(Notice("store_failed", {"detail": "full"}))
    shown = json.loads(stream.getvalue())
    assert (shown["level"], shown["kind"]) == ("warning", "store_failed")
    assert shown["values"] == {"detail": "full"}


def test_frequent_notices_are_left_out_of_an_ordinary_log(stream: io.StringIO) -> None:
    log_to(stream, "info")
    notices = Notices()
    notices.take(Notice("message_done", {"ms": 3.0}))
    assert stream.getvalue() == ""
    assert notices.counters["message_ms_count"] == 1
    assert notices.counters["message_ms_le_5"] == 1
    assert "message_ms_le_2" not in notices.counters


def test_secrets_and_bodies_are_never_written() -> None:
    told = {"body": b"b", "token": "t", "headers": {"a": 1}, "how": {"headers": {}, "url": "u"}}
    assert plain(told) == {"how": {"url": "u"}}


def test_ids_and_bytes_are_written_as_people_know_them() -> None:
    stack_id = bytes(range(32))
    shown = plain({"id": stack_id, "hash": b"\x01\xff", "all": [stack_id], "n": None})
    assert shown == {"id": show_id(stack_id), "hash": "01ff", "all": [show_id(stack_id)], "n": None}


def test_what_peers_call_themselves_cannot_forge_a_line() -> None:
    assert clean("west\n10:00 warning: all is well\x1b[2J\u202e") == (
        "west?10:00 warning: all is well?[2J?"
    )
    assert len(clean("x" * 10_000)) < 400
    assert "\n" not in sentence("kind", {"name": "a\nb", "list": ["c\nd"], "map": {"k\n": "v"}})
