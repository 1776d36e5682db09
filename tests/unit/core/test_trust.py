from __future__ import annotations

from typing import Any

import pytest

from tektonmesh.core import keydoc as kd
from tektonmesh.core import trust as tr
from tektonmesh.core.effects import CloseLink, Notice, Save, Send
from tektonmesh.core.events import LinkUp, PeerRefused
from tektonmesh.core.ids import show_id
from tektonmesh.core.keydoc import Voucher
from tektonmesh.core.machine import Env
from tektonmesh.core.meshtime import MeshTime
from tektonmesh.core.messages import Vouch
from tektonmesh.core.trust import Trust, Verdict
from tektonmesh.core.types import Saved, SignedKeyDoc
from tektonmesh.errors import LocalError, NoveltyError, PolicyError, RemoteError
from tektonmesh.wire.codec import Codec, pack
from tektonmesh.wire.keys import Keys
from tests.support import (
    MESH_ID,
    MESH_KEY,
    WALL_S,
    Member,
    make_env,
    make_keys,
    only,
    seed_bytes,
    sign_keydoc,
)

CODEC = Codec()
B_KEYS, B = make_keys(2)
NOW_MS = int(WALL_S * 1000)


def make_trust(saved: Saved | None = None, **settings: Any) -> tuple[Env, Trust]:
    env = make_env("a", **settings)
    saved = saved or {}
    return env, Trust(env, saved, MeshTime(env, saved, WALL_S))


def disk(env: Env) -> Saved:
    """What the effects so far left on the disk."""
    rows: Saved = {}
    for save in only(env.take(), Save):
        for table, key, value in save.rows:
            rows.pop((table, key), None)
            if value is not None:
                rows[table, key] = value
    return rows


def up(n: int, link: int = 1, proof: bytes = b"") -> LinkUp:
    keys, identity = make_keys(n)
    keydoc = sign_keydoc(keys, proof=proof)
    name = identity.name
    return LinkUp(link, identity.stack_id, name, keydoc, b"instance", (), "10.0.0.1:7700", False)


def refused(stack_id: bytes, *, outbound: bool = False, reason: str = "pending") -> PeerRefused:
    return PeerRefused(stack_id, "west", "10.0.0.1:7700", outbound, reason)


def verdict(trust: Trust, *, secret: bool) -> Verdict:
    return trust.judge(B.stack_id, "b", B.keydoc, secret)


def states(trust: Trust) -> dict[str, str]:
    return {peer["id"]: peer["state"] for peer in trust.peers()}


# --- links ---------------------------------------------------------------------------------------


def test_who_proves_the_secret_is_admitted() -> None:
    _, trust = make_trust()
    assert verdict(trust, secret=True) == Verdict(True, "secret")
    assert verdict(trust, secret=False) == Verdict(False, "pending")


def test_an_allowed_id_is_admitted_without_the_secret() -> None:
    _, trust = make_trust(allowed_ids=(B.stack_id,))
    assert verdict(trust, secret=False) == Verdict(True, "allowed")


def test_our_own_id_is_refused() -> None:
    env, trust = make_trust()
    identity = env.identity
    assert trust.judge(env.me, "a", identity.keydoc, True) == Verdict(False, "self")


def test_a_key_document_of_another_stack_is_refused() -> None:
    _, trust = make_trust()
    other = make_keys(3)[1]
    assert trust.judge(B.stack_id, "b", other.keydoc, True) == Verdict(False, "bad_keydoc")
    broken = SignedKeyDoc(b"\xc1", bytes(64), b"")
    assert trust.judge(B.stack_id, "b", broken, True) == Verdict(False, "bad_keydoc")


def test_an_approved_id_is_admitted_also_after_a_restart() -> None:
    env, trust = make_trust()
    assert trust.admit(B.stack_id)["state"] == "admitted"
    assert verdict(trust, secret=False) == Verdict(True, "approved")
    trust.link_up(up(2))
    _, again = make_trust(disk(env))
    assert verdict(again, secret=False) == Verdict(True, "approved")


