"""Two real machines over a fake wire: who gets a link, and what the others learn."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tektonmesh.core.invites import proof_of
from tektonmesh.core.trust import Verdict
from tektonmesh.core.types import SignedKeyDoc, StackId
from tektonmesh.wire import limits
from tektonmesh.wire.codec import pack, unpack
from tektonmesh.wire.frames import cut, take_first
from tektonmesh.wire.handshake import (
    HELLO_CONTEXT,
    Channel,
    Handshake,
    Kind,
    Local,
    Refused,
    Role,
    State,
)
from tektonmesh.wire.keys import Keys
from tests.support import MESH_KEY, make_keys, seed_bytes, sign_keydoc

C_LEAF, S_LEAF, M_LEAF = b"client leaf", b"server leaf", b"leaf in the middle"
C_ADDRESSES, S_ADDRESSES = ("10.0.0.1:7700",), ("[fd00::2]:7700", "south.example:7701")
OLD_KEY = b"o" * 32


class Judge:
    """Admits all or nobody, and remembers whom it was asked about."""

    def __init__(self, *, admit: bool = True, reason: str = "pending") -> None:
        self.admit = admit
        self.reason = reason
        self.asked: list[tuple[StackId, str, SignedKeyDoc, bool]] = []

    def __call__(self, stack_id: StackId, name: str, keydoc: SignedKeyDoc, proved: bool) -> Verdict:
        self.asked.append((stack_id, name, keydoc, proved))
        return Verdict(self.admit, "secret" if self.admit else self.reason)


class End:
    """One stack and how it shakes hands, with what a test wants different."""

    def __init__(
        self,
        number: int,
        role: Role,
        *,
        peer: int,
        leaves: tuple[bytes, bytes] = (C_LEAF, S_LEAF),
        mesh_keys: tuple[bytes, ...] = (MESH_KEY,),
        judge: Judge | None = None,
        expect: StackId | None = None,
        seen: int = 0,
        invite: tuple[bytes, bytes] | None = None,
        judge_invite: Any = None,
        **identity: Any,
    ) -> None:
        self.keys, own = make_keys(number)
        self.identity = replace(own, **identity)
        self.judge = judge or Judge()
        addresses = C_ADDRESSES if role is Role.CLIENT else S_ADDRESSES
        self.machine = Handshake(
            role,
            Local(self.identity, self.keys, mesh_keys, addresses, invite, judge_invite),
            Channel(*leaves, make_keys(peer)[0].op_public, 5),
            judge=self.judge,
            highest=lambda key: seen,
            expect=expect,
        )


def client(**changes: Any) -> End:
    return End(**({"number": 1, "role": Role.CLIENT, "peer": 2} | changes))


def server(**changes: Any) -> End:
    return End(**({"number": 2, "role": Role.SERVER, "peer": 1} | changes))


def shake(c: End, s: End) -> None:
    """Carry what each says to the other until both are done. Raises Refused."""
    assert s.machine.start() == b""
    welcome = s.machine.receive(c.machine.start())
    accept = c.machine.receive(welcome)
    assert s.machine.receive(accept) == b""


def refusal_of(act: Callable[[], object]) -> Refused:
    with pytest.raises(Refused) as caught:
        act()
    return caught.value


def told(refused: Refused) -> list[Any]:
    """What the refused peer is sent."""
    taken = take_first(refused.reply)
    assert taken is not None and taken[0] == Kind.REFUSED and taken[2] == b""
    return list(unpack(taken[1]))


def test_two_stacks_of_one_mesh_get_a_link_and_know_each_other() -> None:
    c, s = client(), server()
    shake(c, s)
    assert c.machine.state is s.machine.state is State.DONE
    seen_by_c, seen_by_s = c.machine.peer, s.machine.peer
    assert seen_by_c is not None and seen_by_s is not None
    assert (seen_by_c.stack_id, seen_by_c.name) == (s.identity.stack_id, "stack2")
    assert (seen_by_s.stack_id, seen_by_s.name) == (c.identity.stack_id, "stack1")
    assert (seen_by_c.addresses, seen_by_s.addresses) == (S_ADDRESSES, C_ADDRESSES)
    assert seen_by_s.keydoc == c.identity.keydoc
    assert seen_by_s.instance == c.identity.instance


def test_bytes_may_come_one_at_a_time_and_the_rest_is_kept() -> None:
    c, s = client(), server()
    s.machine.start()
    hello = c.machine.start()
    replies = [s.machine.receive(hello[i : i + 1]) for i in range(len(hello))]
    assert replies[:-1] == [b""] * (len(hello) - 1)
    accept = c.machine.receive(replies[-1])
    s.machine.receive(accept + b"first frames")
    assert s.machine.rest == b"first frames"


def test_the_client_shows_no_address_before_it_has_judged_the_server() -> None:
    hello = client().machine.start()
    assert C_ADDRESSES[0].encode() not in hello


def test_no_secret_is_ever_sent() -> None:
    c, s = client(), server()
    s.machine.start()
    hello = c.machine.start()
    assert MESH_KEY not in hello
    assert MESH_KEY not in s.machine.receive(hello)


# --- the mesh secret -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs", "proved"),
    [
        ((MESH_KEY,), (MESH_KEY,), True),
        ((MESH_KEY,), (b"x" * 32,), False),
        ((), (MESH_KEY,), False),
        ((MESH_KEY,), (), False),
        ((MESH_KEY, OLD_KEY), (OLD_KEY,), True),
        ((OLD_KEY,), (MESH_KEY, OLD_KEY), True),
    ],
    ids=["same", "different", "we have none", "they have none", "we rotate", "they rotate"],
)
def test_the_judge_is_told_whether_the_secret_was_proved(
    ours: tuple[bytes, ...], theirs: tuple[bytes, ...], proved: bool
) -> None:
    c, s = client(mesh_keys=ours), server(mesh_keys=theirs)
    shake(c, s)
    assert c.judge.asked == [(s.identity.stack_id, "stack2", s.identity.keydoc, proved)]
    assert s.judge.asked == [(c.identity.stack_id, "stack1", c.identity.keydoc, proved)]


def test_a_proof_of_the_secret_cannot_be_reflected() -> None:
    """Without the secret, echoing the proof of the other end's role proves nothing."""
    c, s = client(), server(mesh_keys=())
    s.machine.start()
    claim = unpack(unpack(take_first(c.machine.start())[1])[0])
    welcome = unpack(unpack(take_first(s.machine.receive(client().machine.start()))[1])[0])
    welcome[6] = claim[6]
    c.machine.receive(claimed(s, welcome, Kind.WELCOME, Role.SERVER))
    assert [asked[3] for asked in c.judge.asked] == [False]


