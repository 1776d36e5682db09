import pytest

from tektonmesh.core.streams import (
    BULK_PIECE_SIZE,
    EARLY_SIZE,
    PIECE_SIZE,
    REPLAY_SIZE,
    UNSETTLED_MAX,
    StreamIn,
    StreamOut,
)


def test_the_first_token_leaves_at_once_and_later_ones_together() -> None:
    out = StreamOut(live=True)
    assert out.push(b"one") == [(0, b"one")]
    assert out.push(b"two") == []
    assert out.push(b"three") == []
    assert out.held == 8
    assert out.flush() == [(3, b"twothree")]
    assert out.held == 0


def test_a_full_piece_leaves_without_waiting() -> None:
    out = StreamOut(live=True)
    out.push(b"x")
    assert out.push(bytes(PIECE_SIZE - 1)) == []
    assert out.push(b"y") == [(1, bytes(PIECE_SIZE - 1) + b"y")]


def test_a_reply_that_nobody_watches_leaves_in_large_pieces() -> None:
    out = StreamOut(live=False)
    assert out.push(bytes(BULK_PIECE_SIZE - 1)) == []
    assert out.push(b"ab") == [(0, bytes(BULK_PIECE_SIZE - 1) + b"a"), (BULK_PIECE_SIZE, b"b")]


def test_nothing_makes_no_piece() -> None:
    out = StreamOut(live=True)
    assert out.push(b"") == []
    assert out.flush() == []


def test_what_is_taken_for_the_final_reply_counts_but_is_not_replayed() -> None:
    out = StreamOut(live=True)
    out.push(b"one")
    out.push(b"two")
    assert out.take() == b"two"
    assert out.offset == 6
    assert out.since(0) == [(0, b"one")]


def test_a_replay_begins_with_the_piece_that_holds_the_offset() -> None:
    out = StreamOut(live=True)
    for text in (b"one", b"two", b"three"):
        out.push(text)
        out.flush()
    assert out.since(4) == [(3, b"two"), (6, b"three")]
    assert out.since(11) == []


def test_a_replay_older_than_what_is_kept_is_not_possible() -> None:
    out = StreamOut(live=False)
    out.push(bytes(REPLAY_SIZE + BULK_PIECE_SIZE))
    assert out.replay_size == REPLAY_SIZE
    assert out.since(0) is None
    assert out.since(BULK_PIECE_SIZE) is not None


def test_pieces_in_order_come_out_as_they_are() -> None:
    into = StreamIn()
    assert into.accept(0, b"one") == b"one"
    assert into.accept(3, b"two") == b"two"
    assert not into.has_gap
    assert into.finish(6, b"!") == b"!"
    assert into.complete


def test_pieces_that_overtake_wait_for_those_before_them() -> None:
    into = StreamIn()
    assert into.accept(3, b"two") == b""
    assert into.finish(6, b"!") == b""
    assert into.has_gap and not into.complete
    assert into.accept(0, b"one") == b"onetwo!"
    assert into.complete and not into.has_gap


@pytest.mark.parametrize("offset", [0, 1, 2])
def test_bytes_come_out_once_however_pieces_overlap(offset: int) -> None:
    into = StreamIn()
    into.accept(0, b"abc")
    assert into.accept(offset, b"abcdef"[offset:]) == b"def"
    assert into.accept(0, b"abcdef") == b""


def test_an_early_piece_is_replaced_by_a_longer_one_of_its_place() -> None:
    into = StreamIn()
    into.accept(1, b"b")
    into.accept(1, b"bcd")
    into.accept(1, b"b")
    into.accept(2, b"c")
    assert into.accept(0, b"a") == b"abcd"


def test_early_pieces_are_bounded() -> None:
    into = StreamIn()
    into.accept(1, bytes(EARLY_SIZE))
    into.accept(EARLY_SIZE + 1, b"too much")
    assert into.accept(0, b"x") == b"x" + bytes(EARLY_SIZE)
    assert into.next == EARLY_SIZE + 1


def test_an_empty_reply_is_complete_at_once() -> None:
    into = StreamIn()
    assert into.finish(0, b"") == b""
    assert into.complete


def test_a_lost_end_is_a_gap_only_once_it_is_known() -> None:
    into = StreamIn()
    into.accept(0, b"one")
    assert not into.has_gap
    into.finish(6, b"")
    assert into.has_gap and not into.complete


def test_a_reply_is_crowded_while_more_than_its_share_is_on_its_way() -> None:
    out = StreamOut(live=True)
    out.unsettled = UNSETTLED_MAX
    assert not out.is_crowded
    out.unsettled += 1
    assert out.is_crowded
    out.settled(1, "lost")
    assert not out.is_crowded