def test_an_eviction_beats_everything_and_is_permanent() -> None:
    env, trust = make_trust(allowed_ids=(B.stack_id,))
    trust.admit(B.stack_id)
    shown = trust.evict(B.stack_id)
    assert shown["state"] == "evicted" and shown["rotate_secret"]
    assert verdict(trust, secret=True) == Verdict(False, "evicted")
    assert trust.refuses(B.stack_id)
    with pytest.raises(PolicyError, match="permanent"):
        trust.admit(B.stack_id)
    with pytest.raises(PolicyError):
        trust.accept(B.keydoc)
    _, again = make_trust(disk(env))
    assert verdict(again, secret=True) == Verdict(False, "evicted")


def test_we_do_not_evict_ourselves() -> None:
    env, trust = make_trust()
    with pytest.raises(PolicyError):
        trust.evict(env.me)


def test_we_do_not_approve_ourselves() -> None:
    env, trust = make_trust()
    with pytest.raises(LocalError, match="itself"):
        trust.admit(env.me)
    assert trust.peers() == []


def test_a_linked_peer_is_seen_now_and_later_was_seen_when_its_link_ended() -> None:
    env, trust = make_trust()
    trust.link_up(up(2, link=7))
    seen = []
    for step in ("linked", "down", "gone"):
        env.now += 100.0
        if step == "down":
            trust.link_down(7)
        seen.append(trust.peers()[0]["last_seen"] - int(WALL_S))
    assert seen == [100, 200, 200]


def test_a_stack_evicted_while_it_shook_hands_is_closed() -> None:
    env, trust = make_trust()
    trust.evict(B.stack_id)
    trust.link_up(up(2, link=7))
    assert [close.link for close in only(env.take(), CloseLink)] == [7]
    assert states(trust) == {show_id(B.stack_id): "evicted"}


def test_after_an_eviction_the_secret_only_opens_the_door_to_the_pending() -> None:
    _, trust = make_trust()
    trust.link_up(up(3))
    trust.evict(seed_bytes("somebody"))
    assert verdict(trust, secret=True) == Verdict(False, "pending")
    keys, known = make_keys(3)
    assert trust.judge(known.stack_id, "c", sign_keydoc(keys), True) == Verdict(True, "secret")
    assert trust.judge(known.stack_id, "c", sign_keydoc(keys), False) == Verdict(False, "pending")


def test_with_admission_by_approval_the_secret_does_not_admit() -> None:
    _, trust = make_trust(extra={"admission": "approve"})
    assert verdict(trust, secret=True) == Verdict(False, "pending")


def test_a_refused_peer_is_listed_and_told_once() -> None:
    env, trust = make_trust()
    trust.on_refused(refused(B.stack_id))
    trust.on_refused(refused(B.stack_id))
    (notice,) = only(env.take(), Notice)
    assert notice.kind == "peer_pending" and notice.data["address"] == "10.0.0.1:7700"
    (peer,) = trust.peers()
    assert peer == {
        "id": show_id(B.stack_id),
        "name": "west",
        "state": "pending",
        "last_seen": int(WALL_S),
        "reason": "pending",
        "strikes": 0.0,
        "held_off_s": 0.0,
    }


def test_a_peer_that_refused_us_is_listed_so() -> None:
    _, trust = make_trust()
    trust.on_refused(refused(B.stack_id, outbound=True, reason="not admitted"))
    assert states(trust) == {show_id(B.stack_id): "refused"}
    trust.link_up(up(2))
    assert states(trust) == {show_id(B.stack_id): "admitted"}


def test_ourselves_are_never_listed() -> None:
    env, trust = make_trust()
    trust.on_refused(refused(env.me, reason="self"))
    assert trust.peers() == []


