"""Forwarding between real nodes: what is relayed, kept, tried elsewhere and given up."""

from collections.abc import Callable

import pytest

from tektonmesh.core import effects as fx
from tektonmesh.core import envelope as eb
from tektonmesh.core.envelope import Envelope, Header, Kind
from tektonmesh.core.lanes import ANSWERS_WAITING_MAX, Kept, Lane
from tektonmesh.core.messages import Forward, HopAck, Message, Released, Settled
from tektonmesh.core.types import short_id
from tektonmesh.errors import LocalError, RemoteError
from tests.network import Network

BODY = b"sealed"


class Bench:
    """A network with a record of what it carried for forwarding, as (from, to, message)."""

    def __init__(self, *names: str, **settings: object) -> None:
        settings.setdefault("answer_delay_s", 0.0)
        settings.setdefault("ack_delay_s", 0.0)
        self.network = Network(*names, **settings)  # type: ignore[arg-type]
        self.carried: list[tuple[str, str, Message]] = []
        self.arrived: list[Envelope] = []
        self.network.on_message = lambda *carried: self.carried.append(carried)

    def chain(self, *names: str) -> None:
        self.network.join(*names)
        self.carried.clear()

    def collect_at(self, name: str, code: str = "") -> None:
        """Take envelopes of an unused kind at `name`, answering with `code`."""

        def take(envelope: Envelope) -> str:
            self.arrived.append(envelope)
            return code

        forwarding = self.network[name].node.forwarding
        forwarding._handlers[200] = take

    def send(
        self, source: str, destination: str, n: int = 1, **changes: object
    ) -> tuple[bool, list[str]]:
        """Send one envelope; whether it found a way, and the list its fate is put into."""
        member, fates = self.network[source], list[str]()
        header = self.header(source, destination, n, **changes)
        envelope = Envelope(header, header.pack(), BODY)
        member.node.env.now = self.network.now
        sent = member.node.forwarding.send(envelope, fates.append)
        self.network._carry_out(member, member.node.env.take())
        self.network.run(0.0)
        return sent, fates

    def header(self, source: str, destination: str, n: int, **changes: object) -> Header:
        plain = {
            "kind": 200,
            "msg_id": n.to_bytes(16),
            "source": self.network[source].id,
            "destination": self.network[destination].id,
            "created_ms": 0,
            "ttl_ms": 30_000,
            "size": len(BODY),
        }
        return Header(**(plain | changes))  # type: ignore[arg-type]

    def ways(self, kind: type = Forward) -> list[tuple[str, str]]:
        return [(here, there) for here, there, m in self.carried if type(m) is kind]

    def between(self, one: str, other: str) -> int:
        """The number of the link that joins two stacks, at `one`."""
        [link] = [
            lane.link
            for lane in self.network[one].node.forwarding._lanes.values()
            if lane.stack_id == self.network[other].id
        ]
        return link

    def inject(self, to: str, via: str, data: bytes, seq: int = 1 << 20 | 2) -> list[Message]:
        """Hand `to` an envelope as if `via` had sent it; what it says to `via` at once."""
        member, link = self.network[to], self.between(to, via)
        member.node.env.now = self.network.now
        member.node.forwarding.on_forward(link, Forward(seq, data))
        member.node.forwarding.end_of_batch(link)
        member.node.env.deadlines.run_due(self.network.now)
        sends = [e for e in member.node.env.take() if isinstance(e, fx.Send) and e.link == link]
        return [message for send in sends for message in send.messages]

    def queued(self, *names: str) -> list[int]:
        return [self.network[name].node.forwarding.queued_bytes for name in names]


def diamond(**settings: object) -> Bench:
    """a reaches d through b or c; the way through b is tried first."""
    bench = Bench("a", "b", "c", "d", **settings)
    bench.chain("a", "b", "d")
    bench.chain("a", "c", "d")
    bench.collect_at("d")
    return bench


def first_way(bench: Bench) -> tuple[str, str]:
    """The relay that a prefers towards d, and the other one."""
    network = bench.network
    hops = network["a"].node.paths.candidates(network["d"].id)
    preferred = "b" if hops[0].stack_id == network["b"].id else "c"
    return preferred, "c" if preferred == "b" else "b"