# --- refusals ------------------------------------------------------------------------------------


def test_an_unadmitted_client_is_told_so_and_learns_nothing_else() -> None:
    c, s = client(), server(judge=Judge(admit=False))
    s.machine.start()
    refused = refusal_of(lambda: s.machine.receive(c.machine.start()))
    assert (refused.code, refused.detail, refused.by_peer) == ("not_admitted", "pending", False)
    assert refused.peer is not None and refused.peer.stack_id == c.identity.stack_id
    code, detail, highest = told(refused)
    assert (code, highest) == ("not_admitted", 0)
    assert "approve" in detail
    for secret in (s.identity.stack_id, b"stack2", s.identity.instance, b"south.example"):
        assert secret not in refused.reply


def test_why_somebody_is_not_admitted_stays_here_unless_it_can_change() -> None:
    s = server(judge=Judge(admit=False, reason="evicted"))
    s.machine.start()
    refused = refusal_of(lambda: s.machine.receive(client().machine.start()))
    assert refused.detail == "evicted"
    assert "evicted" not in told(refused)[1]


def test_a_peer_with_keys_that_were_replaced_is_told_so() -> None:
    s = server(judge=Judge(admit=False, reason="old_keys"))
    c = client()
    refused = refusal_of(lambda: shake(c, s))
    assert refused.code == told(refused)[0] == "old_keys" and "newer keys" in refused.told
    assert refusal_of(lambda: c.machine.receive(refused.reply)).code == "old_keys"


def test_a_peer_that_is_held_off_is_told_so() -> None:
    s = server(judge=Judge(admit=False, reason="held_off"))
    s.machine.start()
    refused = refusal_of(lambda: s.machine.receive(client().machine.start()))
    assert refused.code == told(refused)[0] == "held_off"
    c = client()
    c.machine.start()
    assert refusal_of(lambda: c.machine.receive(refused.reply)).code == "held_off"


def test_a_client_that_does_not_admit_the_server_says_so_and_shows_no_address() -> None:
    c, s = client(judge=Judge(admit=False)), server()
    refused = refusal_of(lambda: shake(c, s))
    assert refused.peer is not None and refused.peer.stack_id == s.identity.stack_id
    assert C_ADDRESSES[0].encode() not in refused.reply
    at_server = refusal_of(lambda: s.machine.receive(refused.reply))
    assert (at_server.code, at_server.by_peer, at_server.reply) == ("not_admitted", True, b"")
    assert at_server.peer is not None and at_server.peer.stack_id == c.identity.stack_id
    assert s.machine.state is State.REFUSED