def test_a_refusal_does_not_change_what_people_decided() -> None:
    _, trust = make_trust()
    trust.evict(B.stack_id)
    trust.on_refused(refused(B.stack_id, reason="evicted"))
    assert states(trust) == {show_id(B.stack_id): "evicted"}


def test_the_pending_are_bounded_and_the_oldest_goes() -> None:
    _, trust = make_trust()
    ids = [seed_bytes(n) for n in range(tr.PENDING_MAX + 5)]
    for stack_id in ids:
        trust.on_refused(refused(stack_id))
    assert sorted(states(trust)) == sorted(map(show_id, ids[5:]))


def test_those_admitted_by_the_secret_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tr, "ADMITTED_MAX", 2)
    env, trust = make_trust()
    for n in (2, 3, 4):
        trust.link_up(up(n))
    assert len(trust.peers()) == 2
    assert ("peer", B.stack_id) not in disk(env)


@pytest.mark.parametrize(
    "row", [b"\xc1", pack({}), pack(["admitted"]), pack(["admitted", "b", "0", "approved", b""])]
)
def test_a_damaged_row_counts_as_none(row: bytes) -> None:
    _, trust = make_trust({("peer", B.stack_id): row, ("head", b""): b""})
    assert trust.peers() == []


# --- members -------------------------------------------------------------------------------------


def test_a_key_document_with_the_mac_of_a_mesh_key_is_accepted() -> None:
    for mesh_keys in ((MESH_KEY,), (bytes(32), MESH_KEY)):
        _, trust = make_trust(mesh_keys=mesh_keys)
        assert trust.accept(B.keydoc).op_pk == B_KEYS.op_public


@pytest.mark.parametrize("proof", [b"", pack({"mac": bytes(32)}), pack({"vouchers": [b"\xc1"]})])
def test_without_the_mac_it_is_not_a_member(proof: bytes) -> None:
    _, trust = make_trust()
    with pytest.raises(PolicyError):
        trust.accept(sign_keydoc(B_KEYS, proof=proof))


def test_a_member_whose_document_is_forged_breaks_the_protocol() -> None:
    _, trust = make_trust()
    forged = SignedKeyDoc(B.keydoc.doc, bytes(64), B.keydoc.proof)
    with pytest.raises(RemoteError, match="signed"):
        trust.accept(forged)


def test_an_allowed_or_approved_stack_needs_no_proof() -> None:
    env, trust = make_trust(mesh_key=None, allowed_ids=(B.stack_id,))
    assert trust.accept(sign_keydoc(B_KEYS)).stack_id == B.stack_id
    keys, identity = make_keys(3)
    trust.admit(identity.stack_id)
    assert trust.accept(sign_keydoc(keys)).stack_id == identity.stack_id
    assert trust.accept(env.identity.keydoc).stack_id == env.me


# --- vouchers ------------------------------------------------------------------------------------


def voucher(
    issuer: Keys,
    subject: bytes,
    *,
    role: str = "member",
    end: int = NOW_MS + 1,
    mesh: bytes = MESH_ID,
    claims: bytes = b"",
) -> bytes:
    said = Voucher(mesh, subject, role, end, claims or issuer.stack_id)
    return said.sign(CODEC, issuer)


def doc_with(n: int, *vouchers: bytes) -> SignedKeyDoc:
    return sign_keydoc(make_keys(n)[0], proof=kd.write_proof(CODEC, b"", list(vouchers)))


def keys_of(n: int) -> Keys:
    return make_keys(n)[0]


def id_of(n: int) -> bytes:
    return make_keys(n)[1].stack_id


def open_trust() -> tuple[Env, Trust]:
    """A mesh without a secret in which stack 2 is allowed and accepted."""
    env, trust = make_trust(mesh_key=None, allowed_ids=(B.stack_id,))
    trust.accept(sign_keydoc(B_KEYS))
    return env, trust


