"""Blobs between whole nodes: put in at one stack, read at another, whoever lies or goes between."""

from __future__ import annotations

from typing import Any

import pytest

from tektonmesh.core import blobs
from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core.fetches import PATIENCE_AHEAD_S, PATIENCE_S
from tektonmesh.core.messages import BLOB_SIZE_MAX, PIECE_SIZE, Fetch, Lacking, Message, Piece
from tektonmesh.core.references import PER_OWNER_MAX
from tektonmesh.core.stash import KEEP_S, OVERHEAD, Rank, hash_blob
from tektonmesh.core.wants import NO_ROOM_S
from tests.network import Member, Network

SMALL = b"the catalogue of numa"
LARGE = bytes(range(256)) * 1024
"""Four pieces."""
AHEAD = {"blob_prefetch_bytes_per_s": 0}
"""Nodes that fetch nothing ahead."""


def chain(*names: str, **settings: Any) -> Network:
    network = Network(*names, **settings)
    network.join(*names)
    return network


def put(member: Member, data: bytes, name: str = "numa") -> bytes:
    """Put a blob in and publish a record that refers to it; its hash."""
    ticket = member.do(lambda t: ev.PutBlob(t, data))
    assert member.result(ticket) == {"hash": hash_blob(data).hex(), "length": len(data)}
    refer(member, hash_blob(data), len(data), name)
    return hash_blob(data)


def refer(member: Member, blob: bytes, length: int, name: str = "numa") -> None:
    member.node.owner.put(f"catalog/{name}", {"hash": blob, "length": length, "tools": 3})


def get(member: Member, blob: bytes, timeout_s: float = 10.0) -> int:
    return member.do(lambda t: ev.GetBlob(t, blob, timeout_s))


def holds(member: Member, blob: bytes) -> bool:
    return blob in member.node.blobs.stash


def count(network: Network, kind: type) -> list[tuple[str, str]]:
    """From now on (sender, receiver) of each message of a kind."""
    seen: list[tuple[str, str]] = []
    before = network.on_message

    def note(one: str, other: str, message: Message) -> None:
        before(one, other, message)
        if isinstance(message, kind):
            seen.append((one, other))

    network.on_message = note
    return seen


def lie(network: Network, *liars: str) -> list[str]:
    """From now on these stacks send zeros instead of the bytes of a blob, or the one of them that
    `d` asks first, if it is named first. Returns those that do."""
    lying = [] if liars[0] == "d" else list(liars)
    plain = network._transmit

    def transmit(member: Member, effect: fx.Send) -> None:
        if "d" in liars and not lying and member.name == "d":
            asked = [it for it in effect.messages if isinstance(it, Fetch)]
            far = network._ends.get((member.name, effect.link))
            lying.extend([far[0]] if asked and far is not None else [])
        if member.name in lying:
            effect = fx.Send(effect.link, tuple(zeros(it) for it in effect.messages))
        plain(member, effect)

    network._transmit = transmit  # type: ignore[method-assign]
    return lying


def zeros(message: Message) -> Message:
    if isinstance(message, Piece):
        return Piece(message.hash, message.offset, message.total, bytes(len(message.data)))
    return message


# --- putting in and reading here -----------------------------------------------------------------


def test_what_was_put_in_is_read_at_once() -> None:
    network = Network("a")
    blob = put(network["a"], SMALL)
    assert network["a"].result(get(network["a"], blob)) == {"data": SMALL}
    assert network["a"].saved["blob", blob] == SMALL


@pytest.mark.parametrize(
    ("data", "code"), [(b"", "bad_request"), (bytes(BLOB_SIZE_MAX + 1), "too_large")]
)
def test_a_blob_has_one_byte_to_a_mebibyte(data: bytes, code: str) -> None:
    a = Network("a")["a"]
    assert a.error(a.do(lambda t: ev.PutBlob(t, data)))["code"] == code
    assert len(a.node.blobs.stash) == 0
    assert len(put(a, bytes(BLOB_SIZE_MAX))) == 32


