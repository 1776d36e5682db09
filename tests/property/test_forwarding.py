"""Forwarding in random networks with random silent faults: nothing twice, nothing lost silently."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tektonmesh.core import effects as fx
from tektonmesh.core.envelope import parse, read_trace
from tektonmesh.core.messages import Forward, Message
from tektonmesh.core.streams import REPLAY_SIZE, StreamIn, StreamOut
from tests.network import Network

NAMES = "abcdef"
EXTRA = [(one, other) for one in NAMES for other in NAMES if one < other]


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """A connected graph over six stacks, and edges that fall silent without breaking it."""
    tree = [(NAMES[draw(st.integers(0, n - 1))], NAMES[n]) for n in range(1, len(NAMES))]
    extra = draw(st.lists(st.sampled_from(EXTRA), max_size=6, unique=True))
    edges = list(dict.fromkeys(tree + extra))
    silent: list[tuple[str, str]] = []
    for edge in draw(st.permutations(edges)):
        left = [one for one in edges if one != edge and one not in silent]
        if len(silent) < 3 and is_connected(left):
            silent.append(edge)
    return edges, silent


def is_connected(edges: list[tuple[str, str]]) -> bool:
    reached = [NAMES[0]]
    for here in reached:
        for one, other in edges:
            if here in (one, other):
                there = other if here == one else one
                if there not in reached:
                    reached.append(there)
    return len(reached) == len(NAMES)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds(), st.sampled_from(NAMES), st.sampled_from(NAMES))
def test_every_message_finds_its_way_round_links_that_die_silently(
    world: tuple[list[tuple[str, str]], list[tuple[str, str]]], source: str, destination: str
) -> None:
    edges, silent = world
    network = Network(*NAMES, ping_interval_s=5.0)
    for one, other in edges:
        network._join(one, other)
    network.settle()
    network[destination].register("echo")
    network[destination].echo()
    network.run(1.0)
    traces: list[list[bytes]] = []

    def look(_here: str, _there: str, message: Message) -> None:
        if isinstance(message, Forward):
            trace = read_trace(parse(message.envelope).trace)
            traces.append([hop.short for hop in trace])

    network.on_message = look
    dead = silent + [(other, one) for one, other in silent]
    network.passes = lambda here, there, _m: (here, there) not in dead
    tickets = [network[source].send(f"echo@{destination}", bytes([n])) for n in range(3)]
    network.run(25.0)
    assert [network[source].result(t)["body"] for t in tickets] == [bytes([n]) for n in range(3)]
    ids = [delivery.msg_id for delivery in network[destination].deliveries()]
    assert len(ids) == len(dict.fromkeys(ids)) == 3
    assert all(len(trace) == len(dict.fromkeys(trace)) for trace in traces)
    network.run(20.0)
    for name in NAMES:
        node = network[name].node
        assert node.forwarding.queued_bytes == 0, name
        assert node.requests.pending == node.deliveries.open == len(node.deliveries.posts) == 0


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.integers(0, 60), max_size=12, unique=True),
    st.lists(st.binary(min_size=1, max_size=400), min_size=1, max_size=8),
    st.booleans(),
)
def test_a_reply_arrives_whole_whatever_envelopes_are_lost(
    lost: list[int], pieces: list[bytes], stream: bool
) -> None:
    network = Network("a", "b", "c")
    network.join("a", "b", "c")
    network["c"].register("echo")
    network.run(1.0)
    count = -1

    def passes(_here: str, _there: str, message: Message) -> bool:
        nonlocal count
        count += isinstance(message, Forward)
        return not isinstance(message, Forward) or count not in lost

    network.passes = passes
    a, c = network["a"], network["c"]
    ticket = a.send("echo@c", stream=stream, timeout_s=500.0)
    network.run(130.0)
    [delivery] = c.deliveries()
    for piece in pieces:
        c.chunk(delivery, piece)
        network.run(0.02)
    c.reply(delivery, b"end")
    network.run(200.0)
    whole = b"".join(a.streamed(ticket)) + a.result(ticket)["body"]
    assert whole == b"".join(pieces) + b"end"
    assert len(c.deliveries()) == 1
    assert all(not isinstance(e, fx.AnswerChunk) for e in a.effects) or stream


@given(
    st.lists(st.binary(max_size=3000), max_size=30),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_pieces_in_any_order_doubled_and_lost_make_the_same_bytes(
    data: list[bytes], live: bool, chance: object
) -> None:
    out, into = StreamOut(live), StreamIn()
    pieces = [piece for part in data for piece in out.push(part)] + out.flush()
    whole = b"".join(data)
    assert b"".join(text for _, text in pieces) == whole
    assert len(whole) <= REPLAY_SIZE
    shuffled = pieces + pieces[::2]
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    got = b"".join(into.accept(*piece) for piece in shuffled[: 2 * len(shuffled) // 3])
    got += into.finish(out.offset, b"")
    for piece in out.since(into.next) or []:
        got += into.accept(*piece)
    assert got == whole
    assert into.complete