def test_a_stack_vouched_for_by_a_member_is_a_member() -> None:
    _, trust = open_trust()
    assert trust.accept(doc_with(3, voucher(B_KEYS, id_of(3)))).stack_id == id_of(3)


def test_our_own_voucher_counts() -> None:
    env, trust = open_trust()
    own = keys_of(1)
    assert own.stack_id == env.me
    assert trust.accept(doc_with(3, voucher(own, id_of(3)))).stack_id == id_of(3)


def test_of_several_vouchers_any_valid_one_is_enough() -> None:
    _, trust = open_trust()
    bad = voucher(keys_of(9), id_of(3))
    assert trust.accept(doc_with(3, bad, voucher(B_KEYS, id_of(3)))).stack_id == id_of(3)


@pytest.mark.parametrize(
    "bad",
    [
        voucher(B_KEYS, id_of(4)),
        voucher(B_KEYS, id_of(3), end=NOW_MS),
        voucher(B_KEYS, id_of(3), mesh=bytes(8)),
        voucher(keys_of(9), id_of(3)),
        voucher(keys_of(9), id_of(3), claims=B.stack_id),
    ],
)
def test_a_voucher_that_does_not_fit_is_worth_nothing(bad: bytes) -> None:
    _, trust = open_trust()
    with pytest.raises(PolicyError):
        trust.accept(doc_with(3, bad))


def test_a_malformed_voucher_proves_nothing_and_is_nobodys_fault() -> None:
    """A stack that approved the owner by hand has not looked at it and passes it on."""
    _, trust = open_trust()
    approving = open_trust()[1]
    approving.admit(id_of(3))
    for said in (b"\xc1", pack([b"", bytes(64)]), voucher(B_KEYS, id_of(3), role="king")):
        signed = doc_with(3, said)
        approving.accept(signed)
        with pytest.raises(PolicyError):
            trust.accept(signed)


def test_a_chain_of_vouchers_has_at_most_three() -> None:
    _, trust = open_trust()
    for n in (3, 4, 5):
        trust.accept(doc_with(n, voucher(keys_of(n - 1), id_of(n))))
    with pytest.raises(PolicyError):
        trust.accept(doc_with(6, voucher(keys_of(5), id_of(6))))


def test_an_observer_cannot_vouch() -> None:
    _, trust = open_trust()
    trust.accept(doc_with(3, voucher(B_KEYS, id_of(3), role="observer")))
    with pytest.raises(PolicyError):
        trust.accept(doc_with(4, voucher(keys_of(3), id_of(4))))


def test_an_evicted_issuer_s_vouchers_count_no_more() -> None:
    _, trust = open_trust()
    trust.evict(B.stack_id)
    with pytest.raises(PolicyError):
        trust.accept(doc_with(3, voucher(B_KEYS, id_of(3))))


def test_an_issuer_may_vouch_for_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tr, "PER_ISSUER_MAX", 1)
    _, trust = open_trust()
    trust.accept(doc_with(3, voucher(B_KEYS, id_of(3))))
    trust.accept(doc_with(3, voucher(B_KEYS, id_of(3), end=NOW_MS + 9)))
    with pytest.raises(PolicyError):
        trust.accept(doc_with(4, voucher(B_KEYS, id_of(4))))
    trust.release(B.stack_id)
    trust.accept(sign_keydoc(B_KEYS))
    trust.accept(doc_with(4, voucher(B_KEYS, id_of(4))))


def test_key_documents_are_kept_in_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tr, "ACCEPTED_MAX", 1)
    _, trust = open_trust()
    trust.accept(doc_with(3, voucher(B_KEYS, id_of(3))))
    with pytest.raises(PolicyError):
        trust.accept(doc_with(4, voucher(keys_of(3), id_of(4))))


