"""Invites: one secret for one admission, for a while, and burned by wrong guesses."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core.invites import (
    ADDRESSES_MAX,
    BAD_INVITE,
    EXPIRY_MAX_S,
    INVITES_MAX,
    TOKEN_PREFIX,
    WRONG_MAX,
    Token,
    proof_of,
    read_token,
    write_token,
)
from tektonmesh.core.trust import Verdict
from tektonmesh.errors import LocalError
from tektonmesh.wire.codec import Codec, pack
from tests.network import Member, Network
from tests.support import make_keys

CODEC = Codec()
B_KEYS, B = make_keys(2)
C = make_keys(3)[1]
CHANNEL = b"both leaf keys"


def govern(member: Member, act: str, **params: Any) -> dict[str, Any]:
    answer = member.answer(member.do(lambda ticket: ev.Govern(ticket, act, params)))
    return answer.result if isinstance(answer, fx.Answer) else answer.error  # type: ignore


def issuer(**settings: Any) -> Member:
    return Network("a", mesh_keys=(), **settings)["a"]


def invited(member: Member, **params: Any) -> Token:
    return read_token(CODEC, govern(member, "invite", **params)["token"])


def judged(member: Member, token: Token, *, secret: bytes | None = None) -> Verdict:
    mac = proof_of(token.secret if secret is None else secret, CHANNEL)
    return member.node.invites.judge(token.invite, CHANNEL, mac)


def comes(member: Member, token: Token, who: Any = B, link: int = 1) -> None:
    up = ev.LinkUp(
        link, who.stack_id, who.name, who.keydoc, who.instance, (), "10.0.0.1:7700", False
    )
    member.network.handle(member, replace(up, invite=token.invite))


def fails(
    member: Member, token: Token, *, reason: str = BAD_INVITE, outbound: bool = False
) -> None:
    refused = ev.PeerRefused(B.stack_id, "b", "10.0.0.1:1", outbound, reason, token.invite)
    member.network.handle(member, refused)


def audited(member: Member) -> list[str]:
    return [entry.kind for entry in member.of(fx.Audit)]


def test_whoever_proves_the_secret_is_admitted_for_good_under_the_terms_of_the_invite() -> None:
    a = issuer()
    token = invited(a, mode="partial", shared_cis=["numa"], role="observer")
    assert judged(a, token) == Verdict(True, "invited")
    comes(a, token)
    assert a.node.judge(B.stack_id, "b", B.keydoc, False) == Verdict(True, "invited")
    assert a.node.rights.terms_of(B.stack_id).shared_cis == ("numa",)
    assert a.node.rights.role_of(B.stack_id) == "observer"
    assert "invite_used" in audited(a)


@pytest.mark.hostile("invite-reused")
def test_an_invite_is_good_as_often_as_it_says_and_no_more() -> None:
    a = issuer()
    token = invited(a, uses=2)
    comes(a, token, B, 1)
    assert judged(a, token).admitted
    comes(a, token, C, 2)
    assert judged(a, token) == Verdict(False, BAD_INVITE)


def test_two_handshakes_at_once_cannot_share_one_use() -> None:
    a = issuer()
    token = invited(a)
    assert judged(a, token).admitted
    comes(a, token, B, 1)
    comes(a, token, C, 2)
    assert [closed.link for closed in a.of(fx.CloseLink)] == [2]
    assert a.node.rights.role_of(C.stack_id) == ""


@pytest.mark.hostile("evicted-again")
def test_an_evicted_stack_gets_in_by_no_invite() -> None:
    a = issuer()
    token = invited(a)
    a.do(lambda ticket: ev.EvictPeer(ticket, B.stack_id))
    assert a.node.judge(B.stack_id, "b", B.keydoc, True) == Verdict(False, "evicted")
    comes(a, token)
    assert [closed.code for closed in a.of(fx.CloseLink)] == ["not_admitted"]


@pytest.mark.hostile("invite-guessed")
def test_a_wrong_proof_is_refused_and_the_fifth_burns_the_invite() -> None:
    a = issuer()
    token = invited(a)
    assert judged(a, token, secret=bytes(16)) == Verdict(False, BAD_INVITE)
    for _ in range(WRONG_MAX - 1):
        fails(a, token)
    assert judged(a, token).admitted
    fails(a, token, reason="pending")
    fails(a, token, outbound=True)
    assert judged(a, token).admitted
    fails(a, token)
    assert judged(a, token) == Verdict(False, BAD_INVITE)
    assert audited(a).count("invite_wrong") == WRONG_MAX - 1
    assert audited(a).count("invite_burned") == 1
    fails(a, token)
    assert audited(a).count("invite_burned") == 1


def test_a_proof_for_one_connection_is_none_for_another() -> None:
    a = issuer()
    token = invited(a)
    mac = proof_of(token.secret, b"other leaf keys")
    assert not a.node.invites.judge(token.invite, CHANNEL, mac).admitted


@pytest.mark.hostile("invite-expired")
def test_an_invite_ends_at_its_time() -> None:
    a = issuer()
    token = invited(a, for_s=60)
    assert govern(a, "invite")["for_s"] == 3600
    a.network.run(120.0)
    a.network.handle(a, ev.Tick())
    assert not judged(a, token).admitted
    assert len(a.node.invites.list()) == 1
    govern(a, "invite")
    assert ("invite", token.invite) not in a.saved


def test_a_withdrawn_invite_admits_nobody() -> None:
    a = issuer()
    token = invited(a)
    assert govern(a, "uninvite", id=token.invite.hex())["withdrawn"]
    assert not judged(a, token).admitted
    assert govern(a, "uninvite", id="00")["code"] == "not_found"


@pytest.mark.parametrize("params", [{"for_s": EXPIRY_MAX_S + 1}, {"uses": 33}, {"mode": "open"}])
def test_invites_beyond_the_limits_are_not_made(params: dict[str, Any]) -> None:
    a = issuer()
    assert govern(a, "invite", **params)["code"] == "bad_request"
    assert a.node.invites.list() == []


def test_open_invites_are_bounded() -> None:
    a = issuer()
    for _ in range(INVITES_MAX):
        invited(a)
    assert govern(a, "invite")["code"] == "busy"


def test_invites_outlive_a_restart_and_show_no_secret() -> None:
    a = issuer()
    token = invited(a, uses=3, role="relay")
    a.network.kill("a")
    again = a.network.add("a", a.saved)
    assert judged(again, token).admitted
    (shown,) = again.node.invites.list()
    assert (shown["uses"], shown["role"]) == (3, "relay")
    assert token.secret.hex() not in str(shown)


@pytest.mark.parametrize(
    "row", [b"\xc1", pack(5), pack([b"", b""]), pack([b"", 1, 0, 0, "", [], ""])]
)
def test_a_damaged_row_is_no_invite(row: bytes) -> None:
    a = Network(mesh_keys=()).add("a", {("invite", b"12345678"): row})
    assert a.node.invites.list() == []


# --- the invited ---------------------------------------------------------------------------------


def test_an_invite_of_a_stack_that_is_linked_already_has_nothing_left_to_prove() -> None:
    network = Network("a", "b")
    network.join("a", "b")
    token = govern(network["a"], "invite")["token"]
    shown = govern(network["b"], "join", token=token)
    assert shown["state"] == "admitted"
    invites = network["b"].node.invites
    assert invites.outcome(network["a"].id) == "joined" and invites.shows(network["a"].id) is None


def test_joining_admits_the_issuer_and_shows_the_secret_to_it_alone() -> None:
    a, b = issuer(), Network("b", mesh_keys=())["b"]
    made = govern(a, "invite", addresses=["10.0.0.1:7700"])
    joined = govern(b, "join", token=made["token"])
    assert joined["addresses"] == ["10.0.0.1:7700"]
    token = read_token(CODEC, made["token"])
    assert b.node.invites.shows(a.id) == (token.invite, token.secret)
    assert b.node.invites.shows(C.stack_id) is None
    assert b.node.invites.outcome(a.id) == ""
    again = Network(mesh_keys=()).add("b", b.saved)
    assert again.node.invites.shows(a.id) == (token.invite, token.secret)
    fails(b, token, outbound=True)
    assert b.node.invites.outcome(a.id) == ""
    refused = ev.PeerRefused(a.id, "a", "10.0.0.1:1", True, "no")
    b.network.handle(b, refused)
    assert b.node.invites.outcome(a.id) == "refused"
    comes(b, replace(token, invite=b""), make_keys(1)[1])
    assert b.node.invites.outcome(a.id) == "joined"
    assert b.node.invites.shows(a.id) is None
    assert [key for key in b.saved if key[0] == "invite"] == []


def test_a_token_for_another_mesh_or_past_its_time_changes_nothing() -> None:
    b = Network("b", mesh_keys=())["b"]
    other = Token("other", C.stack_id, bytes(8), bytes(16), 2**47, ())
    assert govern(b, "join", token=write_token(CODEC, other))["code"] == "bad_request"
    late = replace(other, mesh="test", not_after_ms=1)
    assert "expired" in govern(b, "join", token=write_token(CODEC, late))["detail"]
    assert b.node.trust.peers() == []


def test_a_token_is_read_as_it_was_written_whatever_breaks_its_lines() -> None:
    token = Token("test", C.stack_id, bytes(8), bytes(16), 5, ("10.0.0.1:7700",))
    text = write_token(CODEC, token)
    assert read_token(CODEC, f"  {text[:30]}\n{text[30:]} ") == token
    many = replace(token, addresses=("x",) * 40)
    assert len(read_token(CODEC, write_token(CODEC, many)).addresses) == ADDRESSES_MAX


def packed(*fields: Any) -> str:
    return TOKEN_PREFIX + base64.urlsafe_b64encode(pack([*fields])).decode().rstrip("=")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "tmi_",
        "tmi_!!!!",
        "tmi_\u00e9",
        "tmi_" + "A" * 4000,
        packed(1),
        packed(1, "test", bytes(31), bytes(8), bytes(16), 5, []),
        packed(1, "test", bytes(32), bytes(8), bytes(16), 5, [5]),
        packed(2, "test", bytes(32), bytes(8), bytes(16), 5, []),
    ],
)
def test_what_is_no_token_is_said_to_be_none(text: str) -> None:
    with pytest.raises(LocalError):
        read_token(CODEC, text)
