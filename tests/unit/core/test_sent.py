"""What is kept of ended messages, and for how long."""

from __future__ import annotations

import pytest

from tektonmesh.core import sent as sent_module
from tektonmesh.core.outgoing import Ended
from tektonmesh.core.sent import Sent
from tektonmesh.core.types import Saved
from tests.support import make_env

ME = bytes(32)


def ended(at_ms: int = 0, *, body: bytes = b"", key: bytes = b"") -> Ended:
    transitions = [["accepted", at_ms], ["answered", at_ms]]
    return Ended(ME, "echo", "", transitions, at_ms + 1000, None, "text/plain", body, key=key)


def saved_by(rows: list[tuple[str, bytes, bytes | None]], before: Saved | None = None) -> Saved:
    saved = dict(before or {})
    for table, key, value in rows:
        if value is None:
            saved.pop((table, key), None)
        else:
            saved[table, key] = value
    return saved


def test_an_end_is_found_by_its_id_and_its_key_also_after_a_restart() -> None:
    sent = Sent(make_env())
    saved = saved_by(sent.add(b"i" * 16, ended(5, body=b"hi", key=b"k")))
    again = Sent(make_env())
    again.load(saved)
    for one in (sent, again):
        found = one.get(b"i" * 16)
        assert found is not None and (found.body, found.state) == (b"hi", "answered")
        assert one.by_key(b"k") == b"i" * 16 and one.newest() == b"i" * 16
    assert sent.get(b"j" * 16) is None and sent.by_key(b"x") is None


def test_an_end_is_forgotten_when_its_time_is_over() -> None:
    sent = Sent(make_env())
    saved = saved_by(sent.add(b"i" * 16, ended(0, body=b"hi", key=b"k")))
    saved = saved_by(sent.add(b"j" * 16, ended(2000)), saved)
    assert len(sent) == 1 and sent.by_key(b"k") is None
    assert [key for _table, key in saved] == [b"j" * 16]


def test_a_key_that_was_used_again_stays_with_the_newer_message() -> None:
    sent = Sent(make_env())
    sent.add(b"i" * 16, ended(0, key=b"k"))
    sent.add(b"j" * 16, ended(1, key=b"k"))
    sent.add(b"l" * 16, ended(1000))
    assert sent.by_key(b"k") == b"j" * 16


def test_too_many_ends_or_bytes_cost_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sent_module, "ENDED_MAX", 2)
    monkeypatch.setattr(sent_module, "BODIES_MAX", 10)
    sent = Sent(make_env())
    saved: Saved = {}
    for number in range(3):
        rows = sent.add(bytes([number]) * 16, ended(number, body=b"123456"))
        saved = saved_by(rows, saved)
    assert len(sent) == 2 and sent.get(b"\0" * 16) is None
    bare, whole = sent.get(b"\1" * 16), sent.get(b"\2" * 16)
    assert bare is not None and (bare.body, bare.kept) == (b"", False)
    assert whole is not None and (whole.body, whole.kept) == (b"123456", True)
    again = Sent(make_env())
    again.load(saved)
    assert again.get(b"\1" * 16) == bare and again.get(b"\2" * 16) == whole