def test_when_our_own_blobs_fill_the_quota_no_more_is_put_in() -> None:
    a = Network("a", blob_bytes=2 * (len(SMALL) + OVERHEAD))["a"]
    put(a, SMALL, "one")
    put(a, SMALL[::-1], "two")
    assert a.error(a.do(lambda t: ev.PutBlob(t, SMALL + b"!")))["code"] == "busy"
    assert a.node.blobs.stash.size <= a.node.env.settings.blob_bytes


def test_a_hash_that_can_be_none_is_refused() -> None:
    a = Network("a")["a"]
    assert a.error(get(a, b"short"))["code"] == "bad_request"


# --- reading from afar ---------------------------------------------------------------------------


def test_a_blob_goes_from_neighbour_to_neighbour_to_whoever_holds_the_record() -> None:
    network = chain("a", "b", "c", "d")
    pieces = count(network, Piece)
    blob = put(network["a"], LARGE)
    network.run(10.0)
    assert all(holds(network[name], blob) for name in "abcd")
    assert pieces == [("a", "b")] * 4 + [("b", "c")] * 4 + [("c", "d")] * 4
    assert network["d"].result(get(network["d"], blob)) == {"data": LARGE}
    assert [network[name].node.blobs.stash.rank(blob) for name in "ad"] == [Rank.US, Rank.OTHERS]
    assert network["d"].node.blobs.lacking == 0


def test_a_caller_gets_what_is_still_on_its_way() -> None:
    network = chain("a", "b", "c", "d")
    blob = put(network["a"], LARGE)
    network.run(0.2)
    ticket = get(network["d"], blob)
    assert network["d"].answer(ticket) is None
    assert network["d"].node.blobs.waiting == 1
    network.run(5.0)
    assert network["d"].result(ticket) == {"data": LARGE}
    assert network["d"].node.blobs.waiting == 0


def test_a_blob_is_read_in_a_partition_when_its_owner_is_out_of_reach() -> None:
    network = chain("a", "b", "c")
    blob = put(network["a"], SMALL)
    network.run(0.7)
    assert holds(network["b"], blob)
    network.kill("a")
    network.run(5.0)
    assert network["c"].result(get(network["c"], blob)) == {"data": SMALL}


def test_without_a_reference_a_neighbour_may_have_it_all_the_same() -> None:
    network = chain("a", "b")
    a, b = network["a"], network["b"]
    a.do(lambda t: ev.PutBlob(t, SMALL))
    ticket = get(b, hash_blob(SMALL))
    network.run(1.0)
    assert b.result(ticket) == {"data": SMALL}
    assert b.node.blobs.stash.rank(hash_blob(SMALL)) is Rank.NOBODY


def test_what_nobody_refers_to_and_no_neighbour_has_is_not_found() -> None:
    network = chain("a", "b", "c")
    ticket, alone = get(network["b"], b"x" * 32), get(Network("z")["z"], b"x" * 32)
    network.run(0.1)
    assert network["b"].error(ticket)["code"] == "not_found"
    assert alone == 1


def test_without_neighbours_what_nobody_refers_to_is_not_found_at_once() -> None:
    network = Network("a")
    ticket = get(network["a"], b"x" * 32)
    assert network["a"].error(ticket)["code"] == "not_found"
    assert network["a"].node.blobs.waiting == 0


def test_what_is_referred_to_and_does_not_come_ends_with_the_deadline() -> None:
    network = chain("a", "b")
    refer(network["a"], b"x" * 32, 100)
    network.run(1.0)
    asks = count(network, Fetch)
    ticket = get(network["b"], b"x" * 32, timeout_s=30.0)
    network.run(29.0)
    assert network["b"].answer(ticket) is None
    network.run(1.1)
    assert network["b"].error(ticket)["code"] == "timeout"
    assert 8 <= len(asks) <= 40, "it was asked for again, ever more rarely"
    assert get(network["b"], b"x" * 32, timeout_s=-1.0) and network["b"].node.blobs.waiting == 0


