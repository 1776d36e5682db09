"""Which lacking blob is looked at next, and when again."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tektonmesh.core import wants
from tektonmesh.core.wants import NO_ROOM_S, PAUSE_MAX_S, PAUSE_S, Want, Wants
from tests.support import advance, make_env, seed_bytes

A, B, C = (seed_bytes("blob", n) for n in range(3))


class Shown:
    def __init__(self) -> None:
        self.env = make_env()
        self.news = 0
        self.wants = Wants(self.env, self._count)

    def _count(self) -> None:
        self.news += 1

    def add(self, blob: bytes, via: int | None = None) -> Want:
        want = self.wants.add(blob, via)
        assert want is not None
        return want

    def ready(self) -> list[bytes]:
        return [want.blob for want in self.wants.ready(10)]


def test_wants_are_looked_at_in_the_order_in_which_they_got_ready() -> None:
    shown = Shown()
    for blob in (A, B, C):
        shown.wants.wake(shown.add(blob))
    assert shown.ready() == [A, B, C]
    assert shown.news == 3
    assert [want.blob for want in shown.wants.ready(2)] == [A, B]
    shown.wants.take(shown.add(A))
    assert shown.ready() == [B, C]
    assert len(shown.wants) == 3
    assert [want.blob for want in shown.wants.all()] == [A, B, C]


def test_what_nobody_had_is_ready_again_after_ever_longer_pauses() -> None:
    shown = Shown()
    want = shown.add(A)
    instants = []
    while len(instants) < 20:
        shown.wants.failed(want)
        assert shown.ready() == []
        before = shown.env.now
        while not shown.ready():
            advance(shown.env, 0.1)
        instants.append(shown.env.now - before)
    assert instants[0] < 1.2 * PAUSE_S + 0.2
    assert all(later > earlier for earlier, later in pairwise(instants[:10]))
    assert 0.9 * PAUSE_MAX_S <= instants[-1] <= 1.1 * PAUSE_MAX_S + 0.2


def test_a_new_reference_begins_with_short_pauses_again() -> None:
    shown = Shown()
    want = shown.add(A, 5)
    for _ in range(10):
        shown.wants.failed(want)
    assert shown.add(A) is want
    assert (want.pause_s, want.via) == (PAUSE_S, 5)
    assert shown.add(A, 7).via == 7


def test_what_has_no_room_waits_for_long() -> None:
    shown = Shown()
    want = shown.add(A)
    shown.wants.no_room(want)
    assert want.full
    advance(shown.env, 0.9 * NO_ROOM_S - 1.0)
    assert shown.ready() == []
    advance(shown.env, 0.2 * NO_ROOM_S + 2.0)
    assert shown.ready() == [A]
    assert not want.full


def test_what_a_neighbour_asked_for_is_forgotten_when_nobody_had_it() -> None:
    shown = Shown()
    want = shown.add(A)
    want.asked = True
    shown.wants.no_room(want)
    assert want.asked
    shown.wants.failed(want)
    assert not want.asked


def test_what_is_removed_never_gets_ready() -> None:
    shown = Shown()
    shown.wants.wake(shown.add(A))
    shown.wants.failed(shown.add(B))
    for blob in (A, B, C):
        shown.wants.remove(blob)
    advance(shown.env, 10.0)
    assert shown.ready() == []
    assert len(shown.wants) == 0
    assert shown.wants.get(A) is None


def test_there_are_only_so_many_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wants, "WANTS_MAX", 2)
    shown = Shown()
    shown.add(A)
    shown.add(B)
    assert shown.wants.add(C, None) is None
    assert shown.wants.add(B, None) is not None
    shown.wants.remove(A)
    assert shown.wants.add(C, None) is not None
