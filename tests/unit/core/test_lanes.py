from tektonmesh.core.envelope import (
    SOURCE,
    Envelope,
    Header,
    Kind,
    parse,
    read_trace,
    trace_entry,
)
from tektonmesh.core.lanes import SETTLED_MAX, TRIED_MAX, WINDOW_MAX, WINDOW_MIN, Kept, Lane
from tektonmesh.core.messages import Forward, HopAck, Released, Settled

PEER = bytes(range(32))


def make_lane() -> Lane:
    return Lane(1, PEER)


def make_kept(since: float = 1000.0) -> Kept:
    return Kept(b"envelope", since, 32)


def test_each_class_is_numbered_by_itself_from_one() -> None:
    lane = make_lane()
    for send_class in (2, 2, 0, 2):
        lane.forward(make_kept(), b"packed", send_class, 1000.0)
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
    lane.forward(make_kept(), b"packed", 2, 1000.0)
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
        lane.forward(one, b"packed", 2, 1000.0)
    lane.on_ack(1 << 2 | 2)
    del lane.kept[2 << 2 | 2]
    assert lane.oldest_unacked() == (3 << 2 | 2, kept[2])
    assert lane.oldest_kept() == (1 << 2 | 2, kept[0])


def test_an_acknowledgement_never_goes_back() -> None:
    lane = make_lane()
    for _ in range(2):
        lane.forward(make_kept(), b"packed", 2, 1000.0)
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


# --- the window ----------------------------------------------------------------------------------


def envelope(n: int, size: int, *, source: int = 1, send_class: int = 2) -> bytes:
    """One of a flow from `source`, already with this hop's entry in its trace."""
    msg_id, src = n.to_bytes(16), bytes([source]) * 32
    header = Header(Kind.REQUEST, msg_id, src, PEER, 0, 1000, 0, send_class=send_class)
    trace = trace_entry(b"here" * 2, 0)
    return Envelope(header, header.pack(), bytes(size), trace).pack(16, 32)


def fill(lane: Lane, *, source: int = 1) -> list[int]:
    """Send until one has to wait; the numbers of those that left."""
    n = 0
    while lane.forward(make_kept(), envelope(n, 50_000, source=source), 2, 1000.0):
        n += 1
    return [message.seq for message in lane.take() if isinstance(message, Forward)]


def test_beyond_the_window_envelopes_wait_until_others_are_acknowledged() -> None:
    lane = make_lane()
    seqs = fill(lane)
    assert WINDOW_MIN - 51_000 < lane.in_flight <= WINDOW_MIN and lane.waiting.count == 1
    lane.on_ack(seqs[1])
    assert lane.pump(1000.0) and lane.waiting.count == 0
    [last] = [message for message in lane.take() if isinstance(message, Forward)]
    assert last.seq == seqs[-1] + 4


def test_control_never_waits_and_an_empty_link_takes_any_size() -> None:
    lane = make_lane()
    fill(lane)
    assert lane.forward(make_kept(), envelope(1, 10, send_class=0), 0, 1000.0)
    alone = make_lane()
    alone.window = 10
    assert alone.forward(make_kept(), envelope(1, 5000), 2, 1000.0)


def test_what_is_settled_or_given_up_frees_the_window_too() -> None:
    lane = make_lane()
    seqs = fill(lane)
    lane.has_left(seqs[-1])
    assert lane.in_flight == 0
    lane.has_left(seqs[0])
    assert lane.in_flight == 0


def test_flows_take_turns_when_they_wait() -> None:
    lane = make_lane()
    seqs = fill(lane)
    for n in range(30):
        lane.forward(make_kept(), envelope(n, 50_000), 2, 1000.0)
    lane.forward(make_kept(), envelope(1, 100, source=9), 2, 1000.0)
    lane.on_ack(seqs[2])
    lane.pump(1000.0)
    sources = [m.envelope[SOURCE][0] for m in lane.take() if isinstance(m, Forward)]
    assert 9 in sources[:3], "the small flow does not wait behind thirty of the large one"


def test_the_time_that_an_envelope_waits_is_in_its_age_and_its_trace() -> None:
    lane = make_lane()
    seqs = fill(lane)
    lane.on_ack(seqs[-1])
    lane.pump(1000.25)
    [last] = [message for message in lane.take() if isinstance(message, Forward)]
    read = parse(last.envelope)
    assert read.age_ms == 250 and read_trace(read.trace)[-1].dwell_ms == 250
    assert lane.kept[last.seq].sent_at == 1000.25


def test_what_waits_can_go_another_way() -> None:
    lane = make_lane()
    fill(lane)
    waiting = make_kept()
    lane.forward(waiting, envelope(7, 10, source=2), 2, 1000.0)
    assert waiting in lane.drain() and lane.waiting.count == 0


def test_the_window_follows_the_shortest_round_trip() -> None:
    lane = make_lane()
    lane.note_rtt(0.03)
    assert lane.window == 3_000_000
    lane.note_rtt(5.0)
    assert lane.window == 3_000_000, "a longer one measures our own queue"
    lane.note_rtt(0.0001)
    assert lane.window == WINDOW_MIN
    far = make_lane()
    far.note_rtt(1.0)
    assert far.window == WINDOW_MAX