def packed(bench: Bench, *, hops: int = 16, tries: int = 32, trace: bytes = b"") -> bytes:
    header = bench.header("a", "c", 1)
    return Envelope(header, header.pack(), BODY, trace).pack(hops, tries)


# --- the smooth way ------------------------------------------------------------------------------


def test_an_envelope_goes_hop_by_hop_and_its_trace_names_each() -> None:
    bench = Bench("a", "b", "c", "d", "e")
    bench.chain("a", "b", "c", "d", "e")
    bench.collect_at("e")
    sent, fates = bench.send("a", "e")
    bench.network.run(0.1)
    assert sent and fates == ["settled"]
    assert bench.ways() == [("a", "b"), ("b", "c"), ("c", "d"), ("d", "e")]
    [envelope] = bench.arrived
    trace = [hop.short for hop in eb.read_trace(envelope.trace)]
    assert trace == [short_id(bench.network[name].id) for name in "abcd"]
    assert (envelope.body, envelope.header.msg_id) == (BODY, (1).to_bytes(16))


def test_settlement_comes_back_hop_by_hop_and_frees_everything() -> None:
    bench = Bench("a", "b", "c")
    bench.chain("a", "b", "c")
    bench.collect_at("c")
    bench.send("a", "c")
    assert bench.queued("a")[0] > 0
    bench.network.run(0.1)
    assert bench.ways(Settled) == [("c", "b"), ("b", "a")]
    assert bench.queued("a", "b", "c") == [0, 0, 0]
    assert bench.network["b"].node.forwarding.relayed == 1


def test_a_relay_says_at_once_that_it_has_an_envelope_and_the_destination_settles_instead() -> None:
    bench = Bench("a", "b", "c")
    bench.chain("a", "b", "c")
    bench.collect_at("c")
    bench.send("a", "c")
    bench.network.run(0.1)
    assert bench.ways(HopAck) == [("b", "a")]


def test_a_batch_is_acknowledged_and_settled_in_one_message_each() -> None:
    bench = Bench("a", "b", "c")
    bench.chain("a", "b", "c")
    bench.collect_at("c")
    member = bench.network["a"]
    member.node.env.now = bench.network.now
    for n in range(50):
        header = bench.header("a", "c", n)
        member.node.forwarding.send(Envelope(header, header.pack(), BODY))
    member.node.forwarding.end_of_batch(bench.between("a", "b"))
    bench.network._carry_out(member, member.node.env.take())
    bench.network.run(0.1)
    assert len(bench.arrived) == 50
    assert len(bench.ways(HopAck)) == 1
    assert len(bench.ways(Settled)) == 2


def test_the_age_grows_by_half_the_round_trip_of_each_link() -> None:
    bench = Bench("a", "b", "c", delay_s=0.05)
    bench.chain("a", "b", "c")
    bench.network.run(30.0)
    bench.collect_at("c")
    bench.send("a", "c")
    bench.network.run(1.0)
    assert 45 <= bench.arrived[0].age_ms <= 55  # the last link's part is the destination's to add


def test_the_smooth_way_and_the_thorough_one_pass_on_the_same_bytes() -> None:
    bench = Bench("a", "b", "c")
    bench.chain("a", "b", "c")
    forwarding = bench.network["b"].node.forwarding
    forwarding._relay_smoothly = lambda *_: False  # type: ignore[method-assign]
    bench.inject("b", "a", packed(bench, trace=eb.trace_entry(short_id(bytes(32)), 3)))
    del forwarding._relay_smoothly
    forwarding._seen.clear()
    bench.inject("b", "a", packed(bench, trace=eb.trace_entry(short_id(bytes(32)), 3)), 2 << 20 | 2)
    lane = forwarding._lanes[bench.between("b", "c")]
    thorough, smooth = lane.kept.values()
    for name in ("data", "since", "sent_at", "tries", "tried", "certain", "transit_ms", "done"):
        assert getattr(thorough, name) == getattr(smooth, name), name
    assert forwarding.relayed == 2