def test_a_caller_without_neighbours_waits_for_one() -> None:
    network = chain("a", "b", **AHEAD)
    blob = put(network["a"], SMALL)
    network.run(1.0)
    network.cut("a", "b")
    network.run(20.0)
    ticket = get(network["b"], blob, timeout_s=60.0)
    network.run(20.0)
    assert network["b"].answer(ticket) is None
    network._join("a", "b")
    network.run(0.1)
    assert network["b"].result(ticket) == {"data": SMALL}


def test_all_callers_for_one_blob_get_it_from_one_fetch() -> None:
    network = chain("a", "b", **AHEAD)
    blob = put(network["a"], SMALL)
    network.run(1.0)
    pieces = count(network, Piece)
    tickets = [get(network["b"], blob) for _ in range(5)]
    network.run(1.0)
    assert [network["b"].result(ticket) for ticket in tickets] == [{"data": SMALL}] * 5
    assert pieces == [("a", "b")]


def test_a_caller_that_gives_up_is_told_so_and_the_fetch_stops() -> None:
    network = chain("a", "b", **AHEAD)
    blob = put(network["a"], LARGE)
    network.run(1.0)
    ticket, other = get(network["b"], blob), get(network["b"], blob)
    network.run(0.001)
    pieces = count(network, Piece)
    for given_up in (ticket, ticket, other):
        network.handle(network["b"], ev.CancelCommand(given_up))
    network.run(5.0)
    assert [network["b"].error(it)["code"] for it in (ticket, other)] == ["cancelled"] * 2
    assert len(pieces) <= 1
    assert not holds(network["b"], blob)


def test_what_a_caller_gave_up_is_fetched_ahead_in_its_turn() -> None:
    network = chain("a", "b")
    blob = put(network["a"], LARGE)
    network.run(0.053)
    assert blob in network["b"].node.blobs.fetches
    ticket = get(network["b"], blob)
    network.handle(network["b"], ev.CancelCommand(ticket))
    network.run(5.0)
    assert network["b"].error(ticket)["code"] == "cancelled"
    assert holds(network["b"], blob)


def test_only_so_many_callers_wait() -> None:
    network = chain("a", "b")
    for n in range(blobs.GETS_MAX):
        get(network["b"], n.to_bytes(32, "big"))
    assert network["b"].node.blobs.waiting == blobs.GETS_MAX
    assert network["b"].error(get(network["b"], b"x" * 32))["code"] == "busy"
    network.run(5.0)
    assert network["b"].node.blobs.waiting == 0


def test_what_is_put_in_here_ends_the_waiting_for_it() -> None:
    network = Network("a")
    refer(network["a"], hash_blob(SMALL), len(SMALL))
    network.run(1.0)
    ticket = get(network["a"], hash_blob(SMALL))
    assert network["a"].node.blobs.lacking == 1
    put(network["a"], SMALL)
    assert network["a"].result(ticket) == {"data": SMALL}
    assert network["a"].node.blobs.lacking == 0


def test_what_is_put_in_here_is_not_fetched_any_more() -> None:
    network = chain("a", "b")
    network.passes = lambda _one, _other, message: not isinstance(message, Piece)
    blob = put(network["a"], SMALL)
    network.run(1.0)
    assert blob in network["b"].node.blobs.fetches
    put(network["b"], SMALL)
    assert blob not in network["b"].node.blobs.fetches


def test_our_own_blobs_come_back_from_the_mesh() -> None:
    network = chain("a", "b")
    blob = put(network["a"], SMALL)
    network.run(2.0)
    network.kill("a")
    network.add("a")
    network.join("a", "b")
    refer(network["a"], blob, len(SMALL))
    network.run(2.0)
    assert network["a"].node.blobs.stash.rank(blob) is Rank.US


