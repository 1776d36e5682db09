"""When a message is sent again, asked about, or given up; between real nodes."""

import itertools
from functools import partial
from typing import Any

import pytest

from tektonmesh.core import events as ev
from tektonmesh.core.envelope import Kind, parse, read_trace
from tektonmesh.core.forwarding import Forwarding
from tektonmesh.core.lanes import Lane
from tektonmesh.core.messages import Forward, HopAck, Message, Settled
from tektonmesh.core.types import LinkId, short_id
from tests.network import Member, Network


def with_echo(network: Network, name: str) -> Member:
    network[name].register("echo")
    network.run(1.0)
    return network[name]


def chain(*names: str, **settings: object) -> Network:
    network = Network(*names, **settings)  # type: ignore[arg-type]
    network.join(*names)
    with_echo(network, names[-1])
    return network


def diamond(**settings: Any) -> tuple[Network, str, str]:
    """a reaches d through two relays; the preferred one and the other one."""
    network = Network("a", "b", "c", "d", **settings)
    network.join("a", "b", "d")
    network.join("a", "c", "d")
    with_echo(network, "d")
    hops = network["a"].node.paths.candidates(network["d"].id)
    names = ["b", "c"]
    preferred = next(name for name in names if network[name].id == hops[0].stack_id)
    names.remove(preferred)
    return network, preferred, names[0]


def attempts(network: Network, source: str) -> list[tuple[float, int, int]]:
    """From now on, (instant, kind, attempt) of each envelope that `source` sends out."""
    seen: list[tuple[float, int, int]] = []

    def look(here: str, _there: str, message: Message) -> None:
        if isinstance(message, Forward) and here == source:
            header = parse(message.envelope).header
            if header.source == network[source].id:
                seen.append((round(network.now - start, 2), header.kind, header.attempt))

    start = network.now
    network.on_message = look
    return seen


def gives_all_back(network: Network, liar: str) -> None:
    """The relay says of every request that all the others were tried."""
    forwarding = network[liar].node.forwarding
    others = tuple(short_id(network[name].id) for name in network._members if name != liar)

    def on_forward(link: LinkId, message: Forward) -> None:
        forwarding._release(forwarding._lanes[link], message.seq, "no_path", others)

    network[liar].node._messages[Forward] = on_forward


def is_envelope(message: Message, kind: Kind) -> bool:
    return isinstance(message, Forward) and message.envelope[1] == kind


@pytest.mark.parametrize("delay_s", [0.001, 0.15])
def test_a_relay_that_says_that_nobody_leads_on_is_gone_round_however_slow_the_links_are(
    delay_s: float,
) -> None:
    network, liar, other = diamond(delay_s=delay_s)
    network.run(5.0)
    network["d"].echo()
    gives_all_back(network, liar)
    ticket = network["a"].send("echo@d")
    network.run(2.0)
    path = network["a"].result(ticket)["path"]
    assert path == ["a", other, "d"]


def test_without_another_way_a_message_that_comes_back_is_tried_some_times_and_given_up() -> None:
    network = chain("a", "b", "c")
    gives_all_back(network, "b")
    seen = attempts(network, "a")
    ticket = network["a"].send("echo@c")
    network.run(3.5)
    assert network["a"].error(ticket)["code"] == "unreachable"
    assert len(seen) == 3 and seen[-1][0] - seen[0][0] < 1.5


# --- again ---------------------------------------------------------------------------------------


def test_without_a_receipt_a_message_is_sent_again_with_growing_pauses() -> None:
    network = chain("a", "b", "c")
    # A relay that acknowledges, settles and discards.
    network["b"].node.forwarding._relay_smoothly = lambda *_: False  # type: ignore[method-assign]
    network["b"].node.forwarding._relay = lambda lane, seq, *_: (  # type: ignore[method-assign]
        lane.settled.append(seq),
        network["b"].node.forwarding._departures.touch(lane),
    )
    seen = attempts(network, "a")
    ticket = network["a"].send("echo@c", timeout_s=20.0)
    network.run(21.0)
    pauses = [later[0] - earlier[0] for earlier, later in itertools.pairwise(seen)]
    assert [attempt for _, _, attempt in seen] == list(range(len(seen)))
    assert 0.25 <= pauses[0] <= 0.36
    assert all(later > 1.5 * earlier for earlier, later in itertools.pairwise(pauses))
    assert network["a"].error(ticket)["code"] == "timeout"
    assert network["a"].error(ticket)["outcome"] == "indeterminate"


