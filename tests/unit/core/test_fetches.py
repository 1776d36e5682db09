"""Fetching a blob from one neighbour after the other, and finding out who lies."""

from __future__ import annotations

from typing import Any

import pytest

from tektonmesh.core.effects import Send
from tektonmesh.core.fetches import ASK_COST, PATIENCE_AHEAD_S, PATIENCE_S, Fetches
from tektonmesh.core.messages import PIECE_SIZE, Fetch, Lacking, Piece
from tektonmesh.core.references import Blob
from tektonmesh.core.stash import hash_blob
from tektonmesh.errors import RemoteError
from tests.support import advance, make_env, only

ONE, TWO, THREE = 1, 2, 3
DATA = (b"tekton " * 30_000)[: 3 * PIECE_SIZE + 100]
"""Four pieces."""
A = hash_blob(DATA)
SHORT = b"a short one"
WRONG = DATA[:-1] + b"?"


class Shown:
    """Fetches over links 1, 2, 3."""

    def __init__(self, **settings: Any) -> None:
        self.env = make_env(**settings)
        self.ended: list[tuple[Blob, bytes | None]] = []
        self.fetches = Fetches(self.env, lambda blob, data: self.ended.append((blob, data)))

    def begin(
        self, *links: int, blob: Blob = A, size_max: int = len(DATA), wanted: bool = True
    ) -> None:
        self.fetches.begin(blob, size_max, list(links or (ONE, TWO, THREE)), wanted=wanted)

    def asks(self) -> list[tuple[int, int]]:
        """(link, offset) of what was asked since the last call."""
        return [
            (effect.link, message.offset)
            for effect in only(self.env.take(), Send)
            for message in effect.messages
            if isinstance(message, Fetch)
        ]

    def give(self, link: int, offset: int, data: bytes = DATA, blob: Blob = A) -> None:
        """The piece at `offset` comes from a link."""
        piece = data[offset : offset + PIECE_SIZE]
        self.fetches.on_piece(link, Piece(blob, offset, len(data), piece))

    def give_all(self, link: int, data: bytes = DATA) -> None:
        for offset in range(0, len(data), PIECE_SIZE):
            self.give(link, offset, data)

    def lack(self, link: int) -> None:
        self.fetches.on_lacking(link, Lacking(A))


def test_a_blob_is_pulled_piece_by_piece_and_verified() -> None:
    shown = Shown()
    shown.begin(ONE, TWO)
    for offset in range(0, len(DATA), PIECE_SIZE):
        assert shown.asks() == [(ONE, offset)]
        assert shown.ended == []
        shown.give(ONE, offset)
    assert shown.ended == [(A, DATA)]
    assert shown.asks() == []
    assert A not in shown.fetches
    assert advance(shown.env, 60.0) == []


def test_who_lacks_it_is_followed_by_the_next() -> None:
    shown = Shown()
    shown.begin()
    assert shown.asks() == [(ONE, 0)]
    shown.lack(ONE)
    assert shown.asks() == [(TWO, 0)]
    shown.lack(TWO)
    shown.lack(THREE)
    assert shown.ended == [(A, None)]
    assert len(shown.fetches) == 0


def test_who_is_silent_is_followed_by_the_next_and_answers_too_late() -> None:
    shown = Shown()
    shown.begin(ONE, TWO)
    assert shown.asks() == [(ONE, 0)]
    effects = advance(shown.env, PATIENCE_S + 0.1)
    assert [effect.link for effect in only(effects, Send)] == [TWO]
    shown.give(ONE, 0)
    shown.lack(ONE)
    assert shown.asks() == []
    shown.give_all(TWO)
    assert shown.ended == [(A, DATA)]


def test_when_a_link_goes_half_way_the_next_goes_on_where_it_stopped() -> None:
    shown = Shown()
    shown.begin()
    shown.give(ONE, 0)
    shown.give(ONE, PIECE_SIZE)
    shown.env.take()
    shown.fetches.link_down(TWO)
    assert shown.asks() == [], "it was not the one that was asked"
    shown.fetches.link_down(ONE)
    assert shown.asks() == [(THREE, 2 * PIECE_SIZE)]
    shown.give(THREE, 2 * PIECE_SIZE)
    shown.give(THREE, 3 * PIECE_SIZE)
    assert shown.ended == [(A, DATA)]


def test_a_fetch_with_no_link_left_ends_without_the_blob() -> None:
    shown = Shown()
    shown.begin(ONE)
    shown.give(ONE, 0)
    shown.fetches.link_down(TWO)
    assert shown.ended == []
    shown.fetches.link_down(ONE)
    assert shown.ended == [(A, None)]


def test_answers_that_nobody_asked_for_change_nothing() -> None:
    shown = Shown()
    shown.give(ONE, 0)
    shown.lack(ONE)
    shown.begin(ONE, TWO)
    assert shown.asks() == [(ONE, 0)]
    shown.give(TWO, 0)
    shown.lack(TWO)
    shown.give(ONE, PIECE_SIZE)
    assert shown.asks() == []
    shown.give(ONE, 0)
    shown.give(ONE, 0)
    assert shown.asks() == [(ONE, PIECE_SIZE)]


