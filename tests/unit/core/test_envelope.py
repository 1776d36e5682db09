import pytest

from tektonmesh.core import envelope as eb
from tektonmesh.core.envelope import Envelope, Header, Kind
from tektonmesh.core.messages import Forward
from tektonmesh.core.types import NodeSettings
from tektonmesh.errors import RemoteError
from tektonmesh.wire.codec import KIND, encode_message, size_max

SOURCE, DESTINATION = bytes([1]) * 32, bytes([2]) * 32
SHORTS = [bytes([n]) * 8 for n in range(10, 20)]


def make_header(**changes: object) -> Header:
    plain = {
        "kind": Kind.REQUEST,
        "msg_id": bytes(range(16)),
        "source": SOURCE,
        "destination": DESTINATION,
        "created_ms": 1_750_000_000_123,
        "ttl_ms": 30_000,
        "size": 11,
        "key_id": b"prekey 1",
        "reply_to": bytes(range(16, 32)),
        "attempt": 7,
        "send_class": 1,
        "flags": 2,
    }
    return Header(**(plain | changes))  # type: ignore[arg-type]


def packed(hops: int = 16, tries: int = 32, trace: bytes = b"", avoid: bytes = b"") -> bytes:
    header = make_header()
    envelope = Envelope(header, header.pack(), b"sealed body", trace, avoid, 250)
    return envelope.pack(hops, tries)


def test_the_header_has_the_size_the_format_says() -> None:
    assert eb.HEADER_SIZE == 126
    assert len(make_header().pack()) == 126


def test_what_is_packed_is_read_back_whole() -> None:
    trace = eb.trace_entry(SHORTS[0], 3) + eb.trace_entry(SHORTS[1], 4)
    read = eb.parse(packed(trace=trace, avoid=SHORTS[2]))
    assert read.header == make_header()
    assert read.head == make_header().pack()
    assert (read.body, read.trace, read.avoid, read.age_ms) == (
        b"sealed body",
        trace,
        SHORTS[2],
        250,
    )


def test_a_relay_finds_what_it_routes_by_at_fixed_places() -> None:
    data = packed()
    header = make_header()
    assert data[eb.SOURCE] == SOURCE
    assert data[eb.DESTINATION] == DESTINATION
    assert data[eb.FLOW] == SOURCE + DESTINATION
    assert data[eb.KEY] == header.attempt.to_bytes(2) + header.msg_id + SOURCE
    assert int.from_bytes(data[eb.TTL]) == 30_000
    assert (data[eb.KIND_AT], data[eb.CLASS_AT]) == (Kind.REQUEST, 1)


def test_passing_on_changes_the_mutable_part_only() -> None:
    data = packed(trace=eb.trace_entry(SHORTS[0], 3), avoid=SHORTS[1])
    passed = eb.pass_on(
        data,
        eb.read_mutable(data),
        tries_left=30,
        age_ms=300,
        entry=eb.trace_entry(SHORTS[2], 5),
        avoid=SHORTS[3],
    )
    mutable, read = eb.read_mutable(passed), eb.parse(passed)
    assert (mutable.hops_left, mutable.tries_left, mutable.age_ms) == (15, 30, 300)
    assert eb.read_trace(read.trace) == [(SHORTS[0], 3), (SHORTS[2], 5)]
    assert sorted(eb.shorts_of(read.avoid)) == [SHORTS[1], SHORTS[3]]
    assert (read.head, read.body) == (data[: eb.HEADER_SIZE], b"sealed body")


def test_an_avoid_list_that_would_overflow_is_cut() -> None:
    full = b"".join(n.to_bytes(8) for n in range(eb.ENTRIES_MAX))
    data = packed(avoid=full)
    passed = eb.pass_on(
        data,
        eb.read_mutable(data),
        tries_left=1,
        age_ms=0,
        entry=eb.trace_entry(SHORTS[0], 0),
        avoid=SHORTS[1],
    )
    assert eb.parse(passed).avoid == full


def test_an_age_beyond_its_field_stays_at_the_end_of_it() -> None:
    data = packed()
    passed = eb.pass_on(
        data, eb.read_mutable(data), tries_left=1, age_ms=1 << 40, entry=bytes(10), avoid=b""
    )
    assert eb.read_mutable(passed).age_ms == eb.AGE_MAX_MS


@pytest.mark.parametrize("size", [0, 1, eb.HEADER_SIZE, eb.TRACE_AT - 1])
def test_a_cut_envelope_is_refused(size: int) -> None:
    with pytest.raises(RemoteError):
        eb.read_mutable(packed()[:size])


@pytest.mark.parametrize(("n_trace", "n_avoid"), [(65, 0), (0, 65), (64, 0), (0, 2)])
def test_a_trace_or_avoid_list_that_does_not_fit_is_refused(n_trace: int, n_avoid: int) -> None:
    head = packed()[: eb.MUTABLE_AT]
    data = head + eb.pack_mutable(16, 32, 0, n_trace, n_avoid) + b"sealed body"
    with pytest.raises(RemoteError):
        eb.read_mutable(data)


def test_a_dwell_beyond_its_field_is_shown_as_the_longest() -> None:
    assert eb.read_trace(eb.trace_entry(SHORTS[0], 10**9)) == [(SHORTS[0], 65_535)]


def test_a_ragged_trace_is_read_as_far_as_it_goes() -> None:
    assert eb.read_trace(eb.trace_entry(SHORTS[0], 1) + b"ragged") == [(SHORTS[0], 1)]


def test_reports_of_hops_are_read_in_order_and_bounded() -> None:
    body = eb.report(5000, 0.0125) + eb.report(1 << 50, 1e9) + b"rag"
    assert eb.read_reports(body) == [(5000, 12.5), (0xFFFF_FFFF, 0xFFFF_FFFF / 1000.0)]


def test_the_sizes_fit_what_a_link_takes_and_a_whole_message_needs() -> None:
    limit = size_max(KIND[Forward])
    assert len(encode_message(Forward(1, bytes(eb.SIZE_MAX)))) == limit
    way = eb.ENTRIES_MAX * (eb.ENTRY_SIZE + eb.REPORT_SIZE + eb.SHORT_ID_SIZE)
    assert eb.START_SIZE_MAX + way + eb.GROWTH_MAX <= eb.SIZE_MAX
    assert NodeSettings().body_size_max + 1536 < eb.START_SIZE_MAX