def test_a_stack_that_leaves_answers_its_callers_and_fetches_nothing() -> None:
    network = chain("a", "b")
    refer(network["a"], b"x" * 32, 100)
    network.run(1.0)
    ticket = get(network["b"], b"x" * 32)
    network["b"].do(ev.Leave)
    assert network["b"].error(ticket)["code"] == "leaving"
    assert network["b"].error(get(network["b"], b"x" * 32))["code"] == "leaving"
    asks = count(network, Fetch)
    refer(network["a"], b"y" * 32, 100, "zeno")
    network.run(30.0)
    assert asks and ("b", "a") not in asks
    assert network["b"].node.blobs.lacking == 0


# --- links that go, neighbours that lie ----------------------------------------------------------


def diamond(**settings: Any) -> Network:
    """`d` between `b` and `c`, who both hold what `a` put in; `d` fetches nothing ahead."""
    network = Network("a", "b", "c", **settings)
    network.add("d", **AHEAD)
    network.join("b", "a", "c")
    network.join("b", "d", "c")
    return network


def test_when_the_link_dies_half_way_another_neighbour_goes_on() -> None:
    network = diamond()
    blob = put(network["a"], LARGE)
    network.run(5.0)
    sent: list[tuple[str, int]] = []

    def note(one: str, other: str, message: Message) -> None:
        if isinstance(message, Piece) and other == "d":
            sent.append((one, message.offset))

    network.on_message = note
    ticket = get(network["d"], blob)
    while len(sent) < 2:
        network.run(0.001)
    network.run(0.001)
    [first] = {one for one, _ in sent}
    network.cut(first, "d")
    network.run(1.0)
    assert network["d"].result(ticket) == {"data": LARGE}
    other = "c" if first == "b" else "b"
    taken = [offset for one, offset in sent if one == other]
    assert taken[0] >= PIECE_SIZE, "what had come was not fetched again"
    assert taken == sorted(taken)


def test_who_gives_a_wrong_blob_loses_its_link_and_the_other_is_asked() -> None:
    network = diamond()
    blob = put(network["a"], LARGE)
    network.run(5.0)
    lying = lie(network, "d")
    ticket = get(network["d"], blob)
    network.run(2.0)
    assert network["d"].result(ticket) == {"data": LARGE}
    [said] = network["d"].notices("link_error")
    assert "hash" in said["detail"]
    [honest] = [name for name in "bc" if name not in lying]
    links = network["d"].node.neighbours.links.values()
    assert [link.stack_id for link in links] == [network[honest].id]


def test_a_wrong_blob_is_never_kept_or_answered_with() -> None:
    network = chain("a", "b", "c")
    lie(network, "b")
    blob = put(network["a"], SMALL)
    network.run(0.5)
    ticket = get(network["c"], blob, timeout_s=3.0)
    network.run(5.0)
    assert holds(network["b"], blob)
    assert not holds(network["c"], blob)
    assert network["c"].error(ticket)["code"] == "timeout"
    assert network["c"].saved.get(("blob", blob)) is None
    assert network["c"].notices("link_error")


def test_a_silent_neighbour_costs_some_patience_only() -> None:
    network = diamond()
    blob = put(network["a"], SMALL)
    network.run(5.0)
    network.passes = lambda one, _other, message: one != "b" or not isinstance(message, Piece)
    tickets = get(network["d"], blob, timeout_s=60.0)
    network.run(PATIENCE_S + 1.0)
    assert network["d"].result(tickets) == {"data": SMALL}
    assert network["d"].notices("link_error") == []


def test_a_suspect_neighbour_is_not_asked() -> None:
    network = chain("a", "b", **AHEAD)
    blob = put(network["a"], SMALL)
    network.run(1.0)
    network.passes = lambda one, _other, _message: one != "a"
    [link] = network["b"].node.neighbours.links.values()
    while link.state != "suspect":
        network.run(0.05)
    asks = count(network, Fetch)
    ticket = get(network["b"], blob, timeout_s=60.0)
    network.run(0.2)
    assert asks == []
    network.passes = lambda _one, _other, _message: True
    refer(network["a"], b"x" * 32, 100, "news")
    network.run(2.0)
    assert network["b"].result(ticket) == {"data": SMALL}