# --- what a relay refuses ------------------------------------------------------------------------


def three(**settings: object) -> Bench:
    bench = Bench("a", "b", "c", relay_queue_bytes=10_000, **settings)
    bench.chain("a", "b", "c")
    return bench


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda bench: packed(bench, hops=0), "hops"),
        (lambda bench: packed(bench, tries=0), "tries"),
        (lambda bench: packed(bench, trace=bytes(10 * 64)), "hops"),
        (lambda bench: packed(bench) + bytes(10_000), "busy"),
        (
            lambda bench: packed(bench, trace=eb.trace_entry(short_id(bench.network["b"].id), 0)),
            "duplicate",
        ),
        (lambda bench: b"\x09" + packed(bench)[1:], "version"),
        (
            lambda bench: packed(bench)[: eb.TTL.start] + bytes(4) + packed(bench)[eb.TTL.stop :],
            "expired",
        ),
    ],
)
def test_a_relay_says_why_it_does_not_pass_an_envelope_on(
    make: Callable[[Bench], bytes], code: str, warm: bool
) -> None:
    bench = three()
    if warm:
        bench.collect_at("c")
        bench.send("a", "c", 99)
        bench.network.run(0.1)
    assert bench.inject("b", "a", make(bench)) == [Released(1 << 20 | 2, code, ())]
    assert bench.queued("b") == [0]


@pytest.mark.parametrize("size", [10, 100, 130])
@pytest.mark.parametrize("warm", [False, True])
def test_an_envelope_with_a_broken_frame_costs_the_link_it_came_on(size: int, warm: bool) -> None:
    bench = three()
    if warm:
        bench.collect_at("c")
        bench.send("a", "c", 99)
        bench.network.run(0.1)
    with pytest.raises(RemoteError):
        bench.inject("b", "a", packed(bench)[:size])


@pytest.mark.hostile("raised-hop-limit")
def test_a_budget_beyond_our_own_limits_is_cut_to_them() -> None:
    bench = three()
    bench.collect_at("c")
    bench.inject("b", "a", packed(bench, hops=255, tries=255))
    [kept] = bench.network["b"].node.forwarding._lanes[bench.between("b", "c")].kept.values()
    assert kept.tries == 31


def test_a_budget_is_cut_again_when_an_envelope_goes_another_way() -> None:
    bench = Bench("a", "b", "c", "d", "e", hop_limit=5)
    bench.chain("a", "b", "d")
    bench.chain("a", "c", "d")
    bench.chain("e", "a")
    header = bench.header("e", "d", 1)
    data = Envelope(header, header.pack(), BODY).pack(255, 32)
    first, _other = first_way(bench)
    bench.network.passes = lambda here, there, m: type(m) is not Forward
    bench.inject("a", "e", data)
    forwarding = bench.network["a"].node.forwarding
    sent: list[bytes] = []
    hand_over = forwarding._hand_over

    def note_and_hand_over(kept: Kept, envelope: bytes, lane: Lane) -> None:
        sent.append(envelope)
        hand_over(kept, envelope, lane)

    forwarding._hand_over = note_and_hand_over  # type: ignore[method-assign]
    bench.network.cut("a", first)
    assert [eb.read_mutable(packed_again).hops_left for packed_again in sent] == [4]


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("over", [0, 1])
def test_an_envelope_that_could_outgrow_the_next_link_is_given_back(warm: bool, over: int) -> None:
    bench = Bench("a", "b", "c")
    bench.chain("a", "b", "c")
    if warm:
        bench.collect_at("c")
        bench.send("a", "c", 99)
        bench.network.run(0.1)
    data = packed(bench)
    data += bytes(eb.RELAY_SIZE_MAX + over - len(data))
    said = bench.inject("b", "a", data)
    assert (Released(1 << 20 | 2, "too_large", ()) in said) == bool(over)