def test_a_second_copy_avoids_a_relay_that_swallows_messages() -> None:
    network, preferred, other = diamond()
    network["d"].echo()
    swallower = network[preferred].node.forwarding
    swallower._relay_smoothly = lambda *_: False  # type: ignore[method-assign]
    swallower._relay = lambda lane, seq, *_: lane.settled.append(seq)  # type: ignore[method-assign]
    ticket = network["a"].send("echo@d")
    network.run(0.5)
    assert network["a"].result(ticket)["path"] == ["a", other, "d"]


def swallow(network: Network, *names: str) -> None:
    """These stacks acknowledge, settle and discard whatever they should pass on."""
    for name in names:
        swallower = network[name].node.forwarding
        settle = partial(settle_and_discard, swallower)
        swallower._relay_smoothly = lambda *_: False  # type: ignore[method-assign]
        swallower._relay = settle  # type: ignore[method-assign]


def settle_and_discard(of: Forwarding, lane: Lane, seq: int, *_: object) -> None:
    lane.settled.append(seq)
    of._departures.touch(lane)


def test_one_way_of_three_is_enough_when_the_relays_of_the_others_swallow_everything() -> None:
    """Both directions: what is answered meets the same relays."""
    for honest in "bce":
        network = Network("a", "b", "c", "e", "d")
        for middle in "bce":
            network.join("a", middle, "d")
        with_echo(network, "d").echo()
        swallow(network, *[name for name in "bce" if name != honest])
        tickets = [network["a"].send("echo@d", timeout_s=20.0) for _ in range(5)]
        network.run(3.0)
        assert [network["a"].result(ticket)["body"] for ticket in tickets] == [b"hello"] * 5
        assert len(network["d"].deliveries()) == 5


def test_what_follows_a_receipt_goes_round_a_relay_that_swallows_as_well() -> None:
    """The way back breaks after the receipt: the question for the rest and its answer find another
    one."""
    network, preferred, other = diamond()
    d = network["d"]
    d.on_deliver = None
    ticket = network["a"].send("echo@d", timeout_s=60.0, stream=True)
    network.run(0.2)
    used = network["a"].node.requests._tickets[ticket].path[1]
    swallow(network, preferred if used == network[preferred].id else other)
    d.chunk(d.deliveries()[0], b"one ")
    network.run(12.0)
    assert b"".join(network["a"].streamed(ticket)) == b"one "
    d.reply(d.deliveries()[0], b"two")
    network.run(20.0)
    assert b"".join(network["a"].streamed(ticket)) == b"one two"


def test_a_copy_that_found_no_way_round_is_followed_by_one_that_may_go_through() -> None:
    network = chain("a", "b", "c")
    network["c"].echo()
    dropped: list[Message] = []

    def lose_the_first(here: str, _there: str, message: Message) -> bool:
        if here == "b" and is_envelope(message, Kind.REQUEST) and not dropped:
            dropped.append(message)
            return False
        return True

    network.passes = lose_the_first
    ticket = network["a"].send("echo@c")
    network.run(1.0)
    assert network["a"].result(ticket)["body"] == b"hello"


def test_when_a_way_round_ends_nowhere_the_old_way_is_tried_at_once() -> None:
    network, preferred, other = diamond()
    d = network["d"]
    lost: list[Message] = []

    def faults(here: str, _there: str, message: Message) -> bool:
        if here == preferred and is_envelope(message, Kind.REQUEST) and not lost:
            lost.append(message)
            return False
        return True

    network.passes = faults
    d.echo()
    forwarding = network[other].node.forwarding
    [to_d] = [n for n, lane in forwarding._lanes.items() if lane.stack_id == d.id]
    forwarding._lanes.pop(to_d)
    ticket = network["a"].send("echo@d")
    network.run(1.0)
    assert network["a"].result(ticket)["path"] == ["a", preferred, "d"]