def test_the_owner_is_asked_first_then_who_told_of_it_then_the_others() -> None:
    names = [f"n{n}" for n in range(8)]
    network = Network("a", "b", *names, **AHEAD)
    for name in names:
        network.join("b", name)
    network.join("a", names[5])
    refer(network["a"], b"x" * 32, 100)
    network.run(1.0)
    asked: list[str] = []
    network.on_message = lambda one, other, message: (
        asked.append(other) if isinstance(message, Fetch) and one == "b" else None
    )
    get(network["b"], b"x" * 32)
    network.run(0.1)
    assert asked[0] == names[5]
    assert sorted(asked) == names
    network.join("a", "b")
    asked.clear()
    get(network["b"], b"x" * 32)
    network.run(6.0)
    assert asked[:2] == ["a", names[5]]
    assert sorted(asked[:9]) == ["a", *names]


def test_a_new_neighbour_is_asked_for_what_the_others_lack() -> None:
    network = Network("a", "b", "c")
    network.join("a", "b")
    blob = hash_blob(SMALL)
    refer(network["a"], blob, len(SMALL))
    network["c"].do(lambda t: ev.PutBlob(t, SMALL))
    network.run(50.0)
    network.passes = lambda one, other, message: (
        not isinstance(message, Lacking) or (one, other) != ("a", "b")
    )
    while blob not in network["b"].node.blobs.fetches:
        network.run(0.1)
    network.join("c", "b")
    assert not holds(network["b"], blob), "it still waits for the other"
    network.cut("a", "b")
    network.run(0.1)
    network.join("c", "a")
    assert holds(network["a"], blob)


def test_a_blob_that_two_refer_to_is_wanted_until_neither_does() -> None:
    network = chain("a", "b", "c")
    for name in "ac":
        refer(network[name], b"x" * 32, 100)
    network.run(1.0)
    for name, lacking in (("a", 1), ("c", 0)):
        network[name].node.owner.delete("catalog/numa")
        network.run(1.0)
        assert network["b"].node.blobs.lacking == lacking


# --- the budget ----------------------------------------------------------------------------------


def test_ahead_is_fetched_what_fits_and_no_faster_than_the_budget() -> None:
    rate = 2 * PIECE_SIZE
    network = chain("a", "b", blob_prefetch_bytes_per_s=rate)
    sizes: list[int] = []
    network.on_message = lambda _one, _other, message: sizes.extend(
        [len(message.data)] if isinstance(message, Piece) else []
    )
    hashes = [put(network["a"], bytes([n]) * len(LARGE), f"ci{n}") for n in range(8)]
    network.run(4.0)
    assert 3 * rate <= sum(sizes) <= 5 * rate
    network.run(20.0)
    assert sum(sizes) == 8 * len(LARGE)
    assert all(holds(network["b"], blob) for blob in hashes)


def test_only_so_many_blobs_are_on_their_way_at_once() -> None:
    network = chain("a", "b")
    network.passes = lambda _one, _other, message: not isinstance(message, Piece)
    for n in range(10):
        refer(network["a"], bytes([n]) * 32, 100, f"ci{n}")
    network.run(0.5)
    network.on_message = lambda _one, _other, _message: None
    for n in range(10):
        put(network["a"], bytes([n]) * 100, f"ci{n}")
    network.run(1.0)
    assert len(network["b"].node.blobs.fetches) == 4
    for n in range(10):
        get(network["b"], hash_blob(bytes([n]) * 100), 60.0)
    network.run(1.0)
    assert len(network["b"].node.blobs.fetches) == network["b"].node.blobs.fetches.wanted == 4
    network.passes = lambda _one, _other, _message: True
    network.run(40.0)
    assert network["b"].node.blobs.waiting == 0
    assert len(network["b"].node.blobs.stash) == 10