def test_a_refusal_reads_the_same_at_the_other_end_but_for_control_characters() -> None:
    c = client()
    c.machine.start()
    (frame,) = cut(Kind.REFUSED, 0, pack(["mesh", "\x1b[31mred\n" + "x" * 300, 0]))
    refused = refusal_of(lambda: c.machine.receive(frame))
    assert (refused.code, refused.by_peer, refused.peer) == ("mesh", True, None)
    assert refused.detail.startswith("?[31mred?")
    assert len(refused.detail) == limits.REFUSED_DETAIL_MAX


def test_an_unknown_refusal_is_a_refusal() -> None:
    c = client()
    c.machine.start()
    (frame,) = cut(Kind.REFUSED, 0, pack(["later", "", 0, "field"]))
    assert refusal_of(lambda: c.machine.receive(frame)).code == "refused"


def test_a_connection_to_ourselves_is_noticed_before_a_word_is_said() -> None:
    for end in (client(peer=1), server(peer=2)):
        refused = refusal_of(end.machine.start)
        assert (refused.code, refused.peer) == ("self", None)


def test_our_own_root_key_with_another_operational_key_is_still_ourselves() -> None:
    """A copied home whose keys were rotated in one of the two places."""
    c, s = client(), server()
    seeds = [seed_bytes("stack", 1, kind) for kind in ("root", "other op", "box", "prekey")]
    twin = Keys.from_seeds(*seeds, randbytes=random.Random(1).randbytes)
    s.keys, s.identity = twin, replace(c.identity, keydoc=sign_keydoc(twin), name="twin")
    local = Local(s.identity, twin, (), ())
    leaves = Channel(C_LEAF, S_LEAF, c.keys.op_public, 5)
    s.machine = Handshake(Role.SERVER, local, leaves, judge=s.judge, highest=lambda key: 0)
    refused = refusal_of(lambda: shake(c, s))
    assert (refused.code, s.judge.asked) == ("self", [])


def test_another_identity_at_an_address_is_refused() -> None:
    c, s = client(expect=make_keys(3)[1].stack_id), server()
    refused = refusal_of(lambda: shake(c, s))
    assert refused.code == "wrong_identity"
    assert refused.peer is not None and refused.peer.stack_id == s.identity.stack_id
    assert c.judge.asked == []


def test_the_expected_identity_is_accepted() -> None:
    shake(client(expect=make_keys(2)[1].stack_id), server())


def test_a_stack_of_another_mesh_is_refused_unjudged() -> None:
    c, s = client(mesh_id=b"12345678"), server()
    refused = refusal_of(lambda: shake(c, s))
    assert refused.code == "mesh"
    assert s.judge.asked == []


def test_a_leaf_of_an_earlier_start_is_refused_with_the_highest_one_seen() -> None:
    c, s = client(), server(seen=6)
    refused = refusal_of(lambda: shake(c, s))
    assert (refused.code, refused.highest) == ("stale_leaf", 6)
    assert refusal_of(lambda: c.machine.receive(refused.reply)).highest == 6


def test_the_newest_leaf_may_come_again() -> None:
    shake(client(), server(seen=5))


# --- attacks -------------------------------------------------------------------------------------


def claimed(end: End, claim: list[Any], kind: Kind, role: Role) -> bytes:
    """A claim of any content, rightly signed by `end`."""
    packed = pack(claim)
    sig = end.keys.sign(HELLO_CONTEXT, end.machine._signed(role, packed))
    return cut(kind, 0, pack([packed, sig]))[0]


def test_a_relaying_man_in_the_middle_with_an_admitted_identity_is_refused() -> None:
    """He ends TLS on both sides with his own leaf and passes the HELLO on."""
    c = client(peer=3, leaves=(C_LEAF, M_LEAF))
    s = server(peer=3, leaves=(M_LEAF, S_LEAF))
    refused = refusal_of(lambda: shake(c, s))
    assert refused.code == "protocol" and "another key" in refused.detail
    assert refused.peer is None and s.judge.asked == []


def test_a_man_in_the_middle_with_a_copied_identity_is_refused() -> None:
    """Even if his leaf were taken for the client's, the HELLO is bound to the leaf keys."""
    c = client(leaves=(C_LEAF, M_LEAF))
    s = server(leaves=(M_LEAF, S_LEAF))
    refused = refusal_of(lambda: shake(c, s))
    assert refused.code == "protocol" and "this very connection" in refused.detail
    assert refused.peer is None and s.judge.asked == []