def test_the_destination_delivers_one_copy_only() -> None:
    network = chain("a", "b")
    network.passes = lambda here, _there, m: not (here == "b" and isinstance(m, Forward))
    network["a"].send("echo@b")
    network.run(5.0)
    assert len(network["b"].deliveries()) == 1


def test_a_lost_reply_is_posted_again_until_it_is_settled() -> None:
    network = chain("a", "b")
    network["b"].echo()
    lost: list[Message] = []

    def lose_two(_here: str, _there: str, message: Message) -> bool:
        if is_envelope(message, Kind.REPLY) and len(lost) < 2:
            lost.append(message)
            return False
        return True

    network.passes = lose_two
    ticket = network["a"].send("echo@b")
    network.run(3.0)
    assert network["a"].result(ticket)["body"] == b"hello"
    assert len(network["b"].node.deliveries.posts) == 0
    assert len(network["b"].deliveries()) == 1


def test_a_reply_that_was_swallowed_is_asked_for() -> None:
    network = chain("a", "b")
    b = network["b"]
    ticket = network["a"].send("echo@b", timeout_s=60.0)
    network.run(0.2)
    swallowed: list[Message] = []

    def swallow(_here: str, _there: str, message: Message) -> bool:
        if is_envelope(message, Kind.REPLY) and not swallowed:
            swallowed.append(message)
            [link] = b.node.neighbours.links
            assert isinstance(message, Forward)
            network._post("b", ev.Received(link, (Settled((message.seq,)),)), 0.001)
            return False
        return True

    network.passes = swallow
    b.reply(b.deliveries()[0], b"here")
    network.run(1.0)
    assert network["a"].answer(ticket) is None
    network.run(6.0)
    assert network["a"].result(ticket)["body"] == b"here"


def test_questions_about_a_slow_reply_become_rarer() -> None:
    network = chain("a", "b")
    seen = attempts(network, "a")
    network["a"].send("echo@b", timeout_s=100.0)
    network.run(90.0)
    asked = [instant for instant, kind, _ in seen if kind == Kind.RESEND]
    pauses = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert 4.5 <= asked[0] <= 5.7
    assert pauses == sorted(pauses) or max(pauses) <= 34.0
    assert len(asked) <= 6
    assert len(network["b"].deliveries()) == 1


def test_a_destination_that_forgot_the_message_says_so() -> None:
    network = chain("a", "b")
    ticket = network["a"].send("echo@b", timeout_s=60.0)
    network.run(0.2)
    network.cut("a", "b")
    network.kill("b")
    network.run(0.3)
    network.add("b")
    network.join("a", "b")
    network.run(10.0)
    error = network["a"].error(ticket)
    assert (error["code"], error["outcome"]) == ("ci_failed", "indeterminate")


# --- at once -------------------------------------------------------------------------------------


def test_a_relay_that_dies_with_messages_in_hand_loses_none() -> None:
    network, preferred, _ = diamond()
    network["d"].echo()
    network.passes = lambda here, _there, m: here != preferred or not isinstance(m, Forward)
    tickets = [network["a"].send("echo@d", str(n).encode()) for n in range(50)]
    network.run(0.005)
    network.kill(preferred)
    network.passes = lambda *_: True
    network.run(0.2)
    bodies = [network["a"].result(ticket)["body"] for ticket in tickets]
    assert bodies == [str(n).encode() for n in range(50)]
    assert len(network["d"].deliveries()) == 50


