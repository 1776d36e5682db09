"""What is remembered of tries, for people."""

from tektonmesh.core import attempts
from tektonmesh.core.attempts import Attempt, Attempts, Past


def test_an_attempt_is_under_way_until_something_is_heard_of_it() -> None:
    attempt = Attempt(5.0, (b"a", b"b"), b"")
    assert attempt.fate == attempts.UNDER_WAY
    attempt.ended("settled", 6.0)
    assert (attempt.fate, attempt.fate_at) == ("settled", 6.0)


def test_of_one_message_the_newest_copies_are_kept() -> None:
    found = Attempts()
    for at in range(attempts.TRIES_KEPT + 3):
        found.add(Attempt(float(at), (), b""))
    assert next(iter(found)).at == 3.0
    assert len(found.newest) == attempts.TRIES_KEPT


def test_of_messages_that_ended_the_newest_are_kept() -> None:
    past, first = Past(), Attempts()
    past.keep(b"first", first)
    assert past.get(b"first") is first
    for number in range(attempts.PAST_MAX):
        past.keep(number.to_bytes(16), Attempts())
    assert past.get(b"first") is None
    assert past.get(bytes(16)) is not None
