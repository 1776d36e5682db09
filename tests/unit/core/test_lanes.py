from tektonmesh.core.lanes import SETTLED_MAX, TRIED_MAX, Kept, Lane
from tektonmesh.core.messages import Forward, HopAck, Released, Settled

PEER = bytes(range(32))


def make_lane() -> Lane:
    return Lane(1, PEER)


def make_kept(since: float = 1000.0) -> Kept:
    return Kept(b"envelope", since, 32)


def test_each_class_is_numbered_by_itself_from_one() -> None:
    lane = make_lane()
    for send_class in (2, 2, 0, 2):
        lane.forward(make_kept(), b"packed", send_class)
    seqs = [message.seq for message in lane.take() if isinstance(message, Forward)]
    assert [(seq >> 2, seq & 3) for seq in seqs] == [(1, 2), (2, 2), (1, 0), (3, 2)]


def test_a_number_is_new_once_per_class() -> None:
    lane = make_lane()
    assert [lane.is_repeat(seq) for seq in (1 << 2, 1 << 2, 1 << 2 | 2, 2 << 2)] == [
        False,
        True,
        False,
        False,
    ]


def test_one_acknowledgement_covers_a_batch_of_one_class() -> None:
    lane = make_lane()
    for seq in (1 << 2 | 2, 2 << 2 | 2, 1 << 2 | 1):
        lane.is_repeat(seq)
        lane.owe_ack(seq)
    assert lane.take() == (HopAck(1 << 2 | 1), HopAck(2 << 2 | 2))
    assert lane.take() == ()


def test_answers_leave_before_what_follows_from_them() -> None:
    lane = make_lane()
    lane.forward(make_kept(), b"packed", 2)
    lane.release(9, "no_path", ())
    lane.settled.append(7)
    kinds = [type(message) for message in lane.take()]
    assert kinds == [Settled, Forward, Released]


def test_many_settled_envelopes_are_told_in_messages_of_bounded_size() -> None:
    lane = make_lane()
    lane.settled.extend(range(SETTLED_MAX + 1))
    told = lane.take()
    assert [len(message.seqs) for message in told] == [SETTLED_MAX, 1]  # type: ignore[union-attr]


def test_the_oldest_unacknowledged_envelope_skips_what_was_answered() -> None:
    lane = make_lane()
    kept = [make_kept(1000.0 + n) for n in range(4)]
    for one in kept:
        lane.forward(one, b"packed", 2)
    lane.on_ack(1 << 2 | 2)
    del lane.kept[2 << 2 | 2]
    assert lane.oldest_unacked() == (3 << 2 | 2, kept[2])
    assert lane.oldest_kept() == (1 << 2 | 2, kept[0])


def test_an_acknowledgement_never_goes_back() -> None:
    lane = make_lane()
    for _ in range(2):
        lane.forward(make_kept(), b"packed", 2)
    lane.on_ack(2 << 2 | 2)
    lane.on_ack(1 << 2 | 2)
    assert lane.oldest_unacked() is None


def test_an_empty_lane_has_nothing_old() -> None:
    assert make_lane().oldest_kept() is None
    assert make_lane().oldest_unacked() is None


def test_the_list_of_tried_hops_keeps_the_newest() -> None:
    kept = make_kept()
    for n in range(TRIED_MAX + 5):
        kept.note_tried(n.to_bytes(8))
    assert len(kept.tried) == 8 * TRIED_MAX
    assert kept.tried.startswith((TRIED_MAX + 4).to_bytes(8))