def test_who_waits_is_served_while_as_many_others_are_fetched_ahead() -> None:
    network = chain("a", "b")
    mine = hash_blob(SMALL)
    network.passes = lambda _one, _other, message: (
        not isinstance(message, Piece) or message.hash == mine
    )
    for n in range(10):
        put(network["a"], bytes([n]) * 100, f"ci{n}")
    network.run(1.0)
    assert len(network["b"].node.blobs.fetches) == 4
    network["a"].do(lambda t: ev.PutBlob(t, SMALL))
    ticket = get(network["b"], mine)
    network.run(0.1)
    assert network["b"].result(ticket) == {"data": SMALL}


def test_one_owner_cannot_fill_the_quota() -> None:
    cost = 1000 + OVERHEAD
    network = chain("a", "b", "c", blob_bytes=8 * cost, blob_owner_bytes=3 * cost)
    greedy = [put(network["a"], bytes([n]) * 1000, f"ci{n}") for n in range(7)]
    network.run(5.0)
    ranks = [network["b"].node.blobs.stash.rank(blob) for blob in greedy]
    assert ranks.count(Rank.OTHERS) == 3
    blob = put(network["c"], SMALL)
    network.run(5.0)
    assert holds(network["b"], blob)
    assert all(
        network[name].node.blobs.stash.size <= 8 * cost and not network[name].notices("link_error")
        for name in "abc"
    )


def test_when_an_owner_gives_up_a_blob_another_of_its_own_gets_the_place() -> None:
    cost = 1000 + OVERHEAD
    network = chain("a", "b", blob_owner_bytes=cost)
    one = put(network["a"], bytes([1]) * 1000, "ci1")
    network.run(1.0)
    two = put(network["a"], bytes([2]) * 1000, "ci2")
    network.run(5.0)
    assert [holds(network["b"], blob) for blob in (one, two)] == [True, False]
    network["a"].node.owner.delete("catalog/ci1")
    network.run(1.2 * NO_ROOM_S)
    stash = network["b"].node.blobs.stash
    assert [stash.rank(blob) for blob in (one, two)] == [Rank.NOBODY, Rank.OTHERS]


def test_a_blob_that_was_fetched_beyond_its_owners_share_gets_the_share_that_is_given_up() -> None:
    cost = 1000 + OVERHEAD
    network = chain("a", "b", blob_owner_bytes=cost)
    one, two = (put(network["a"], bytes([n]) * 1000, f"ci{n}") for n in (1, 2))
    network.run(5.0)
    get(network["b"], two)
    network.run(1.0)
    stash = network["b"].node.blobs.stash
    assert [stash.rank(blob) for blob in (one, two)] == [Rank.OTHERS, Rank.NOBODY]
    network["a"].node.owner.delete("catalog/ci1")
    network.run(1.0)
    assert [stash.rank(blob) for blob in (one, two)] == [Rank.NOBODY, Rank.OTHERS]


def test_a_stack_without_room_of_its_own_gets_a_blob_for_a_neighbour_that_asks() -> None:
    network = Network("a")
    network.add("b", blob_owner_bytes=1)
    network.add("c")
    network.join("a", "b", "c")
    blob = put(network["a"], SMALL)
    network.run(5.0)
    assert network["b"].node.blobs.stash.rank(blob) is Rank.NOBODY
    assert holds(network["c"], blob)


def test_a_blob_that_cannot_be_kept_is_still_given_to_the_caller() -> None:
    network = Network("a")
    network.add("b", blob_bytes=100)
    network.join("a", "b")
    blob = put(network["a"], SMALL)
    network.run(5.0)
    ticket = get(network["b"], blob)
    network.run(1.0)
    assert network["b"].result(ticket) == {"data": SMALL}
    assert not holds(network["b"], blob)
    other = hash_blob(b"unreferenced")
    network["a"].do(lambda t: ev.PutBlob(t, b"unreferenced"))
    ticket = get(network["b"], other)
    network.run(1.0)
    assert network["b"].result(ticket) == {"data": b"unreferenced"}


