"""What was announced and did not come: who is asked for it, and when."""

from __future__ import annotations

import pytest

from tektonmesh.core import grafts as gr
from tektonmesh.core.messages import News
from tektonmesh.core.types import Version
from tests.support import advance, make_env, seed_bytes

WAIT_S = 0.1
ONE, TWO, THREE = 1, 2, 3
OWNER, OTHER = seed_bytes("owner"), seed_bytes("other")


class Asker:
    """The grafts of a node; `asked` gathers (instant from the start, link, owners)."""

    def __init__(self, rtts: dict[int, float] | None = None) -> None:
        self.env = make_env(graft_wait_s=WAIT_S)
        self.start = self.env.now
        self.asked: list[tuple[float, int, list[bytes]]] = []
        rtts = rtts or {}
        self.grafts = gr.Grafts(self.env, self._ask, lambda link: rtts.get(link, 0.0))

    def _ask(self, link: int, owners: list[bytes]) -> None:
        self.asked.append((round(self.env.now - self.start, 6), link, owners))

    def hear(self, link: int, owner: bytes = OWNER, ver: int = 1) -> None:
        self.grafts.announced(link, News(owner, Version(0, 5, ver), bytes(8)))

    def wait(self, seconds: float) -> list[tuple[float, int, list[bytes]]]:
        """Let time pass; what was asked meanwhile."""
        advance(self.env, seconds)
        asked, self.asked = self.asked, []
        return asked


def test_what_does_not_come_is_asked_of_the_first_announcer_after_the_wait() -> None:
    asker = Asker()
    asker.hear(TWO)
    asker.hear(ONE)
    assert asker.wait(WAIT_S * 0.9) == []
    assert asker.wait(WAIT_S * 0.2) == [(WAIT_S, TWO, [OWNER])]


def test_the_wait_is_half_a_round_trip_of_the_link_where_that_is_longer() -> None:
    asker = Asker({ONE: 0.6, TWO: 0.05})
    asker.hear(ONE)
    asker.hear(TWO)
    assert asker.wait(1.0) == [(0.3, ONE, [OWNER]), (0.6, TWO, [OWNER])]


@pytest.mark.hostile("promised-never-delivered")
def test_the_announcers_are_asked_one_after_the_other_and_then_it_is_given_up() -> None:
    asker = Asker()
    for link in (ONE, TWO, THREE):
        asker.hear(link)
    asked = asker.wait(10.0)
    assert [(at, link) for at, link, _ in asked] == [(0.1, ONE), (0.2, TWO), (0.3, THREE)]
    assert len(asker.grafts) == 0
    assert asker.env.deadlines.earliest() == float("inf"), "nothing is waited for"


def test_a_link_that_announces_twice_is_asked_once() -> None:
    asker = Asker()
    asker.hear(ONE)
    asker.hear(ONE)
    assert len(asker.wait(10.0)) == 1


def test_what_came_is_not_asked_for() -> None:
    asker = Asker()
    asker.hear(ONE, ver=2)
    asker.grafts.came(OWNER, Version(0, 5, 2))
    asker.grafts.came(OTHER, Version(0, 5, 2))
    assert len(asker.grafts) == 0
    assert asker.wait(10.0) == []


def test_an_older_version_that_came_is_not_what_was_announced() -> None:
    asker = Asker()
    asker.hear(ONE, ver=2)
    asker.grafts.came(OWNER, Version(0, 5, 1))
    assert asker.wait(10.0) == [(WAIT_S, ONE, [OWNER])]


def test_of_two_versions_the_announcers_of_the_newer_are_asked() -> None:
    asker = Asker()
    asker.hear(ONE, ver=1)
    asker.hear(TWO, ver=3)
    asker.hear(THREE, ver=2)
    assert [link for _, link, _ in asker.wait(10.0)] == [TWO]


def test_a_newer_version_does_not_put_the_question_off() -> None:
    asker = Asker()
    asker.hear(ONE, ver=1)
    asker.wait(WAIT_S * 0.9)
    asker.hear(ONE, ver=2)
    assert asker.wait(10.0) == [(WAIT_S, ONE, [OWNER])]


def test_what_is_due_together_goes_in_one_message_for_each_link() -> None:
    asker = Asker()
    third = seed_bytes("third")
    for link, owner in ((ONE, OWNER), (TWO, third), (ONE, OTHER)):
        asker.hear(link, owner)
    assert asker.wait(WAIT_S) == [(WAIT_S, ONE, [OWNER, OTHER]), (WAIT_S, TWO, [third])]


def test_what_was_announced_later_is_asked_for_later() -> None:
    asker = Asker()
    asker.hear(ONE)
    asker.wait(0.04)
    asker.hear(TWO, OTHER)
    assert asker.wait(10.0) == [(0.1, ONE, [OWNER]), (0.14, TWO, [OTHER])]


def test_what_is_announced_sooner_on_a_nearer_link_does_not_wait_for_the_farther() -> None:
    asker = Asker({ONE: 10.0})
    asker.hear(ONE)
    asker.hear(TWO, OTHER)
    assert asker.wait(10.0) == [(0.1, TWO, [OTHER]), (5.0, ONE, [OWNER])]


def test_a_link_that_is_gone_is_passed_over() -> None:
    asker = Asker()
    asker.hear(ONE)
    asker.hear(TWO)
    asker.hear(ONE, OTHER)
    asker.grafts.drop_link(ONE)
    assert asker.wait(10.0) == [(WAIT_S, TWO, [OWNER])]
    assert len(asker.grafts) == 0


def test_an_owner_that_was_forgotten_is_not_asked_for() -> None:
    asker = Asker()
    asker.hear(ONE)
    asker.hear(ONE, OTHER)
    asker.grafts.forget(OWNER)
    asker.grafts.forget(seed_bytes("nobody"))
    assert asker.wait(10.0) == [(WAIT_S, ONE, [OTHER])]


def test_the_announcers_of_one_head_are_bounded() -> None:
    asker = Asker()
    for link in range(20):
        asker.hear(link)
    assert [link for _, link, _ in asker.wait(60.0)] == list(range(gr.ANNOUNCERS_MAX))


def test_the_owners_waited_for_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gr, "OWNERS_MAX", 2)
    asker = Asker()
    owners = [seed_bytes(n) for n in range(3)]
    for owner in owners:
        asker.hear(ONE, owner)
    assert len(asker.grafts) == 2
    asker.hear(TWO, owners[0])
    assert asker.wait(WAIT_S) == [(WAIT_S, ONE, owners[:2])]
    assert asker.wait(WAIT_S) == [(2 * WAIT_S, TWO, owners[:1])]
