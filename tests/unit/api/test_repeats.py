"""Messages with a key: what a repetition gets, and what is kept of the first."""

from __future__ import annotations

from typing import Any

import pytest

from tektonmesh.api import repeats
from tektonmesh.api.repeats import KEEP_S, Repeats
from tektonmesh.errors import DeliveryError, LocalError, MeshError

KEY = ("", "numa", "k1")


class Sends:
    """A clock, and messages that end when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.repeats = Repeats(lambda: self.now)
        self.under_way: list[tuple[Any, Any]] = []
        self.heard: list[Any] = []

    def send(self, body: bytes = b"x", key: tuple[str, str, str] = KEY) -> Any:
        def begin(done: Any, failed: Any) -> Any:
            self.under_way.append((done, failed))
            return lambda: None

        return self.repeats.once(key, body, begin, self.heard.append, self.heard.append)


def test_a_repetition_gets_the_stored_reply_and_nothing_is_sent() -> None:
    sends = Sends()
    sends.send()
    sends.under_way[0][0]({"id": "1", "body": "y"})
    sends.send()
    assert sends.heard == [{"id": "1", "body": "y"}] * 2
    assert len(sends.under_way) == 1


def test_a_repetition_waits_for_the_first_and_may_stop_waiting() -> None:
    sends = Sends()
    sends.send()
    sends.send()
    sends.send()()
    assert sends.heard == []
    sends.under_way[0][0]({"id": "1"})
    assert sends.heard == [{"id": "1"}] * 2


def test_another_message_under_the_same_key_is_a_conflict() -> None:
    sends = Sends()
    sends.send()
    with pytest.raises(LocalError) as refusal:
        sends.send(b"other")
    assert refusal.value.code.name == "conflict"
    sends.send(b"other", ("", "athena", "k1"))
    sends.send(b"other", ("rhetor", "numa", "k1"))
    assert len(sends.under_way) == 3


def test_after_ten_minutes_a_key_is_new() -> None:
    sends = Sends()
    sends.send()
    sends.under_way[0][0]({"id": "1"})
    sends.now = KEEP_S
    sends.send()
    assert len(sends.under_way) == 2


@pytest.mark.parametrize(("outcome", "sent"), [("released", 2), ("indeterminate", 1)])
def test_only_what_certainly_did_not_arrive_is_sent_anew(outcome: str, sent: int) -> None:
    sends = Sends()
    sends.send()
    error: MeshError = DeliveryError("No.", outcome=outcome)
    sends.under_way[0][1](error)
    sends.send()
    assert len(sends.under_way) == sent
    assert sends.heard == [error] * (3 - sent)


def test_giving_the_first_up_is_told_to_whoever_waits_with_it() -> None:
    sends = Sends()
    give_up = sends.send()
    sends.send()
    give_up()
    assert [error.code.name for error in sends.heard] == ["cancelled"]
    assert len(sends.repeats) == 0
    give_up()


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "ENTRIES_MAX", 3)
    monkeypatch.setattr(repeats, "BYTES_MAX", 10)
    sends = Sends()
    for number in range(5):
        sends.send(key=("", "numa", str(number)))
        sends.under_way[-1][0]({"body": "123456"})
    assert len(sends.repeats) <= 3
    for number in range(10, 13):
        sends.send(key=("", "numa", str(number)))
    with pytest.raises(LocalError) as refusal:
        sends.send(key=("", "numa", "last"))
    assert refusal.value.code.name == "busy"