def test_what_a_caller_wants_makes_the_least_recently_used_of_others_go() -> None:
    network = Network("a")
    network.add("b", blob_bytes=2 * (1000 + OVERHEAD))
    network.join("a", "b")
    hashes = []
    for n in range(3):
        hashes.append(put(network["a"], bytes([n]) * 1000, f"ci{n}"))
        network.run(1.0)
    assert [holds(network["b"], blob) for blob in hashes] == [True, True, False]
    network["b"].result(get(network["b"], hashes[0]))
    get(network["b"], hashes[2])
    network.run(1.0)
    assert [holds(network["b"], blob) for blob in hashes] == [True, False, True]


def test_what_did_not_fit_when_it_came_is_looked_at_again_later() -> None:
    network = Network("a")
    network.add("b", blob_bytes=1000 + OVERHEAD)
    network.join("a", "b")
    hashes = [put(network["a"], bytes([n]) * 1000, f"ci{n}") for n in range(2)]
    network.run(5.0)
    [kept] = [n for n in range(2) if holds(network["b"], hashes[n])]
    network["a"].node.owner.delete(f"catalog/ci{kept}")
    network.run(1.2 * NO_ROOM_S)
    assert holds(network["b"], hashes[1 - kept])


def test_a_blob_that_made_room_is_wanted_again_when_there_is_some() -> None:
    cost = 1000 + OVERHEAD
    network = Network("a")
    network.add("b", blob_bytes=2 * cost, blob_owner_bytes=2 * cost)
    network.join("a", "b")
    one = put(network["a"], bytes([1]) * 1000, "ci1")
    network.run(2.0)
    assert holds(network["b"], one)
    others = []
    for n in (2, 3):
        others.append(network["b"].do(lambda t, n=n: ev.PutBlob(t, bytes([n]) * 1000)))
    assert not holds(network["b"], one)
    network.run(0.6)
    assert not holds(network["b"], one)
    assert network["b"].node.blobs.lacking == 1
    network.run(1.2 * NO_ROOM_S)
    assert holds(network["b"], one), "what was put in and not referred to gave way"


def test_a_reference_with_a_false_length_stops_nobody_from_the_right_one() -> None:
    network = chain("a", "b", "c")
    blob = hash_blob(LARGE)
    refer(network["c"], blob, 10)
    network.run(3.0)
    assert not holds(network["b"], blob)
    put(network["a"], LARGE)
    network.run(5.0)
    assert holds(network["b"], blob)
    assert all(not network[name].notices("link_error") for name in "abc")


def test_what_nobody_has_costs_ever_less() -> None:
    network = chain("a", "b", "c")
    refer(network["a"], b"x" * 32, 100)
    asks = count(network, Fetch)
    network.run(60.0)
    begun = len(asks)
    assert begun >= 10
    network.run(3600.0)
    assert len(asks) - begun <= begun + 20


def test_a_blob_nobody_refers_to_any_more_is_not_fetched_and_in_the_end_deleted() -> None:
    network = chain("a", "b")
    blob = put(network["a"], SMALL)
    network.run(2.0)
    assert holds(network["b"], blob)
    network["a"].node.owner.delete("catalog/numa")
    network.run(2.0)
    assert network["b"].node.blobs.stash.rank(blob) is Rank.NOBODY
    network.run(KEEP_S)
    assert not holds(network["b"], blob)
    assert ("blob", blob) not in network["b"].saved
    refer(network["a"], b"x" * 32, 100)
    network.run(1.0)
    assert network["b"].node.blobs.lacking == 1
    network["a"].node.owner.delete("catalog/numa")
    network.run(1.0)
    assert network["b"].node.blobs.lacking == 0
    assert network["b"].node.blobs.fetches.wanted == len(network["b"].node.blobs.fetches) == 0