def test_an_origin_starts_nothing_that_could_outgrow_a_link_on_its_way() -> None:
    bench = Bench("a", "b")
    bench.chain("a", "b")
    bench.collect_at("b")
    forwarding, header = bench.network["a"].node.forwarding, bench.header("a", "b", 1)
    body = bytes(eb.START_SIZE_MAX - eb.TRACE_AT)
    assert forwarding.send(Envelope(header, header.pack(), body, avoid=bytes(8)))
    with pytest.raises(LocalError) as caught:
        forwarding.send(Envelope(header, header.pack(), body + b"!"))
    assert caught.value.code.name == "too_large"


def test_the_same_attempt_is_relayed_once_and_the_next_one_again() -> None:
    bench = three()
    header = bench.header("a", "c", 1)
    again = bench.header("a", "c", 1, attempt=1)
    first = Envelope(header, header.pack(), BODY).pack(16, 32)
    second = Envelope(again, again.pack(), BODY).pack(16, 32)
    said = [
        bench.inject("b", "a", data, seq << 2 | 2)
        for seq, data in enumerate((first, first, second), 1)
    ]
    assert said[1] == [Released(2 << 2 | 2, "duplicate", ())]
    assert said[2] == [HopAck(3 << 2 | 2)]


def test_a_number_that_a_link_repeats_is_ignored() -> None:
    bench = three()
    bench.inject("b", "a", packed(bench))
    assert bench.inject("b", "a", packed(bench)) == []
    assert bench.network["b"].node.forwarding.relayed == 1


def test_a_relay_forgets_what_it_saw_after_a_while() -> None:
    bench = three()
    bench.inject("b", "a", packed(bench), 1 << 2 | 2)
    bench.network.run(25.0)
    for n in range(2):  # two generations
        bench.inject("b", "a", packed(bench, hops=0), (2 + n) << 2 | 2)
        bench.network.run(11.0)
    forwarding = bench.network["b"].node.forwarding
    assert not forwarding._was_here(packed(bench)[eb.KEY])


@pytest.mark.parametrize(
    ("relay", "source", "destination", "code"),
    [
        ("none", "a", "c", "refused"),
        ("members", "a", "c", ""),
        ("peers", "a", "c", ""),
        ("peers", "a", "d", ""),
        ("peers", "e", "d", "refused"),
    ],
)
def test_a_stack_relays_for_whom_it_says(
    relay: str, source: str, destination: str, code: str
) -> None:
    network = Bench("a", "c", "d", "e")
    network.network.add("b", relay=relay)
    network.chain("e", "a", "b", "c", "d")
    header = network.header(source, destination, 1)
    data = Envelope(header, header.pack(), BODY).pack(16, 32)
    [said] = network.inject("b", "a", data)
    assert said == (Released(1 << 20 | 2, code, ()) if code else HopAck(1 << 20 | 2))


def test_a_stranger_is_not_relayed_for() -> None:
    bench = three()
    header = bench.header("a", "c", 1)._replace(source=bytes(32))
    data = Envelope(header, header.pack(), BODY).pack(16, 32)
    assert bench.inject("b", "a", data) == [Released(1 << 20 | 2, "refused", ())]


def test_a_dead_end_is_released_to_the_previous_hop() -> None:
    bench = Bench("a", "b", "c")
    bench.chain("a", "b", "c")
    bench.network.cut("b", "c")
    bench.network.run(3.0)
    assert bench.inject("b", "a", packed(bench)) == [Released(1 << 20 | 2, "no_path", ())]


def test_an_unknown_kind_is_settled_and_ignored() -> None:
    bench = Bench("a", "b")
    bench.chain("a", "b")
    _, fates = bench.send("a", "b", kind=250)
    bench.network.run(0.1)
    assert fates == ["settled"]
    assert bench.network["b"].notices("envelope_ignored") == [{"envelope_kind": 250}]


def test_without_a_way_nothing_is_sent() -> None:
    bench = Bench("a", "b", "c")
    bench.chain("a", "b")
    assert bench.send("a", "c") == (False, [])
    assert bench.queued("a") == [0]


# --- another way ---------------------------------------------------------------------------------