def test_an_older_key_document_does_not_replace_a_newer_one() -> None:
    _, trust = open_trust()
    trust.accept(sign_keydoc(B_KEYS, key_epoch=2))
    rotated = keys_of(9)
    doc = kd.KeyDoc(B_KEYS.root_public, B.stack_id, 1, rotated.op_public, B_KEYS.box_public)
    packed = doc.encode(CODEC)
    trust.accept(SignedKeyDoc(packed, B_KEYS.sign_root(kd.KEYDOC_CONTEXT, packed), b""))
    trust.accept(doc_with(3, voucher(B_KEYS, id_of(3))))
    with pytest.raises(PolicyError):
        trust.accept(doc_with(4, voucher(rotated, id_of(4), claims=B.stack_id)))


def test_a_forgotten_stack_makes_room_for_another_of_its_issuer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tr, "PER_ISSUER_MAX", 1)
    _, trust = open_trust()
    for n in (3, 4, 5):
        trust.accept(doc_with(n, voucher(B_KEYS, id_of(n))))
        trust.release(id_of(n))


def test_a_voucher_that_ran_out_makes_room_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tr, "PER_ISSUER_MAX", 1)
    env, trust = open_trust()
    trust.accept(doc_with(3, voucher(B_KEYS, id_of(3), end=NOW_MS + 9000)))
    trust.accept(doc_with(3, voucher(B_KEYS, id_of(3), end=NOW_MS + 5000)))
    other = doc_with(4, voucher(B_KEYS, id_of(4), end=NOW_MS + 60_000))
    env.now += 6
    with pytest.raises(PolicyError):
        trust.accept(other)
    env.now += 4
    trust.accept(other)


def test_the_evicted_are_listed() -> None:
    _, trust = make_trust()
    trust.link_up(up(5))
    for n in (2, 3, 4):
        trust.evict(id_of(n))
    assert trust.evicted() == sorted(id_of(n) for n in (2, 3, 4))


def test_in_a_mesh_with_a_secret_vouchers_do_not_count() -> None:
    _, trust = make_trust(allowed_ids=(B.stack_id,))
    trust.accept(B.keydoc)
    with pytest.raises(PolicyError):
        trust.accept(doc_with(3, voucher(B_KEYS, id_of(3))))


def test_a_peer_that_was_admitted_by_hand_gets_a_voucher() -> None:
    env, trust = open_trust()
    trust.link_up(up(2, link=4))
    (send,) = only(env.take(), Send)
    assert send.link == 4
    signed = kd.read_voucher(CODEC, send.messages[0].voucher)
    assert signed.signed_by(B_KEYS, keys_of(1).op_public)
    assert signed.voucher.stack_id == B.stack_id and signed.voucher.issuer == env.me


def test_no_voucher_for_whom_nobody_here_admitted_or_where_a_secret_is() -> None:
    env, trust = open_trust()
    trust.link_up(up(3))
    _, closed = make_trust()
    closed.link_up(up(2))
    assert not only(env.take(), Send) and not only(closed.env.take(), Send)


def test_the_own_key_document_carries_the_vouchers_we_got() -> None:
    env, trust = open_trust()
    told: list[int] = []
    trust.watch(lambda: told.append(1))
    assert trust.own_keydoc() == env.identity.keydoc
    trust.link_up(up(2))
    said = voucher(B_KEYS, env.me, end=NOW_MS + tr.VOUCHER_MS)
    trust.on_vouch(1, Vouch(said))
    assert kd.read_proof(CODEC, trust.own_keydoc().proof) == (b"", [said])
    assert told == [1]
    trust.on_vouch(1, Vouch(voucher(B_KEYS, env.me, end=NOW_MS + tr.VOUCHER_MS + 5)))
    assert told == [1], "a voucher that lasts is not replaced"
    _, again = make_trust(disk(env), mesh_key=None, allowed_ids=(B.stack_id,))
    assert kd.read_proof(CODEC, again.own_keydoc().proof) == (b"", [said])