def test_a_hello_cannot_be_reflected_as_a_welcome() -> None:
    c = client()
    hello = c.machine.start()
    kind, body, _ = take_first(hello)
    assert kind == Kind.HELLO
    refused = refusal_of(lambda: c.machine.receive(cut(Kind.WELCOME, 0, body)[0]))
    assert refused.code == "protocol"


def test_another_stacks_key_document_is_refused() -> None:
    c, s = client(keydoc=make_keys(3)[1].keydoc), server()
    assert refusal_of(lambda: shake(c, s)).code == "protocol"
    assert s.judge.asked == []


def test_a_key_document_that_its_root_key_did_not_sign_is_refused() -> None:
    c = client()
    forged = replace(c.identity.keydoc, sig=bytes(64))
    refused = refusal_of(lambda: shake(client(keydoc=forged), server()))
    assert refused.code == "protocol" and refused.peer is None


@pytest.mark.parametrize("kind", [Kind.WELCOME, Kind.ACCEPT, 16, 48])
def test_anything_but_a_hello_first_is_refused(kind: int) -> None:
    s = server()
    s.machine.start()
    refused = refusal_of(lambda: s.machine.receive(cut(kind, 0, pack([1, 2]))[0]))
    assert refused.code == "protocol" and "HELLO was due" in refused.detail


def test_a_payload_before_the_welcome_is_refused() -> None:
    c, s = client(), server()
    s.machine.start()
    early = cut(48, 0, b"confidential")[0]
    refused = refusal_of(lambda: s.machine.receive(c.machine.start() + early))
    assert refused.code == "protocol" and "before the handshake was over" in refused.detail


def test_a_server_that_sends_more_than_a_welcome_is_refused() -> None:
    c, s = client(), server()
    s.machine.start()
    welcome = s.machine.receive(c.machine.start())
    assert refusal_of(lambda: c.machine.receive(welcome + b"x")).code == "protocol"


@pytest.mark.parametrize(
    "junk",
    [b"GET / HTTP/1.1\r\n\r\n", bytes(16), b"\xff" * 16, cut(Kind.HELLO, 0, b"\xc1")[0]],
    ids=["http", "zeros", "ones", "no msgpack"],
)
def test_garbage_is_refused(junk: bytes) -> None:
    s = server()
    s.machine.start()
    assert refusal_of(lambda: s.machine.receive(junk)).code == "protocol"