def test_a_break_further_on_is_answered_with_a_new_copy_when_it_is_heard_of() -> None:
    network = Network("a", "b", "c", "d", "e")
    network.join("a", "b", "c", "d")
    network.join("a", "e", "d")
    with_echo(network, "d")
    network["d"].echo()
    # The way over e is made dear, so that the longer one is taken, and c keeps what it gets.
    [to_e] = [n for n in network["a"].node.neighbours.links.values() if n.name == "e"]
    lane = network["a"].node.forwarding._lanes[to_e.link]
    lane.silent = True
    network.passes = lambda here, _there, m: here != "c" or not isinstance(m, Forward)
    ticket = network["a"].send("echo@d", timeout_s=60.0)
    network.run(0.01)
    assert network["a"].answer(ticket) is None
    network.cut("c", "d")
    network.run(0.3)
    assert network["a"].result(ticket)["path"] == ["a", "e", "d"]


def test_a_message_waits_for_a_way_that_comes_back_soon() -> None:
    network = chain("a", "b")
    network["b"].echo()
    network.cut("a", "b")
    ticket = network["a"].send("echo@b")
    network.run(1.0)
    assert network["a"].answer(ticket) is None
    network._join("a", "b")
    network.run(0.5)
    assert network["a"].result(ticket)["body"] == b"hello"


def test_a_stack_to_which_no_way_leads_is_unreachable_after_a_grace() -> None:
    network = chain("a", "b")
    network.cut("a", "b")
    network.run(1.0)
    ticket = network["a"].send("echo@b", timeout_s=60.0)
    network.run(1.9)
    assert network["a"].answer(ticket) is None
    network.run(0.2)
    error = network["a"].error(ticket)
    assert (error["code"], error["outcome"]) == ("unreachable", "released")


def test_the_grace_for_a_way_is_no_longer_than_the_callers_patience() -> None:
    network = chain("a", "b")
    network.cut("a", "b")
    network.run(1.0)
    ticket = network["a"].send("echo@b", timeout_s=0.5)
    network.run(0.6)
    error = network["a"].error(ticket)
    assert (error["code"], error["outcome"]) == ("timeout", "released")


def test_a_message_that_is_there_waits_longer_for_a_way_back() -> None:
    network = chain("a", "b")
    ticket = network["a"].send("echo@b", timeout_s=60.0)
    network.run(0.2)
    network.cut("a", "b")
    network.run(9.0)
    assert network["a"].answer(ticket) is None
    network.run(3.0)
    error = network["a"].error(ticket)
    assert (error["code"], error["outcome"]) == ("unreachable", "indeterminate")


def test_a_reply_finds_its_way_once_there_is_one_again() -> None:
    network = chain("a", "b")
    ticket = network["a"].send("echo@b", timeout_s=60.0)
    network.run(0.2)
    network.cut("a", "b")
    network["b"].reply(network["b"].deliveries()[0], b"late but here")
    network.run(3.0)
    network.join("a", "b")
    assert network["a"].result(ticket)["body"] == b"late but here"


def test_a_stack_that_left_fails_what_waits_for_it_at_once() -> None:
    network = chain("a", "b")
    waiting = network["a"].send("echo@b", timeout_s=60.0)
    network.passes = lambda _here, _there, m: not isinstance(m, Forward)
    network["b"].do(ev.Leave)
    network.run(1.0)
    assert network["a"].error(waiting)["code"] == "unreachable"
    assert network["a"].error(network["a"].send("echo@b"))["code"] == "unreachable"


@pytest.mark.parametrize("timeout_s", [1.0, 60.0])
def test_relays_without_room_make_the_failure_busy(timeout_s: float) -> None:
    network = Network("a", "c")
    network.add("b", relay_queue_bytes=10)
    network.join("a", "b", "c")
    with_echo(network, "c")
    ticket = network["a"].send("echo@c", timeout_s=timeout_s)
    network.run(3.5)
    error = network["a"].error(ticket)
    assert (error["code"], error["outcome"]) == ("busy", "released")


# --- keys ----------------------------------------------------------------------------------------