def test_a_silent_hop_is_passed_over_after_its_time_and_avoided_from_then_on() -> None:
    bench = diamond()
    preferred, other = first_way(bench)
    bench.network.passes = lambda here, there, _m: {here, there} != {"a", preferred}
    _, fates = bench.send("a", "d")
    bench.network.run(0.3)
    assert fates == ["settled"]
    assert bench.ways() == [("a", other), (other, "d")]
    assert eb.shorts_of(bench.arrived[0].avoid) == [short_id(bench.network[preferred].id)]
    assert bench.network["a"].notices("hop_silent")
    assert bench.queued("a", other, "d") == [0, 0, 0]


def test_later_envelopes_leave_a_silent_link_out_until_it_speaks() -> None:
    bench = diamond()
    preferred, other = first_way(bench)
    bench.network.passes = lambda here, there, _m: {here, there} != {"a", preferred}
    bench.send("a", "d", 1)
    bench.network.run(0.3)
    bench.network.passes = lambda *_: True
    bench.carried.clear()
    bench.send("a", "d", 2)
    assert bench.ways() == [("a", other)]
    bench.network["a"].node.forwarding.on_hop_ack(bench.between("a", preferred), HopAck(4 | 2))
    bench.send("a", "d", 3)
    assert bench.ways()[-1] == ("a", preferred)


def test_an_envelope_has_its_time_also_when_older_ones_wait_to_be_settled() -> None:
    bench = diamond()
    preferred, other = first_way(bench)
    bench.network.passes = lambda here, _there, m: not (here == "d" and type(m) is Settled)
    bench.send("a", "d", 1)
    bench.network.run(0.25)  # looked at once: acknowledged, not settled
    bench.network.passes = lambda here, there, _m: {here, there} != {"a", preferred}
    bench.carried.clear()
    bench.send("a", "d", 2)
    bench.network.run(0.45)
    assert bench.ways() == [("a", other), (other, "d")]


def test_with_no_other_way_an_envelope_stays_on_its_silent_link() -> None:
    bench = Bench("a", "b", "c")
    bench.chain("a", "b", "c")
    bench.collect_at("c")
    bench.network.passes = lambda here, _there, m: (
        not (here == "b" and type(m) in (HopAck, Settled))
    )
    _, fates = bench.send("a", "c")
    bench.network.run(0.5)
    assert fates == []
    assert bench.queued("a")[0] > 0
    assert len(bench.arrived) == 1


def test_an_envelope_of_which_nothing_is_heard_is_forgotten_in_the_end() -> None:
    bench = Bench("a", "b", "c", hop_keep_s=5.0)
    bench.chain("a", "b", "c")
    bench.network.passes = lambda _here, _there, m: not isinstance(m, Settled)
    bench.collect_at("c")
    _, fates = bench.send("a", "c")
    bench.network.run(4.9)
    assert fates == []
    bench.network.run(0.2)
    assert fates == ["lost"]
    assert bench.queued("a", "b") == [0, 0]


def test_a_link_that_breaks_hands_everything_unsettled_to_others_at_once() -> None:
    bench = diamond()
    preferred, other = first_way(bench)
    bench.network.passes = lambda _here, there, m: not (there == preferred and type(m) is Forward)
    fates = [bench.send("a", "d", n)[1] for n in range(20)]
    bench.network.cut("a", preferred)
    bench.network.run(0.01)
    assert fates == [["settled"]] * 20
    assert len(bench.arrived) == 20
    assert bench.queued("a", other) == [0, 0]


def test_a_dead_end_beyond_the_next_hop_is_backed_out_of() -> None:
    bench = Bench("a", "b", "c", "d", "e")
    bench.chain("a", "b", "c", "d")
    bench.chain("b", "e")
    bench.chain("a", "e")
    bench.chain("e", "d")
    bench.collect_at("d")
    network = bench.network
    # c alone knows that it has lost d: for the others the graph still shows the edge.
    link = bench.between("c", "d")
    network.passes = lambda here, there, _m: here != "c" or there == "b"
    network["c"].node.forwarding._lanes.pop(link)
    for one, other in (("a", "e"), ("b", "e")):
        lanes = network[one].node.forwarding._lanes
        lanes[bench.between(one, other)].silent = True
    _, fates = bench.send("a", "d")
    network.run(0.1)
    assert fates == ["settled"]
    assert bench.ways()[:3] == [("a", "b"), ("b", "c"), ("b", "e")]
    assert ("c", "b") in bench.ways(Released)
    [envelope] = bench.arrived
    assert short_id(network["c"].id) in eb.shorts_of(envelope.avoid)


