"""Sending blobs to those that ask, within one link's share."""

from __future__ import annotations

from typing import Any

from tektonmesh.core.effects import Send
from tektonmesh.core.messages import PIECE_SIZE, Fetch, Lacking, Piece
from tektonmesh.core.references import Blob
from tektonmesh.core.serving import ANSWER_COST, ASKS_MAX, Serving
from tests.support import advance, make_env, only, seed_bytes

LINK, OTHER = 1, 2
A, B = seed_bytes("blob", 1), seed_bytes("blob", 2)
LARGE = 1 << 20
DATA = bytes(range(256)) * (PIECE_SIZE // 256) + b"the rest"


class Shown:
    """A server of A (64 KiB and 8 bytes) with two links, which get 64 KiB a second each."""

    def __init__(self, per_s: int = PIECE_SIZE) -> None:
        self.env = make_env(blob_serve_bytes_per_s=per_s)
        self.asked: list[Blob] = []
        self.serving = Serving(self.env, self._find)
        for link in (LINK, OTHER):
            self.serving.link_up(link)

    def _find(self, blob: Blob) -> bytes | None:
        self.asked.append(blob)
        return DATA if blob == A else None

    def ask(self, link: int, blob: Blob, offset: int = 0, size_max: int = LARGE) -> list[Any]:
        """What is answered at once."""
        self.serving.on_fetch(link, Fetch(blob, offset, size_max))
        return sent(self.env.take(), link)


def sent(effects: list[Any], link: int) -> list[Any]:
    return [m for effect in only(effects, Send) if effect.link == link for m in effect.messages]


def test_a_blob_is_sent_piece_by_piece_as_it_is_asked_for() -> None:
    shown = Shown(LARGE)
    assert shown.ask(LINK, A) == [Piece(A, 0, len(DATA), DATA[:PIECE_SIZE])]
    assert shown.ask(LINK, A, PIECE_SIZE) == [Piece(A, PIECE_SIZE, len(DATA), b"the rest")]
    assert shown.ask(LINK, A, 100) == [Piece(A, 100, len(DATA), DATA[100 : 100 + PIECE_SIZE])]


def test_who_lacks_it_says_so_at_once() -> None:
    shown = Shown()
    assert shown.ask(LINK, B) == [Lacking(B)]
    assert shown.asked == [B]


def test_a_blob_that_is_longer_than_what_is_looked_for_is_another_one() -> None:
    shown = Shown()
    assert shown.ask(LINK, A, 0, len(DATA) - 1) == [Lacking(A)]


def test_behind_the_end_there_is_nothing() -> None:
    shown = Shown()
    assert shown.ask(LINK, A, len(DATA)) == [Lacking(A)]


def test_what_one_link_asks_beyond_its_share_waits_and_that_of_others_does_not() -> None:
    shown = Shown()
    assert len(shown.ask(LINK, A)) == 1
    assert shown.ask(LINK, A, PIECE_SIZE) == []
    assert shown.ask(LINK, B) == []
    assert len(shown.ask(OTHER, A)) == 1
    effects = advance(shown.env, ANSWER_COST / PIECE_SIZE + 0.001)
    assert sent(effects, LINK) == [Piece(A, PIECE_SIZE, len(DATA), b"the rest")]
    effects = advance(shown.env, ANSWER_COST / PIECE_SIZE + 0.001)
    assert sent(effects, LINK) == [Lacking(B)]


def test_asking_twice_for_a_blob_is_answered_once_for_the_newer_offset() -> None:
    shown = Shown()
    shown.ask(LINK, A)
    assert shown.ask(LINK, A, 5) == []
    assert shown.ask(LINK, A, PIECE_SIZE) == []
    pieces = sent(advance(shown.env, 5.0), LINK)
    assert [piece.offset for piece in pieces] == [PIECE_SIZE]


def test_what_is_asked_beyond_the_bound_of_waiting_is_forgotten() -> None:
    shown = Shown()
    shown.ask(LINK, A)
    blobs = [seed_bytes("waiting", n) for n in range(ASKS_MAX + 5)]
    for blob in blobs:
        assert shown.ask(LINK, blob) == []
    answers = sent(advance(shown.env, 60.0), LINK)
    assert [answer.hash for answer in answers] == blobs[:ASKS_MAX]


def test_a_link_that_goes_is_sent_nothing_more() -> None:
    shown = Shown()
    shown.ask(LINK, A)
    shown.ask(LINK, A, PIECE_SIZE)
    shown.serving.link_down(LINK)
    assert advance(shown.env, 60.0) == []


def test_a_link_gets_no_more_than_its_share_however_much_it_asks() -> None:
    shown = Shown(100_000)
    size = 0
    for _ in range(1000):
        size += sum(len(piece.data) for piece in shown.ask(LINK, A))
        size += sum(len(piece.data) for piece in sent(advance(shown.env, 0.01), LINK))
    assert 10 * 100_000 - PIECE_SIZE <= size <= 11 * 100_000 + PIECE_SIZE
