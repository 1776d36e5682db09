"""What other stacks remember of the end of an audit log, and what they say when asked."""

from __future__ import annotations

from typing import Any

import pytest

from tektonmesh.core import events as ev
from tektonmesh.core import witness as wt
from tektonmesh.core.envelope import NO_ID, Kind
from tektonmesh.core.witness import Seen
from tektonmesh.wire.codec import pack
from tests.network import Member, Network
from tests.support import make_keys

A, B, C = (make_keys(n)[1].stack_id for n in (1, 2, 3))


def audited(member: Member, number: int, digest: bytes) -> None:
    """The log of this stack ends so, and its record says it."""
    member.network.handle(member, ev.AuditState(number, digest, False))
    member.node.owner._refresh()
    member.network.handle(member, ev.Tick())
    member.network.settle()


def pair() -> Network:
    network = Network("a", "b")
    network.join("a", "b")
    return network


def asked(member: Member, after_s: float = 3.0) -> dict[str, Any]:
    ticket = member.do(ev.AskWitnesses)
    member.network.run(after_s)
    return member.result(ticket)


def test_the_end_of_a_log_is_witnessed_and_told_to_its_owner_when_it_asks() -> None:
    network = pair()
    audited(network["a"], 7, b"7" * 32)
    shown = asked(network["a"])
    assert shown == {"witnesses": [{"stack": "b", "n": 7, "hash": (b"7" * 32).hex()}], "silent": 0}


def test_a_stack_two_hops_away_is_asked_as_well() -> None:
    network = Network("a", "b", "c")
    network.join("a", "b", "c")
    audited(network["a"], 7, b"7" * 32)
    assert [one["stack"] for one in asked(network["a"])["witnesses"]] == ["b", "c"]


def test_a_witness_keeps_the_highest_end_and_tells_people_when_it_goes_back() -> None:
    network = pair()
    a, b = network["a"], network["b"]
    audited(a, 7, b"7" * 32)
    audited(a, 9, b"9" * 32)
    assert b.notices("audit_went_back") == []
    audited(a, 8, b"8" * 32)
    assert b.node.witness.seen(A) is not None
    assert b.node.witness.seen(A).number == 9  # type: ignore[union-attr]
    assert len(b.notices("audit_went_back")) == 1
    audited(a, 9, b"x" * 32)
    assert len(b.notices("audit_went_back")) == 2


def test_what_was_witnessed_outlives_a_restart() -> None:
    network = pair()
    audited(network["a"], 7, b"7" * 32)
    network.kill("b")
    again = network.add("b", network_saved(network))
    seen = again.node.witness.seen(A)
    assert seen is not None and (seen.number, seen.hash) == (7, b"7" * 32)


def network_saved(network: Network) -> Any:
    """A disk that holds what `b` witnessed of `a`."""
    row = pack([7, b"7" * 32, 5])
    return {("witness", A): row, ("witness", B): b"\xc1", ("witness", C): pack([0, b"", 0])}


def test_damaged_rows_remember_nothing() -> None:
    b = Network().add("b", network_saved(Network()))
    assert b.node.witness.seen(B) is None and b.node.witness.seen(C) is None


def test_a_stack_that_saw_nothing_says_so_and_one_that_is_silent_is_counted() -> None:
    network = pair()
    assert asked(network["a"]) == {"witnesses": [], "silent": 0}
    network.passes = lambda one, _two, message: one != "b" or type(message).__name__ != "Forward"
    audited(network["a"], 7, b"7" * 32)
    assert asked(network["a"], 6.0) == {"witnesses": [], "silent": 1}


def test_a_stack_alone_has_no_witnesses() -> None:
    assert asked(Network("a")["a"]) == {"witnesses": [], "silent": 0}


@pytest.mark.parametrize(
    "end",
    [5, {"n": 0, "h": b"x" * 32}, {"n": 2**63, "h": b"x" * 32}, {"n": 1, "h": b"x"}, {"n": 1}],
)
def test_an_end_that_is_none_is_passed_over(end: Any) -> None:
    network = pair()
    a, b = network["a"], network["b"]
    about = a.node.owner.get("stack/self") or {}
    a.node.owner.put("stack/self", about | {"audit": end}, urgent=True)
    network.handle(a, ev.Tick())
    network.settle()
    assert b.node.witness.seen(A) is None


def test_answers_that_nobody_asked_for_and_broken_ones_change_nothing() -> None:
    network = pair()
    a, b = network["a"], network["b"]
    audited(a, 7, b"7" * 32)
    b.node.deliveries.posts.send(Kind.WITNESS, A, b"m" * 16, {"n": 1, "h": b"x" * 32}, within_s=5.0)
    network.settle()
    whole = b.node.deliveries.sealer.seal(Kind.WITNESS, A, {}, ttl_s=5.0)
    a.node.witness._on_witness(whole._replace(body=b"?" * len(whole.body)))
    assert whole.header.reply_to == NO_ID
    assert len(asked(a)["witnesses"]) == 1


def test_the_memory_of_a_witness_is_bounded() -> None:
    network = pair()
    b = network["b"]
    b.node.witness._seen |= {n.to_bytes(32, "big"): Seen(1, b"", 0) for n in range(wt.OWNERS_MAX)}
    audited(network["a"], 7, b"7" * 32)
    assert b.node.witness.seen(A) is None
    assert (b"x" * 32) not in b.node.witness._seen