def test_a_stopped_fetch_is_over() -> None:
    shown = Shown()
    shown.begin()
    shown.fetches.stop(A)
    shown.fetches.stop(A)
    shown.env.take()
    shown.give(ONE, 0)
    assert advance(shown.env, 60.0) == []
    assert shown.ended == []


# --- liars ---------------------------------------------------------------------------------------


def test_a_wrong_blob_of_one_link_is_its_fault_and_others_are_asked_from_the_start() -> None:
    shown = Shown()
    shown.begin()
    for offset in range(0, 3 * PIECE_SIZE, PIECE_SIZE):
        shown.give(ONE, offset, WRONG)
    shown.env.take()
    with pytest.raises(RemoteError, match="hash"):
        shown.give(ONE, 3 * PIECE_SIZE, WRONG)
    assert shown.asks() == [(TWO, 0)]
    shown.give_all(TWO)
    assert shown.ended == [(A, DATA)]


def test_when_the_only_link_gives_a_wrong_blob_the_fetch_ends_without() -> None:
    shown = Shown()
    shown.begin(ONE)
    with pytest.raises(RemoteError):
        shown.give_all(ONE, WRONG)
    assert shown.ended == [(A, None)]


def test_a_wrong_blob_of_several_links_is_nobodys_fault_until_one_gives_it_alone() -> None:
    shown = Shown()
    shown.begin()
    other = b"?" + DATA[1:]
    shown.give(ONE, 0, other)
    shown.fetches.on_lacking(ONE, Lacking(A))
    for offset in (PIECE_SIZE, 2 * PIECE_SIZE):
        shown.give(TWO, offset)
    shown.env.take()
    shown.give(TWO, 3 * PIECE_SIZE)
    assert shown.asks() == [(TWO, 0)], "it is asked for the whole"
    assert shown.ended == []
    shown.lack(TWO)
    assert shown.asks() == [(ONE, 0)]
    with pytest.raises(RemoteError):
        shown.give_all(ONE, other)
    shown.give_all(THREE)
    assert shown.ended == [(A, DATA)]


def test_alone_a_link_that_goes_half_way_leaves_nothing_behind() -> None:
    shown = Shown()
    shown.begin(ONE, TWO)
    shown.give(ONE, 0, b"?" + DATA[1:])
    shown.lack(ONE)
    for offset in (PIECE_SIZE, 2 * PIECE_SIZE, 3 * PIECE_SIZE):
        shown.give(TWO, offset)
    shown.give(TWO, 0)
    shown.env.take()
    shown.fetches.link_down(TWO)
    assert shown.asks() == [(ONE, 0)]


def test_a_false_length_of_an_earlier_link_does_not_fall_on_the_next() -> None:
    shown = Shown()
    shown.begin(ONE, TWO, size_max=1 << 20)
    shown.give(ONE, 0, DATA + DATA)
    shown.lack(ONE)
    shown.env.take()
    shown.give(TWO, PIECE_SIZE)
    assert shown.asks() == [(TWO, 0)]
    shown.give_all(TWO)
    assert shown.ended == [(A, DATA)]


def test_a_false_length_that_leaves_others_nothing_to_give_is_found_out() -> None:
    """TWO holds a blob that ends before what ONE gave: it has nothing at that offset."""
    shown = Shown()
    blob = hash_blob(SHORT)
    shown.begin(ONE, TWO, blob=blob, size_max=1 << 20)
    shown.give(ONE, 0, DATA, blob)
    shown.fetches.on_lacking(ONE, Lacking(blob))
    assert shown.asks()[-1] == (TWO, PIECE_SIZE)
    shown.fetches.on_lacking(TWO, Lacking(blob))
    assert shown.asks() == [(TWO, 0)]
    shown.give(TWO, 0, SHORT, blob)
    assert shown.ended == [(blob, SHORT)]


def test_where_all_gave_a_part_and_stopped_the_fetch_ends_without() -> None:
    shown = Shown()
    shown.begin(ONE)
    shown.give(ONE, 0)
    shown.lack(ONE)
    assert shown.ended == [(A, None)]


def test_a_link_that_tells_of_two_lengths_contradicts_itself() -> None:
    shown = Shown()
    shown.begin(ONE, TWO, size_max=1 << 20)
    shown.give(ONE, 0)
    shown.env.take()
    with pytest.raises(RemoteError, match="lengths"):
        shown.give(ONE, PIECE_SIZE, DATA + DATA)
    assert shown.asks() == [(TWO, 0)]


def test_a_blob_longer_than_asked_for_is_refused() -> None:
    shown = Shown()
    shown.begin(ONE, TWO, size_max=len(DATA) - 1)
    shown.env.take()
    with pytest.raises(RemoteError, match="larger"):
        shown.give(ONE, 0)
    assert shown.asks() == [(TWO, 0)]


