"""Stacks that only relay: they learn who there is and which links they have, and no more."""

from __future__ import annotations

from typing import Any

import pytest

from tektonmesh.core import events as ev
from tektonmesh.core.messages import Delta, Message, RelayOutlines
from tektonmesh.wire.codec import encode_message
from tests.network import Member, Network

CANARY = "canary"


def govern(member: Member, act: str, of: Member, **params: Any) -> dict[str, Any]:
    ticket = member.do(lambda t: ev.Govern(t, act, {"stack_id": of.id} | params))
    return member.result(ticket)


class Heard:
    """Every byte that was sent to one stack."""

    def __init__(self, network: Network, name: str) -> None:
        self.sent: list[tuple[str, Message]] = []
        network.on_message = lambda f, t, m: self.sent.append((f, m)) if t == name else None

    def has(self, text: str) -> bool:
        return any(text.encode() in b"".join([encode_message(m)]) for _from, m in self.sent)

    def kinds(self, sender: str) -> set[type]:
        return {type(message) for name, message in self.sent if name == sender}


def with_relay(*names: str) -> tuple[Network, Heard]:
    """Members that take `r` for a relay, not linked yet; the first has a public CI."""
    network = Network(*names, "r")
    heard = Heard(network, "r")
    for name in names:
        govern(network[name], "terms", network["r"], role="relay")
    network[names[0]].register(CANARY, specialties=[CANARY])
    network[names[0]].echo()
    network.settle()
    return network, heard


def kinds_of(member: Member, of: Member) -> set[str]:
    """The kinds of records that one holds of another."""
    held = member.node.replica.owners[of.id]
    return {key.partition("/")[0] for key in held.records}


def test_a_relay_gets_heads_addresses_and_links_and_no_record_of_a_ci() -> None:
    network, heard = with_relay("a")
    network.join("a", "r")
    a, r = network["a"], network["r"]
    assert kinds_of(r, a) == {"stack", "link"}
    assert r.node.replica.owners[a.id].outlined
    assert not heard.has(CANARY)
    assert Delta not in heard.kinds("a") and RelayOutlines in heard.kinds("a")
    assert a.node.replica.owners[r.id].whole
    for member in (a, r):
        assert member.node.antientropy.converged() == (True, [])
        assert not member.notices("peer_struck") and not member.notices("not_converged")


def test_what_changes_reaches_a_relay_as_an_outline_too_and_leases_go_on() -> None:
    network, heard = with_relay("a")
    network.join("a", "r")
    a, r = network["a"], network["r"]
    version = r.node.replica.owners[a.id].version
    a.register(f"{CANARY}-2")
    network.run(2000.0)
    held = r.node.replica.owners[a.id]
    assert held.version > version and held.outlined and r.node.replica.live(a.id)
    assert not heard.has(CANARY) and a.node.replica.live(r.id)


def test_a_relay_carries_between_two_that_it_knows_nothing_of() -> None:
    network, heard = with_relay("a", "b")
    a, b, r = (network[name] for name in "abr")
    govern(a, "terms", b, mode="full")
    network.join("a", "r", "b")
    network.settle()
    assert b.node.replica.owners[a.id].outlined and a.node.replica.owners[b.id].outlined
    network.run(700.0)
    # What is for partners goes sealed from end to end, through the relay.
    a.register(f"{CANARY}-partners", share="partners")
    network.settle()
    ticket = b.send(f"{CANARY}-partners@a")
    network.settle()
    assert b.result(ticket)["path"] == ["b", "r", "a"]
    assert not heard.has(CANARY)
    assert kinds_of(r, a) == kinds_of(r, b) == {"stack", "link"}
    for member in (a, b, r):
        assert not member.notices("peer_struck")
        assert member.node.antientropy.converged() == (True, [])


def test_members_that_are_linked_hold_all_of_one_another_beside_a_relay() -> None:
    network, heard = with_relay("a", "b")
    network.join("a", "b")
    network.join("a", "r")
    network.join("r", "b")
    network.run(60.0)
    a, b = network["a"], network["b"]
    assert "ci" in kinds_of(b, a) and b.node.replica.owners[a.id].whole
    assert a.node.replica.fingerprint() == b.node.replica.fingerprint()
    assert not heard.has(CANARY)
    a.register("later")
    network.settle()
    assert "ci/later" in b.node.replica.owners[a.id].records


def test_who_is_a_relay_no_longer_is_told_everything_on_a_new_link() -> None:
    network, _heard = with_relay("a")
    network.join("a", "r")
    a, r = network["a"], network["r"]
    govern(a, "terms", r, role="member")
    assert not a.node.neighbours.links and not r.node.neighbours.links
    network.join("a", "r")
    network.run(10.0)
    assert "ci" in kinds_of(r, a) and r.node.replica.owners[a.id].whole
    govern(a, "terms", r, mode="full")
    assert a.node.neighbours.links


def test_news_of_keys_reach_a_relay() -> None:
    from tests.unit.core.test_rekeying import rekey

    network, _heard = with_relay("a")
    network.join("a", "r")
    rekey(network["a"])
    network.settle()
    assert network["r"].node.replica.key_epoch_of(network["a"].id) == 1


def test_an_outline_that_is_older_or_less_than_what_is_held_changes_nothing() -> None:
    network, _heard = with_relay("a", "b")
    network.join("a", "b")
    a, b = network["a"], network["b"]
    whole = b.node.replica.owners[a.id]
    from tektonmesh.core.outlines import topology_of

    link = next(iter(b.node.neighbours.links))
    message = RelayOutlines((topology_of(a.node.replica.owners[a.id]),), False)
    network.handle(b, ev.Received(link, (message,)))
    assert b.node.replica.owners[a.id] is whole and whole.whole
    assert b.node.antientropy.converged() == (True, [])


@pytest.mark.parametrize("role", ["observer", "relay"])
def test_whoever_was_given_a_role_is_vouched_for_in_it(role: str) -> None:
    from tektonmesh.core import keydoc as kd
    from tektonmesh.core.messages import Vouch

    network = Network("a", "r", mesh_keys=())
    a, r = network["a"], network["r"]
    a.do(lambda t: ev.AdmitPeer(t, r.id))
    r.do(lambda t: ev.AdmitPeer(t, a.id))
    govern(a, "terms", r, role=role)
    heard = Heard(network, "r")
    network.join("a", "r")
    (vouch,) = [m for _from, m in heard.sent if isinstance(m, Vouch)]
    assert kd.read_voucher(a.node.env.codec, vouch.voucher).voucher.role == role
