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


def ways(network: Network, avoid: bytes = b"") -> str:
    """The way of an own envelope of `a` to `d`, by letters."""
    names = {network[name].id: name for name in network._members}
    found = network["a"].node.forwarding.path(network["d"].id, avoid)
    return "".join(names[stack] for stack in found)


def test_the_way_of_an_own_envelope_is_the_one_that_its_flow_takes() -> None:
    for source in "ad":
        network = diamond()
        me, there = network["a"], network["d"]
        assert ways(network) in ("abd", "acd")
        usual = chosen(network, kept(network, source=me.id))
        assert ways(network) == f"a{usual}d"
        routes_of = me.node.forwarding._routes
        routes_of.flows[me.id + there.id] = lane_to(network, "c" if usual == "b" else "b")
        assert ways(network) == ("acd" if usual == "b" else "abd"), source


def test_detours_lead_round_every_way_in_turn_and_then_begin_again() -> None:
    network = Network("a", "b", "c", "d", "e")
    for middle in "bce":
        network.join("a", middle, "d")
    forwarding, there = network["a"].node.forwarding, network["d"].id
    avoid, taken = b"", [ways(network)]
    for _ in range(2):
        avoid = forwarding.detour(there, avoid)
        taken.append(ways(network, avoid))
    assert sorted(taken) == ["abd", "acd", "aed"]
    assert forwarding.detour(there, avoid) == b""


def test_there_is_no_detour_past_a_direct_link_or_when_there_is_no_way() -> None:
    network = diamond()
    forwarding = network["a"].node.forwarding
    assert forwarding.detour(network["b"].id, b"") == b""
    assert forwarding.detour(bytes(32), b"") == b""


def test_an_avoid_list_grows_no_longer_than_an_envelope_may_carry() -> None:
    network = diamond()
    full = b"".join(n.to_bytes(8) for n in range(1, 65))
    assert network["a"].node.forwarding.detour(network["d"].id, full) == b""