def test_when_every_way_is_a_dead_end_the_origin_is_told_that_nothing_arrived() -> None:
    bench = diamond()
    for relay in ("b", "c"):
        lanes = bench.network[relay].node.forwarding._lanes
        lanes.pop(bench.between(relay, "d"))
    _, fates = bench.send("a", "d")
    bench.network.run(0.1)
    assert fates == ["no_path"]
    assert bench.queued("a", "b", "c") == [0, 0, 0]


def test_a_copy_that_may_have_got_through_is_never_called_released() -> None:
    bench = diamond()
    preferred, other = first_way(bench)
    bench.network.passes = lambda here, there, _m: {here, there} != {"a", preferred}
    bench.network[other].node.forwarding._lanes.pop(bench.between(other, "d"))
    _, fates = bench.send("a", "d")
    bench.network.run(0.5)
    assert fates == ["lost"]


def test_the_destinations_own_refusal_is_final() -> None:
    bench = diamond()
    bench.collect_at("d", "full")
    _, fates = bench.send("a", "d")
    bench.network.run(0.1)
    assert fates == ["full"]
    assert len(bench.arrived) == 1


def test_a_silent_direct_link_does_not_shut_out_the_destination() -> None:
    bench = Bench("a", "b", "d")
    bench.chain("a", "d")
    bench.chain("a", "b", "d")
    bench.collect_at("d")
    bench.network.passes = lambda here, there, _m: {here, there} != {"a", "d"}
    _, fates = bench.send("a", "d")
    bench.network.run(0.3)
    assert fates == ["settled"]
    assert bench.ways() == [("a", "b"), ("b", "d")]
    assert bench.arrived[0].avoid == b""


def test_the_tries_of_an_envelope_end() -> None:
    bench = diamond(tries_limit=1)
    preferred, _ = first_way(bench)
    bench.network[preferred].node.forwarding._lanes.pop(bench.between(preferred, "d"))
    _, fates = bench.send("a", "d")
    bench.network.run(0.1)
    assert fates == ["tries"]
    assert ("a", preferred) in bench.ways() and len(bench.ways()) == 1


def test_what_relays_say_about_unknown_links_and_numbers_is_ignored() -> None:
    bench = Bench("a", "b")
    bench.chain("a", "b")
    forwarding = bench.network["a"].node.forwarding
    link = bench.between("a", "b")
    for number in (link, 999):
        forwarding.on_hop_ack(number, HopAck(77))
        forwarding.on_settled(number, Settled((77,)))
        forwarding.on_released(number, Released(77, "busy", (b"short",)))
    forwarding.on_forward(999, Forward(1, b""))
    forwarding.end_of_batch(999)
    forwarding.link_down(999)
    forwarding.link_up(999)
    assert bench.network["a"].node.env.take() == []


def test_a_trace_envelope_collects_a_report_at_each_hop() -> None:
    bench = Bench("a", "b", "c")
    bench.chain("a", "b", "c")
    bodies: list[bytes] = []
    bench.network["c"].node.forwarding._handlers[Kind.TRACE] = lambda envelope: (
        bodies.append(envelope.body) or ""
    )
    bench.send("a", "c", kind=Kind.TRACE)
    bench.network.run(0.1)
    reports = eb.read_reports(bodies[0][len(BODY) :])
    assert len(reports) == 2
    assert all(queue == 0 and rtt_ms > 0 for queue, rtt_ms in reports)