def test_a_peer_that_was_struck_too_often_is_judged_so_and_shows_it() -> None:
    _, trust = make_trust(allowed_ids=(B.stack_id,))
    trust.link_up(up(2))
    for _ in range(5):
        trust.strikes.strike(B.stack_id, "bad")
    verdict = trust.judge(B.stack_id, "west", B.keydoc, True)
    assert verdict == Verdict(False, "held_off")
    (peer,) = trust.peers()
    assert (peer["state"], peer["strikes"], peer["held_off_s"]) == ("admitted", 5, 60.0)
    trust.admit(B.stack_id)
    assert trust.judge(B.stack_id, "west", B.keydoc, True).admitted


def test_a_voucher_that_has_run_out_by_our_clock_is_passed_over_and_nobodys_fault() -> None:
    env, trust = open_trust()
    trust.link_up(up(2))
    trust.on_vouch(1, Vouch(voucher(B_KEYS, env.me, end=NOW_MS - 1)))
    assert trust.own_keydoc() == env.identity.keydoc


def test_a_voucher_for_a_role_of_a_later_version_is_novel() -> None:
    env, trust = open_trust()
    with pytest.raises(NoveltyError):
        trust.on_vouch(1, Vouch(voucher(B_KEYS, env.me, role="king")))


def test_a_voucher_that_has_run_out_is_carried_no_more() -> None:
    env, trust = open_trust()
    trust.link_up(up(2))
    trust.on_vouch(1, Vouch(voucher(B_KEYS, env.me, end=NOW_MS + 5000)))
    trust.on_vouch(1, Vouch(voucher(B_KEYS, env.me, end=NOW_MS + 9000)))
    env.now += 8
    assert kd.read_proof(CODEC, trust.own_keydoc().proof)[1]
    env.now += 2
    assert trust.own_keydoc() == env.identity.keydoc


def test_a_damaged_voucher_on_the_disk_is_dropped() -> None:
    row = pack(["admitted", "b", 0, "approved", b"\xc1"])
    env, trust = make_trust({("peer", B.stack_id): row}, mesh_key=None)
    assert trust.own_keydoc() == env.identity.keydoc
    assert verdict(trust, secret=False) == Verdict(True, "approved")


def test_a_voucher_for_somebody_else_breaks_the_protocol() -> None:
    _, trust = open_trust()
    with pytest.raises(RemoteError):
        trust.on_vouch(1, Vouch(voucher(B_KEYS, id_of(3))))


def test_a_voucher_signed_by_another_breaks_the_protocol() -> None:
    env, trust = open_trust()
    trust.link_up(up(2))
    with pytest.raises(RemoteError, match="issuer"):
        trust.on_vouch(1, Vouch(voucher(keys_of(9), env.me, claims=B.stack_id)))


def test_a_voucher_of_a_stranger_or_in_a_mesh_with_a_secret_is_ignored() -> None:
    env, trust = open_trust()
    trust.on_vouch(1, Vouch(voucher(keys_of(9), env.me)))
    assert trust.own_keydoc() == env.identity.keydoc
    closed = Member("a")
    closed.trust.link_up(up(2))
    closed.trust.accept(B.keydoc)
    closed.trust.on_vouch(1, Vouch(voucher(B_KEYS, closed.id)))
    assert closed.trust.own_keydoc() == closed.env.identity.keydoc


def test_where_a_secret_proves_membership_no_key_documents_are_kept() -> None:
    _, trust = make_trust()
    for n in (2, 3, 4):
        assert trust.accept(make_keys(n)[1].keydoc).stack_id == id_of(n)
    assert trust._accepted == {}


# --- introducers ---------------------------------------------------------------------------------


