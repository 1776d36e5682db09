"""New keys of a running node: what is on its way still arrives, and others follow."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core.ci import CALL_TYPE
from tektonmesh.core.envelope import Kind
from tektonmesh.core.head import EPOCH_MAX
from tektonmesh.core.keydoc import KEYDOC_CONTEXT, KeyDoc, hash_doc
from tektonmesh.core.messages import Delta, Message
from tektonmesh.core.types import SignedKeyDoc, Version
from tektonmesh.errors import RemoteError
from tektonmesh.wire.codec import Codec
from tektonmesh.wire.keys import Keys
from tests.network import Member, Network
from tests.support import number_of, seed_bytes

CODEC = Codec()


@dataclass(frozen=True)
class Change:
    """The keys after the present ones of a member, as the shell hands them in."""

    keydoc: SignedKeyDoc
    keys: Keys


def next_keys(member: Member, *, grace: bool = True, settled: bool = False) -> Change:
    """What `keys rotate` makes; with `grace` False what `keys revoke` does."""
    env = member.node.env
    before = KeyDoc.decode(CODEC, env.identity.keydoc.doc)
    epoch, n = before.key_epoch + 1, number_of(member.name)
    root = seed_bytes("stack", n, "root")
    op, box, new = (seed_bytes("stack", n, kind, epoch) for kind in ("op", "box", "prekey"))
    prekey = seed_bytes("stack", n, "prekey") if grace else new
    keys = Keys(root, op, box, [prekey], randbytes=random.Random(n).randbytes)
    keys.also_known_by([before.box_pk])
    if grace and not settled:
        assert isinstance(env.crypto, Keys)
        keys.follow(env.crypto)
    doc = KeyDoc(
        keys.root_public,
        keys.stack_id,
        epoch,
        keys.op_public,
        keys.box_public,
        hash_doc(env.identity.keydoc.doc),
        grace=grace,
    ).encode(CODEC)
    proof = env.identity.keydoc.proof
    return Change(SignedKeyDoc(doc, keys.sign_root(KEYDOC_CONTEXT, doc), proof), keys)


def rekey(member: Member, *, grace: bool = True, settled: bool = False) -> None:
    change = next_keys(member, grace=grace, settled=settled)
    ticket = member.do(lambda t: ev.TakeKeys(t, change.keydoc, change.keys))
    assert member.result(ticket)["op"] == change.keys.op_public.hex()


def epochs(network: Network, *names: str, of: str) -> list[int]:
    return [network[name].node.replica.key_epoch_of(network[of].id) for name in names]


def row(**settings: object) -> Network:
    """Three stacks in a row, the last with an echo."""
    network = Network("a", "b", "c", **settings)
    network.join("a", "b", "c")
    network["c"].register("numa")
    network["c"].echo()
    network.settle()
    return network


def without_deltas(_from: str, _to: str, message: Message) -> bool:
    return not isinstance(message, Delta)


def test_all_follow_new_keys_at_once_and_links_stay() -> None:
    network = row()
    before = {name: list(network[name].node.neighbours.links) for name in "abc"}
    rekey(network["b"])
    network.run(0.1)
    assert epochs(network, "a", "b", "c", of="b") == [1, 1, 1]
    assert {name: list(network[name].node.neighbours.links) for name in "abc"} == before
    ticket = network["a"].send("numa@c")
    network.settle()
    assert network["a"].result(ticket)["body"] == b"hello"


@pytest.mark.parametrize("settled", [False, True], ids=["within the grace", "after a start"])
@pytest.mark.parametrize("who", ["a", "c"], ids=["the asker's", "the answerer's"])
def test_what_was_sealed_with_the_keys_before_is_opened_after(who: str, settled: bool) -> None:
    """The message is under way while the keys of one of its ends change and all hear of it."""
    network = row()
    network.delay_s = 0.5
    ticket = network["a"].send("numa@c")
    network.run(0.2)
    network.delay_s = 0.001
    rekey(network[who], settled=settled)
    network.run(0.1)
    assert epochs(network, "a", "c", of=who) == [1, 1]
    network.run(1.5)
    assert network["a"].result(ticket)["body"] == b"hello"
    assert len(network["c"].deliveries()) == 1
    assert not [n for name in "abc" for n in network[name].notices("seal_refused")]


@pytest.mark.parametrize("content_type", ["text/plain", CALL_TYPE])
def test_what_comes_before_the_news_of_new_keys_is_opened_with_those_that_are_known(
    content_type: str,
) -> None:
    network = row()
    network["c"].register("tool", mcp={"http": {"url": "http://[::1]/"}}, persist=True)
    network["c"].on_deliver = lambda it: network["c"].reply(it, b"{}")
    network.settle()
    network.passes = without_deltas
    rekey(network["a"])
    ticket = network["a"].do(
        lambda t: ev.SendMessage(t, "tool@c", b"{}", content_type, "", 30.0, False, {})
    )
    network.run(1.0)
    assert epochs(network, "c", of="a") == [0]
    assert network["a"].result(ticket)["body"] == b"{}"


def test_a_message_to_a_stack_whose_new_keys_are_not_known_yet_is_opened_by_it() -> None:
    network = row()
    network.passes = without_deltas
    rekey(network["c"], settled=True)
    ticket = network["a"].send("numa@c")
    network.run(0.2)
    assert epochs(network, "a", of="c") == [0]
    assert len(network["c"].deliveries()) == 1
    network.passes = lambda _from, _to, _message: True
    network.run(25.0)
    assert network["a"].result(ticket)["body"] == b"hello"


@pytest.mark.hostile("stolen-keys")
def test_after_a_revocation_nothing_that_the_old_keys_seal_is_opened() -> None:
    network = row()
    a, c = network["a"], network["c"]
    thief = a.node.deliveries.sealer.seal
    body = {"to": "numa", "from": "", "ct": "text/plain", "body": b"forged", "left": 9000}
    envelope = thief(Kind.REQUEST, c.id, body, ttl_s=9.0)
    assert c.node.deliveries.sealer.open(envelope)["body"] == b"forged"
    rekey(a, grace=False)
    network.settle()
    assert epochs(network, "b", "c", of="a") == [1, 1]
    with pytest.raises(RemoteError, match="not sealed so"):
        c.node.deliveries.sealer.open(envelope)


@pytest.mark.hostile("stolen-keys")
def test_after_a_revocation_links_end_at_once_and_new_ones_are_made() -> None:
    network = row()
    rekey(network["b"], grace=False)
    network.run(0.1)
    assert epochs(network, "a", "c", of="b") == [1, 1]
    for name in "ac":
        assert [it.code for it in network[name].of(fx.CloseLink)] == ["old_keys"]
    network.join("a", "b", "c")
    ticket = network["a"].send("numa@c")
    network.settle()
    assert network["a"].result(ticket)["body"] == b"hello"


def test_keys_that_change_during_a_partition_are_heard_of_when_it_heals() -> None:
    network = row()
    network.cut("b", "c")
    rekey(network["c"], settled=True)
    network.run(2.0)
    assert epochs(network, "a", "b", of="c") == [0, 0]
    network.join("b", "c")
    ticket = network["a"].send("numa@c")
    network.settle()
    assert epochs(network, "a", "b", of="c") == [1, 1]
    assert network["a"].result(ticket)["body"] == b"hello"


def test_new_keys_come_before_a_first_publish_too() -> None:
    network = Network()
    member = network.add("a", seed_peers=("z:7700",))
    assert not member.node.owner.published
    rekey(member)
    network.run(10.0)
    assert member.node.replica.key_epoch_of(member.id) == 1


@pytest.mark.hostile("highest-version")
def test_new_keys_end_the_silence_of_a_stack_whose_epochs_are_used_up() -> None:
    network = row()
    c = network["c"]
    c.node.owner.outbid(Version(0, EPOCH_MAX, 1))
    assert c.node.owner.fenced
    rekey(c)
    network.settle()
    assert not c.node.owner.fenced
    assert epochs(network, "a", of="c") == [1]
    assert network["a"].node.replica.owners[c.id].head.epoch < EPOCH_MAX