def test_a_liar_takes_nothing_of_others_along() -> None:
    shown = Shown()
    shown.begin()
    shown.give(ONE, 0)
    shown.fetches.link_down(ONE)
    shown.env.take()
    with pytest.raises(RemoteError):
        shown.give(TWO, PIECE_SIZE, DATA + DATA)
    assert shown.asks() == [(THREE, PIECE_SIZE)]


@pytest.mark.parametrize(
    ("offset", "total", "size"),
    [
        (0, len(DATA), 0),
        (0, len(DATA), PIECE_SIZE - 1),
        (0, len(DATA), PIECE_SIZE + 1),
        (0, 5, 6),
        (0, 0, 0),
        (5, 5, 0),
        (6, 5, 1),
    ],
)
def test_a_blob_has_one_cutting(offset: int, total: int, size: int) -> None:
    shown = Shown()
    shown.begin(ONE)
    with pytest.raises(RemoteError, match="length"):
        shown.fetches.on_piece(ONE, Piece(A, offset, total, bytes(size)))
    assert shown.ended == []


# --- the budget ----------------------------------------------------------------------------------


def test_what_nobody_waits_for_comes_no_faster_than_the_budget() -> None:
    shown = Shown(blob_prefetch_bytes_per_s=PIECE_SIZE)
    shown.begin(wanted=False)
    assert shown.asks() == [(ONE, 0)]
    shown.give(ONE, 0)
    assert shown.asks() == []
    effects = advance(shown.env, 0.9)
    assert only(effects, Send) == []
    assert [m.offset for m in only(advance(shown.env, 0.2), Send)[0].messages] == [PIECE_SIZE]
    assert shown.fetches.wanted == 0


def test_a_piece_that_has_not_been_asked_for_yet_is_not_taken() -> None:
    shown = Shown(blob_prefetch_bytes_per_s=PIECE_SIZE)
    shown.begin(wanted=False)
    shown.give(ONE, 0)
    shown.env.take()
    shown.give(ONE, PIECE_SIZE)
    shown.lack(ONE)
    effects = advance(shown.env, 2.0)
    assert [(e.link, e.messages[0].offset) for e in only(effects, Send)] == [(ONE, PIECE_SIZE)]


def test_what_somebody_waits_for_does_not_wait_for_the_budget() -> None:
    shown = Shown(blob_prefetch_bytes_per_s=PIECE_SIZE)
    shown.begin(wanted=False)
    shown.give(ONE, 0)
    shown.env.take()
    shown.fetches.hurry(A)
    assert shown.asks() == [(ONE, PIECE_SIZE)]
    assert shown.fetches.wanted == 1
    for offset in (PIECE_SIZE, 2 * PIECE_SIZE, 3 * PIECE_SIZE):
        shown.give(ONE, offset)
    assert shown.ended == [(A, DATA)]


def test_what_nobody_waits_for_may_take_longer() -> None:
    shown = Shown()
    shown.begin(ONE, TWO, wanted=False)
    shown.env.take()
    advance(shown.env, PATIENCE_AHEAD_S - 1.0)
    assert shown.asks() == []
    assert [e.link for e in only(advance(shown.env, 2.0), Send)] == [TWO]


def test_to_hurry_shortens_the_patience_and_never_lengthens_it() -> None:
    shown = Shown()
    shown.begin(ONE, TWO, wanted=False)
    shown.env.take()
    shown.fetches.hurry(A)
    assert advance(shown.env, PATIENCE_S - 1.0) == []
    shown.fetches.hurry(A)
    assert [e.link for e in only(advance(shown.env, 1.1), Send)] == [TWO]


def test_to_hurry_does_not_ask_twice() -> None:
    shown = Shown()
    shown.begin(wanted=False)
    shown.fetches.hurry(A)
    shown.fetches.hurry(A)
    assert shown.asks() == [(ONE, 0)]


def test_who_says_no_costs_the_budget_little() -> None:
    shown = Shown(blob_prefetch_bytes_per_s=2 * PIECE_SIZE)
    for n in range(20):
        blob = hash_blob(b"%d" % n)
        shown.begin(ONE, blob=blob, wanted=False)
        assert shown.asks() == [(ONE, 0)]
        shown.fetches.on_lacking(ONE, Lacking(blob))


def test_asking_for_small_things_is_no_flood_either() -> None:
    shown = Shown(blob_prefetch_bytes_per_s=PIECE_SIZE)
    asked = 0
    for n in range(1000):
        blob = hash_blob(b"%d" % n)
        shown.begin(ONE, blob=blob, size_max=10, wanted=False)
        asked += len(shown.asks())
        if asked > n:
            shown.fetches.on_lacking(ONE, Lacking(blob))
    assert asked == PIECE_SIZE // ASK_COST


def test_a_short_blob_costs_the_budget_what_it_has() -> None:
    shown = Shown(blob_prefetch_bytes_per_s=2 * PIECE_SIZE)
    blob = hash_blob(SHORT)
    for _ in range(20):
        shown.begin(ONE, blob=blob, size_max=1 << 20, wanted=False)
        shown.give(ONE, 0, SHORT, blob)
    assert shown.ended == [(blob, SHORT)] * 20