def test_an_envelope_whose_previous_hop_is_gone_is_still_passed_on() -> None:
    bench = Bench("a", "b", "c", "d")
    bench.chain("a", "b", "c")
    bench.collect_at("c")
    bench.send("a", "c")
    bench.network.run(0.0015)
    bench.network.cut("a", "b")
    bench.network.run(0.1)
    assert len(bench.arrived) == 1
    assert bench.queued("b") == [0]


def test_an_own_envelope_that_nobody_asks_about_ends_quietly() -> None:
    bench = diamond()
    for relay in ("b", "c"):
        bench.network[relay].node.forwarding._lanes.pop(bench.between(relay, "d"))
    member = bench.network["a"]
    member.node.env.now = bench.network.now
    header = bench.header("a", "d", 1)
    assert member.node.forwarding.send(Envelope(header, header.pack(), BODY))
    bench.network.run(0.1)
    assert bench.queued("a") == [0]


def spoken(bench: Bench, here: str, there: str) -> list[type]:
    """The kinds of what `here` said to `there` for forwarding, in order."""
    kinds = (Forward, HopAck, Settled, Released)
    return [
        type(message)
        for one, other, message in bench.carried
        if (one, other) == (here, there) and isinstance(message, kinds)
    ]


def test_answers_alone_wait_a_moment_and_leave_by_themselves() -> None:
    bench = three(ack_delay_s=0.05)
    assert bench.inject("b", "a", packed(bench)) == []
    bench.network.run(0.04)
    assert spoken(bench, "b", "a") == []
    bench.network.run(0.02)
    assert spoken(bench, "b", "a")[0] is HopAck


def test_answers_ride_with_the_next_envelope() -> None:
    bench = three(answer_delay_s=0.005, ack_delay_s=0.05)
    assert bench.inject("b", "a", packed(bench)) == []
    bench.send("b", "a")
    bench.network.run(0.003)
    assert spoken(bench, "b", "a") == [HopAck, Forward]
    bench.network.run(0.2)
    assert spoken(bench, "b", "a").count(HopAck) == 1


def test_a_message_is_settled_sooner_than_a_reply() -> None:
    """A caller may wait for the one, nobody for the other."""
    took = {}
    for kind in (Kind.REQUEST, Kind.REPLY):
        bench = Bench("a", "b", answer_delay_s=0.005, ack_delay_s=0.05)
        bench.chain("a", "b")
        bench.network["b"].node.forwarding.receive(kind, lambda _envelope: "")
        started = bench.network.now
        bench.send("a", "b", kind=kind)
        while Settled not in spoken(bench, "b", "a"):
            bench.network.run(0.001)
        took[kind] = bench.network.now - started
    assert 0.005 <= took[Kind.REQUEST] < 0.03 < 0.05 <= took[Kind.REPLY] < 0.1


def test_many_answers_do_not_wait() -> None:
    """Whoever has a window of messages open may be waiting for exactly these."""
    bench = Bench("a", "b", answer_delay_s=10.0, ack_delay_s=10.0)
    bench.chain("a", "b")
    bench.collect_at("b")
    for n in range(ANSWERS_WAITING_MAX - 1):
        bench.send("a", "b", n)
    bench.network.run(0.1)
    assert spoken(bench, "b", "a") == []
    bench.send("a", "b", ANSWERS_WAITING_MAX)
    bench.network.run(0.1)
    assert spoken(bench, "b", "a") == [Settled]


def test_nobody_sends_through_a_stack_that_relays_for_others_only() -> None:
    """b would be the shorter way from a to e, and is linked with neither."""
    network = Network("a", "x", "c", "f", "y", "e")
    network.add("b", relay="peers")
    network.join("a", "x", "b", "y", "e")
    network.join("x", "c", "f", "y")
    network.run(2.0)
    bench_ways: list[tuple[str, str]] = []
    network.on_message = lambda here, there, m: (
        bench_ways.append((here, there)) if type(m) is Forward else None
    )
    network["e"].register("echo")
    network.run(1.0)
    for _ in range(5):
        network["a"].send("echo@e")
    network.run(1.0)
    assert bench_ways
    assert not any("b" in way for way in bench_ways)