CHANGES: dict[str, Callable[[list[Any]], None]] = {
    "no versions": lambda claim: claim.__setitem__(0, [1]),
    "versions as text": lambda claim: claim.__setitem__(0, ["1", "1"]),
    "key document cut": lambda claim: claim.__setitem__(2, claim[2][:2]),
    "key document as text": lambda claim: claim.__setitem__(2, ["a", "b", "c"]),
    "upper-case name": lambda claim: claim.__setitem__(3, "North"),
    "long name": lambda claim: claim.__setitem__(3, "n" * 64),
    "name with control characters": lambda claim: claim.__setitem__(3, "n\x1b[2J"),
    "name that ends a line": lambda claim: claim.__setitem__(3, "north\n"),
    "name as bytes": lambda claim: claim.__setitem__(3, b"north"),
    "no instance": lambda claim: claim.__setitem__(4, b""),
    "long instance": lambda claim: claim.__setitem__(4, bytes(17)),
    "instance as text": lambda claim: claim.__setitem__(4, "instance"),
    "too many addresses": lambda claim: claim.__setitem__(5, ["h:1"] * 9),
    "address without port": lambda claim: claim.__setitem__(5, ["host"]),
    "address with spaces": lambda claim: claim.__setitem__(5, ["a b:1"]),
    "address as bytes": lambda claim: claim.__setitem__(5, [b"h:1"]),
    "addresses as text": lambda claim: claim.__setitem__(5, "h:1"),
    "too many proofs": lambda claim: claim.__setitem__(6, [b"p"] * 3),
    "proofs as text": lambda claim: claim.__setitem__(6, ["p"]),
    "proofs as number": lambda claim: claim.__setitem__(6, 5),
    "fields missing": lambda claim: claim.pop(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_claim_of_a_wrong_form_is_refused_though_it_is_signed(
    change: Callable[[list[Any]], None],
) -> None:
    c, s = client(), server()
    s.machine.start()
    claim = unpack(unpack(take_first(c.machine.start())[1])[0])
    change(claim)
    refused = refusal_of(lambda: s.machine.receive(claimed(c, claim, Kind.HELLO, Role.CLIENT)))
    assert refused.code == "protocol"
    assert s.judge.asked == []


@pytest.mark.parametrize("versions", [[2, 3], [0, 0]])
def test_without_a_common_version_there_is_no_link(versions: list[int]) -> None:
    c, s = client(), server()
    s.machine.start()
    claim = unpack(unpack(take_first(c.machine.start())[1])[0])
    claim[0] = versions
    refused = refusal_of(lambda: s.machine.receive(claimed(c, claim, Kind.HELLO, Role.CLIENT)))
    assert refused.code == "version"


def test_fields_behind_the_known_ones_are_ignored() -> None:
    c, s = client(), server()
    s.machine.start()
    claim = unpack(unpack(take_first(c.machine.start())[1])[0])
    s.machine.receive(claimed(c, [*claim, "later"], Kind.HELLO, Role.CLIENT))
    assert s.machine.state is State.ACCEPT_DUE


@pytest.mark.parametrize(
    "accept", [pack([]), pack(["h:1"]), pack([["no port"]])], ids=["none", "text", "form"]
)
def test_a_malformed_accept_is_refused(accept: bytes) -> None:
    c, s = client(), server()
    s.machine.start()
    s.machine.receive(c.machine.start())
    assert refusal_of(lambda: s.machine.receive(cut(Kind.ACCEPT, 0, accept)[0])).code == "protocol"


def test_a_malformed_refusal_is_the_peers_fault() -> None:
    c = client()
    c.machine.start()
    (frame,) = cut(Kind.REFUSED, 0, pack([1, 2, 3]))
    refused = refusal_of(lambda: c.machine.receive(frame))
    assert (refused.code, refused.by_peer) == ("protocol", False)


def test_a_hello_fits_its_limit_with_the_largest_proof_and_eight_addresses() -> None:
    c, s = client(), server()
    keydoc = replace(c.identity.keydoc, proof=bytes(2048))
    big = client(keydoc=keydoc, name="n" * 63)
    assert len(big.machine.start()) < limits.HELLO_SIZE_MAX
    assert s.machine.start() == b""


# --- invites -------------------------------------------------------------------------------------


class Invites:
    """Judges by one secret, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def __call__(self, invite: bytes, context: bytes, mac: bytes) -> Verdict:
        self.asked.append(invite)
        fits = mac == proof_of(b"s" * 16, context)
        return Verdict(fits, "invited" if fits else "bad_invite")


def test_an_invite_admits_whom_nothing_else_does_and_its_secret_is_never_sent() -> None:
    invites = Invites()
    c = client(invite=(b"12345678", b"s" * 16))
    s = server(judge=Judge(admit=False), judge_invite=invites)
    assert b"s" * 16 not in c.machine.start()
    c = client(invite=(b"12345678", b"s" * 16))
    shake(c, s)
    assert s.machine.peer is not None and s.machine.peer.invite == b"12345678"
    assert invites.asked == [b"12345678"]


def test_a_wrong_secret_is_refused_and_told_with_the_invite_it_was_for() -> None:
    c = client(invite=(b"12345678", b"t" * 16))
    s = server(judge=Judge(admit=False), judge_invite=Invites())
    refused = refusal_of(lambda: shake(c, s))
    assert (refused.code, refused.detail) == ("not_admitted", "bad_invite")
    assert refused.peer is not None and refused.peer.invite == b"12345678"


@pytest.mark.parametrize("reason", ["evicted", "held_off", "bad_keydoc"])
def test_no_invite_is_looked_at_for_those_who_are_refused_for_another_reason(reason: str) -> None:
    invites = Invites()
    c = client(invite=(b"12345678", b"s" * 16))
    s = server(judge=Judge(admit=False, reason=reason), judge_invite=invites)
    refusal_of(lambda: shake(c, s))
    assert invites.asked == []


@pytest.mark.hostile("invite-replayed")
def test_an_invite_replayed_on_another_connection_proves_nothing() -> None:
    """Between the two ends sits somebody with other leaf keys, who passes the claim on."""
    invites = Invites()
    c = client(invite=(b"12345678", b"s" * 16))
    s = server(judge=Judge(admit=False), judge_invite=invites, leaves=(M_LEAF, S_LEAF))
    s.machine.start()
    refusal_of(lambda: s.machine.receive(c.machine.start()))
    assert invites.asked == []


@pytest.mark.parametrize("shown", [(b"1234567", b"s" * 16), (b"123456789", b"s" * 16)])
def test_an_invite_of_another_size_is_none(shown: tuple[bytes, bytes]) -> None:
    invites = Invites()
    s = server(judge=Judge(admit=False), judge_invite=invites)
    refusal_of(lambda: shake(client(invite=shown), s))
    assert invites.asked == []