def introduction(issuer: int, subject: int, **changes: Any) -> tuple[Keys, SignedKeyDoc]:
    """The key document of a stack with a voucher of another one."""
    issuer_keys, by = make_keys(issuer)
    keys, identity = make_keys(subject)
    fields = {"mesh_id": MESH_ID, "stack_id": identity.stack_id, "role": "member"}
    fields |= {"not_after_ms": NOW_MS + 1000, "issuer": by.stack_id}
    voucher = Voucher(**fields | changes).sign(CODEC, issuer_keys)  # type: ignore[arg-type]
    return keys, sign_keydoc(keys, proof=kd.write_proof(CODEC, b"", [voucher]))


def introduced(trust: Trust, keydoc: SignedKeyDoc, subject: int = 3) -> str:
    return trust.judge(make_keys(subject)[1].stack_id, "c", keydoc, False).reason


def test_an_introducer_admits_others_and_is_off_unless_it_is_let() -> None:
    _, trust = make_trust(mesh_key=None, allowed_ids=(B.stack_id,))
    trust.accept(sign_keydoc(B_KEYS))
    _, keydoc = introduction(2, 3)
    assert introduced(trust, keydoc) == "pending"
    trust.introduces = lambda stack_id: stack_id == B.stack_id
    assert introduced(trust, keydoc) == "introduced"
    assert introduced(trust, introduction(2, 3, not_after_ms=NOW_MS)[1]) == "pending"
    assert introduced(trust, introduction(2, 3, stack_id=B.stack_id)[1]) == "pending"
    forged = kd.read_proof(CODEC, introduction(2, 3)[1].proof)[1][0][:-4] + b"oops"
    keys = make_keys(3)[0]
    false = sign_keydoc(keys, proof=kd.write_proof(CODEC, b"", [forged]))
    assert introduced(trust, false) == "pending"


def test_who_was_introduced_introduces_nobody() -> None:
    _, trust = make_trust(mesh_key=None, allowed_ids=(B.stack_id,))
    trust.introduces = lambda _stack_id: True
    trust.accept(sign_keydoc(B_KEYS))
    _, third = introduction(2, 3)
    trust.accept(third)
    assert introduced(trust, introduction(3, 4)[1], subject=4) == "pending"


@pytest.mark.hostile("evicted-again")
def test_an_eviction_beats_an_introduction_and_ends_the_introducer() -> None:
    _, trust = make_trust(mesh_key=None, allowed_ids=(B.stack_id,))
    trust.introduces = lambda _stack_id: True
    trust.accept(sign_keydoc(B_KEYS))
    _, keydoc = introduction(2, 3)
    trust.evict(make_keys(3)[1].stack_id)
    assert introduced(trust, keydoc) == "evicted"
    _, fourth = introduction(2, 4)
    trust.evict(B.stack_id)
    assert introduced(trust, fourth, subject=4) == "pending"


def test_the_role_of_who_was_introduced_is_the_one_it_was_vouched_for() -> None:
    _, trust = make_trust(mesh_key=None, allowed_ids=(B.stack_id,))
    trust.introduces = lambda _stack_id: True
    trust.accept(sign_keydoc(B_KEYS))
    _, keydoc = introduction(2, 3, role="observer")
    third = make_keys(3)[1].stack_id
    assert trust.role_of(third) == ""
    trust.accept(keydoc)
    trust.link_up(up(3))
    assert trust.role_of(third) == "observer"
    assert trust.role_of(B.stack_id) == "member"
    trust.evict(third)
    assert trust.role_of(third) == ""


# --- keys that were replaced ----------------------------------------------------------------------


@pytest.mark.hostile("stolen-keys")
def test_old_keys_open_no_link_once_newer_ones_are_known() -> None:
    _, trust = make_trust(allowed_ids=(B.stack_id,))
    assert trust.judge(B.stack_id, "b", B.keydoc, True).admitted
    trust.key_epoch_of = lambda _stack_id: 1
    assert trust.judge(B.stack_id, "b", B.keydoc, True) == Verdict(False, "old_keys")
    newer = sign_keydoc(B_KEYS, key_epoch=1)
    assert trust.judge(B.stack_id, "b", newer, True).admitted