def test_a_caller_goes_on_waiting_when_nobody_refers_to_it_any_more() -> None:
    network = chain("a", "b")
    network.passes = lambda _one, _other, message: not isinstance(message, (Piece, Lacking))
    blob = put(network["a"], SMALL)
    network.run(1.0)
    ticket = get(network["b"], blob, timeout_s=60.0)
    asks = count(network, Fetch)
    network["a"].node.owner.delete("catalog/numa")
    network.run(1.0)
    assert network["b"].answer(ticket) is None
    assert asks == [], "it is still being asked for"
    network.passes = lambda _one, _other, _message: True
    network.run(PATIENCE_AHEAD_S)
    assert network["b"].error(ticket)["code"] == "not_found"


def test_beyond_so_many_of_one_owner_blobs_are_fetched_when_asked_for_only() -> None:
    network = chain("a", "b")
    hashes = [
        put(network["a"], n.to_bytes(2, "big"), f"ci{n:04}") for n in range(PER_OWNER_MAX + 1)
    ]
    network.run(10.0)
    assert sum(holds(network["b"], blob) for blob in hashes) == PER_OWNER_MAX
    ticket = get(network["b"], hashes[-1])
    network.run(1.0)
    assert network["b"].result(ticket)["data"] == PER_OWNER_MAX.to_bytes(2, "big")


def test_wants_beyond_the_bound_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tektonmesh.core.wants.WANTS_MAX", 1)
    network = chain("a", "b")
    for n in range(3):
        refer(network["a"], bytes([n]) * 32, 100, f"ci{n}")
    network.run(1.0)
    assert network["b"].node.blobs.lacking == 1


def test_many_wants_without_room_are_looked_at_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "LOOK_MAX", 2)
    network = Network("a")
    network.add("b", blob_owner_bytes=1)
    network.join("a", "b")
    last = [put(network["a"], bytes([n]) * 10, f"ci{n}") for n in range(7)][-1]
    network.run(1.0)
    wants = network["b"].node.blobs._wants
    assert all(want.full for want in wants.all())
    assert wants.get(last) is not None


# --- restart -------------------------------------------------------------------------------------


def test_a_restarted_stack_has_its_blobs_without_asking_anybody() -> None:
    network = chain("a", "b")
    blob = put(network["a"], SMALL)
    network.run(2.0)
    saved = network["b"].saved
    network.kill("b")
    network.add("b", saved)
    assert network["b"].result(get(network["b"], blob)) == {"data": SMALL}
    network.join("a", "b")
    assert network["b"].node.blobs.stash.rank(blob) is Rank.OTHERS


def test_a_damaged_row_is_deleted_and_the_blob_fetched_again() -> None:
    network = chain("a", "b")
    blob = put(network["a"], SMALL)
    network.run(2.0)
    saved = network["b"].saved | {("blob", blob): SMALL + b"?"}
    network.kill("b")
    network.add("b", saved)
    assert ("blob", blob) not in network["b"].saved
    assert network["b"].node.blobs.lacking == 1
    network.join("a", "b")
    assert holds(network["b"], blob)
    assert network["b"].saved["blob", blob] == SMALL


def test_a_quota_that_was_lowered_is_kept_from_the_start() -> None:
    network = chain("a", "b")
    hashes = [put(network["a"], bytes([n]) * 1000, f"ci{n}") for n in range(5)]
    network["b"].do(lambda t: ev.PutBlob(t, SMALL))
    network.run(3.0)
    saved = network["b"].saved
    network.kill("b")
    network.add("b", saved, blob_bytes=2 * (1000 + OVERHEAD))
    stash = network["b"].node.blobs.stash
    assert len(stash) == 2
    assert sum(blob in stash for blob in hashes) == 2
    assert len([key for table, key in network["b"].saved if table == "blob"]) == 2