def test_a_message_to_a_lost_prekey_is_sealed_again_to_the_new_one() -> None:
    network = chain("a", "b")
    b = network["b"]
    b.echo()
    b.keys._prekeys.clear()
    b.keys.add_prekey(bytes(range(32)))
    ticket = network["a"].send("echo@b")
    network.run(0.1)
    assert network["a"].result(ticket)["body"] == b"hello"
    again = network["a"].send("echo@b")
    seen = attempts(network, "a")
    network.run(0.1)
    assert network["a"].result(again)["body"] == b"hello"
    assert seen == []


def test_a_stack_whose_keys_are_not_known_is_waited_for() -> None:
    network = chain("a", "b")
    network["b"].echo()
    held = network["a"].node.replica.owners[network["b"].id]
    held._values["stack/self"] = dict(held.value("stack/self") or {}, box=None)
    ticket = network["a"].send("echo@b")
    network.run(0.5)
    assert network["a"].answer(ticket) is None
    held._values.clear()
    network["b"].register("another")
    network.run(1.0)
    assert network["a"].result(ticket)["body"] == b"hello"


# --- odds and ends -------------------------------------------------------------------------------


def test_no_stack_is_twice_in_a_trace_while_messages_wander() -> None:
    network, preferred, _ = diamond()
    network["d"].echo()
    traces: list[list[bytes]] = []
    network.on_message = lambda _h, _t, m: (
        traces.append([hop.short for hop in read_trace(parse(m.envelope).trace)])
        if isinstance(m, Forward)
        else None
    )
    network.passes = lambda here, there, _m: {here, there} != {preferred, "d"}
    ticket = network["a"].send("echo@d")
    network.run(2.0)
    assert network["a"].result(ticket)["body"] == b"hello"
    assert all(len(trace) == len(dict.fromkeys(trace)) for trace in traces)
    assert all(short_id(network["d"].id) not in trace for trace in traces[:2])


@pytest.mark.parametrize("kind", [HopAck, Settled])
def test_lost_acknowledgements_cost_no_message_and_no_second_delivery(kind: type) -> None:
    network = chain("a", "b", "c")
    network["c"].echo()
    network.passes = lambda _here, _there, m: not isinstance(m, kind)
    tickets = [network["a"].send("echo@c") for _ in range(5)]
    network.run(20.0)
    assert all(network["a"].result(ticket)["body"] == b"hello" for ticket in tickets)
    assert len(network["c"].deliveries()) == 5
    network.run(60.0)
    for name in "abc":
        assert network[name].node.forwarding.queued_bytes == 0
        assert len(network[name].node.deliveries.posts) == 0


def test_a_question_about_a_reply_waits_while_the_keys_are_not_known() -> None:
    network = chain("a", "b")
    ticket = network["a"].send("echo@b", timeout_s=60.0)
    network.run(0.2)
    held = network["a"].node.replica.owners[network["b"].id]
    held._values["stack/self"] = {}
    seen = attempts(network, "a")
    network.run(8.0)
    assert seen == []
    assert network["a"].answer(ticket) is None


def test_many_messages_that_fail_together_each_get_one_answer() -> None:
    network = Network("a", "b", window_messages=3)
    network.join("a", "b")
    with_echo(network, "b")
    tickets = [network["a"].send("echo@b") for _ in range(6)]
    network.passes = lambda _h, _t, m: not isinstance(m, Forward)
    network["b"].do(ev.Leave)
    network.run(1.0)
    assert [network["a"].error(ticket)["code"] for ticket in tickets] == ["unreachable"] * 6
    assert network["a"].node.requests._windows == {}


def test_what_waits_for_room_is_left_alone_when_ways_change() -> None:
    network = chain("a", "b", window_messages=1)
    network.passes = lambda _h, _t, m: not is_envelope(m, Kind.RECEIPT)
    network["a"].send("echo@b", timeout_s=60.0)
    waiting = network["a"].send("echo@b", timeout_s=60.0)
    network.run(0.1)
    network.cut("a", "b")
    network.run(1.0)
    network._join("a", "b")
    network.run(1.0)
    assert network["a"].answer(waiting) is None
    assert len(network["b"].deliveries()) == 1
