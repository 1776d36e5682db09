from tektonmesh.core import routes
from tektonmesh.core.envelope import Envelope, Header, Kind, read_mutable, trace_entry
from tektonmesh.core.lanes import Kept, Lane
from tektonmesh.core.types import short_id
from tests.network import Network


def diamond() -> Network:
    """a reaches d over b and over c at the same cost."""
    network = Network("a", "b", "c", "d")
    network.join("a", "b", "d")
    network.join("a", "c", "d")
    return network


def kept(
    network: Network, *, source: bytes = bytes(32), trace: bytes = b"", avoid: bytes = b""
) -> Kept:
    header = Header(Kind.REQUEST, bytes(16), source, network["d"].id, 0, 1000, 0)
    return Kept(Envelope(header, header.pack(), b"", trace, avoid).pack(16, 32), 1000.0, 32)


def chosen(network: Network, envelope: Kept) -> str:
    """The name of the stack that `a` hands the envelope to; empty for none."""
    of_a = network["a"].node.forwarding._routes
    lane = of_a.choose(envelope, read_mutable(envelope.data))
    names = {network[name].id: name for name in "bcd"}
    return names[lane.stack_id] if lane is not None else ""


def lane_to(network: Network, name: str) -> Lane:
    lanes = network["a"].node.forwarding._lanes.values()
    return next(lane for lane in lanes if lane.stack_id == network[name].id)


def test_flows_spread_over_equal_ways_and_each_stays_on_its_own() -> None:
    network = diamond()
    sources = [bytes([n]) + bytes(31) for n in range(16)]
    first = [chosen(network, kept(network, source=source)) for source in sources]
    assert sorted(dict.fromkeys(first)) == ["b", "c"]
    network["a"].node.forwarding.graph_changed()
    assert [chosen(network, kept(network, source=source)) for source in sources] == first


def test_what_was_visited_avoided_or_tried_is_not_chosen() -> None:
    network = diamond()
    usual = chosen(network, kept(network))
    other = "c" if usual == "b" else "b"
    short = short_id(network[usual].id)
    assert chosen(network, kept(network, trace=trace_entry(short, 0))) == other
    assert chosen(network, kept(network, avoid=short)) == other
    tried = kept(network)
    tried.note_tried(short)
    assert chosen(network, tried) == other
    tried.note_tried(short_id(network[other].id))
    assert chosen(network, tried) == ""


def test_a_silent_way_is_the_last_choice() -> None:
    network = diamond()
    usual = chosen(network, kept(network))
    other = "c" if usual == "b" else "b"
    lane_to(network, usual).silent = True
    network["a"].node.forwarding.graph_changed()
    assert chosen(network, kept(network)) == other
    lane_to(network, other).silent = True
    network["a"].node.forwarding.graph_changed()
    assert chosen(network, kept(network)) in ("b", "c")
    assert chosen(network, kept(network, avoid=short_id(network[other].id))) == usual


def test_the_memory_for_flows_is_bounded() -> None:
    network = diamond()
    flows = network["a"].node.forwarding._routes.flows
    chosen(network, kept(network))
    lane = lane_to(network, "b")
    flows.update({n.to_bytes(64): lane for n in range(routes.FLOWS_MAX)})
    chosen(network, kept(network, source=bytes([9]) * 32))
    assert len(flows) == 1


def test_a_way_that_nobody_knows_is_none() -> None:
    network = Network("a", "b", "c", "d")
    network.join("a", "b")
    assert chosen(network, kept(network)) == ""
