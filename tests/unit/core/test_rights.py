"""What another stack may do here: terms and grants as they change, are kept and are charged."""

from __future__ import annotations

from typing import Any

import pytest

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core.ids import show_id
from tektonmesh.core.policy import Act
from tektonmesh.core.rights import GLOBS_MAX, GRANTS_MAX
from tests.network import Member, Network
from tests.support import make_keys

A, B = (make_keys(n)[1].stack_id for n in (1, 2))
SAY = Act("message", "numa", size=5)


def foreign(saved: Any = None) -> Network:
    """Two stacks of different organisations, each admitted by id."""
    network = Network(mesh_keys=(), allowed_ids=(A, B), share_default="private")
    network.add("a", saved)
    network.add("b")
    network.join("a", "b")
    return network


def govern(member: Member, act: str, **params: Any) -> dict[str, Any]:
    answer = member.answer(member.do(lambda ticket: ev.Govern(ticket, act, params)))
    return answer.result if isinstance(answer, fx.Answer) else answer.error  # type: ignore


def code(member: Member, act: Act = SAY, who: bytes = B) -> str:
    return member.node.rights.check(who, act).code


def audited(member: Member, kind: str) -> list[dict[str, Any]]:
    return [entry.data for entry in member.of(fx.Audit) if entry.kind == kind]


def test_a_message_of_another_organisation_takes_a_right() -> None:
    network = foreign()
    a, b = network["a"], network["b"]
    a.register("numa", share="public")
    a.echo()
    network.settle()
    first = b.send("numa@a", sender="rhetor")
    network.settle()
    assert b.error(first)["code"] == "refused"
    assert not a.deliveries()
    govern(a, "grant", stack_id=B, verb="message", ci="numa")
    second = b.send("numa@a")
    network.settle()
    assert b.result(second)["body"] == b"hello"
    assert audited(a, "deny")[0] | {"code": "refused", "side": "owner"} == audited(a, "deny")[0]
    assert next(entry["rule"] for entry in audited(a, "allow")).startswith("grant ")
    assert {entry["side"] for entry in audited(b, "allow")} == {"caller"}


@pytest.mark.hostile("invisible-ci")
def test_what_is_private_and_what_is_missing_get_the_same_answer() -> None:
    network = foreign()
    a, b = network["a"], network["b"]
    a.register("numa", share="public")
    a.register("hidden", share="private")
    network.settle()
    rights = a.node.rights
    answers = [code(a, Act("message", name)) for name in ("hidden", "missing")]
    assert answers == ["not_found", "not_found"]
    with pytest.raises(Exception, match="hidden") as one:
        rights.require(B, Act("message", "hidden"))
    with pytest.raises(Exception, match="missing") as two:
        rights.require(B, Act("message", "missing"))
    said = [error.value.as_dict() for error in (one, two)]  # type: ignore[attr-defined]
    said[0]["detail"] = said[0]["detail"].replace("hidden", "missing")
    assert said[0] == said[1]
    assert b.error(b.send("hidden@a"))["code"] == b.error(b.send("missing@a"))["code"]


def test_terms_and_grants_outlive_a_restart() -> None:
    network = foreign()
    a = network["a"]
    govern(a, "terms", stack_id=B, mode="partial", shared_cis=["Numa"], imports=["athena"])
    grant = govern(a, "grant", stack_id=B, verb="message", for_s=60, depth_max=0, size_max=9)
    network.kill("a")
    again = network.add("a", a.saved).node.rights
    assert again.show() == a.node.rights.show()
    assert again.terms_of(B).shared_cis == ("numa",)
    assert again.grants_of(B)[0].id == grant["id"]
    assert again.grants_of(B)[0].depth_max == 0


def test_a_grant_ends_at_its_time() -> None:
    network = foreign()
    a = network["a"]
    a.register("numa", share="public")
    govern(a, "grant", stack_id=B, verb="message", for_s=60)
    assert code(a) == ""
    network.run(61.0)
    assert code(a) == "refused"


def test_a_revoked_grant_allows_nothing_from_that_moment() -> None:
    a = foreign()["a"]
    a.register("numa", share="public")
    one = govern(a, "grant", stack_id=B, verb="message")
    two = govern(a, "grant", stack_id=B, verb="message", ci="numa")
    assert govern(a, "revoke", grant=one["id"]) == {"revoked": [one["id"]]}
    assert code(a) == ""
    assert govern(a, "revoke", stack_id=B) == {"revoked": [two["id"]]}
    assert code(a) == "refused"
    assert [key for key in a.saved if key[0] == "grant"] == []
    assert govern(a, "revoke", grant="none")["code"] == "not_found"


def test_a_rate_is_charged_for_what_went_through_and_comes_back() -> None:
    network = foreign()
    a = network["a"]
    a.register("numa", share="public")
    govern(a, "grant", stack_id=B, verb="message", per_minute=2)
    for _ in range(2):
        a.node.rights.require(B, SAY)
    assert code(a) == "busy"
    with pytest.raises(Exception, match="too often"):
        a.node.rights.require(B, SAY)
    network.run(31.0)
    assert code(a) == ""


def test_an_eviction_takes_terms_and_grants_along() -> None:
    network = foreign()
    a = network["a"]
    a.register("numa", share="public")
    govern(a, "terms", stack_id=B, mode="full")
    govern(a, "grant", stack_id=B, verb="relay")
    a.do(lambda ticket: ev.EvictPeer(ticket, B))
    assert code(a) == "not_found"
    assert a.node.rights.show()["peers"] == a.node.rights.show()["grants"] == []
    assert a.node.rights.check_use(B, SAY).code == "not_found"


def test_a_role_narrows_and_grants_nothing_to_strangers() -> None:
    network = foreign()
    a = network["a"]
    a.register("numa", share="public")
    govern(a, "terms", stack_id=B, role="observer", mode="full")
    assert code(a) == "refused"
    govern(a, "terms", stack_id=bytes(32), role="member", mode="full")
    assert code(a, who=bytes(32)) == "not_found"


def test_the_import_policy_holds_for_messages_of_callers_here() -> None:
    network = foreign()
    a, b = network["a"], network["b"]
    b.register("numa", share="public")
    network.settle()
    govern(a, "terms", stack_id=B, imports=["athena"])
    assert a.error(a.send("numa@b"))["code"] == "refused"


def test_ones_own_stacks_need_no_grants() -> None:
    network = Network("a", "b")
    network.join("a", "b")
    network["a"].register("numa", share="public")
    assert code(network["a"]) == ""
    assert network["a"].node.rights.is_own(B)
    assert not network["a"].node.rights.is_own(bytes(32))


def test_a_stack_let_in_by_id_alone_is_none_of_ones_own() -> None:
    network = Network("a", mesh_keys=(b"k" * 32,), allowed_ids=(B,))
    network.add("b", allowed_ids=(A,))
    network.join("a", "b")
    network["a"].register("numa", share="public")
    assert not network["a"].node.rights.is_own(B)
    assert code(network["a"]) == "refused"


def test_introducers_are_off_unless_granted() -> None:
    network = foreign()
    rights = network["a"].node.rights
    assert not rights.is_introducer(B)
    govern(network["a"], "grant", stack_id=B, verb="introduce", for_s=10)
    assert rights.is_introducer(B)
    network.run(15.0)
    assert not rights.is_introducer(B)


def test_partners_are_those_with_a_mode_or_a_grant() -> None:
    a = foreign()["a"]
    govern(a, "terms", stack_id=B, mode="full")
    govern(a, "grant", stack_id=bytes(32), verb="message")
    govern(a, "terms", stack_id=b"x" * 32, role="observer")
    assert a.node.rights.partners() == sorted([B, bytes(32)])


@pytest.mark.parametrize(
    "params",
    [
        {"mode": "open"},
        {"role": "king"},
        {"shared_cis": ["x"] * (GLOBS_MAX + 1)},
        {"imports": ["x" * 200]},
    ],
)
def test_terms_that_cannot_be_change_nothing(params: dict[str, Any]) -> None:
    a = foreign()["a"]
    assert govern(a, "terms", stack_id=B, **params)["code"] == "bad_request"
    assert a.node.rights.show()["peers"] == []


def test_grants_that_cannot_be_change_nothing() -> None:
    a = foreign()["a"]
    assert govern(a, "grant", stack_id=B, verb="fly")["code"] == "bad_request"
    assert govern(a, "grant", stack_id=A, verb="message")["code"] == "bad_request"
    a.node.rights._grants |= {str(n): (B, None) for n in range(GRANTS_MAX)}  # type: ignore
    assert govern(a, "grant", stack_id=B, verb="message")["code"] == "busy"


@pytest.mark.parametrize("row", [b"\xc1", b"\x90", b"\x94\xa0\xa0\xa0\xa0"])
def test_damaged_rows_are_read_the_narrow_way(row: bytes) -> None:
    network = foreign({("terms", B): row, ("grant", b"00"): row})
    rights = network["a"].node.rights
    assert rights.grants_of(B) == ()
    assert not rights.check_use(B, SAY).allowed


def test_the_memory_of_verdicts_is_bounded_and_forgets_what_changes() -> None:
    a = Network("a", "b")["a"]
    for number in range(4200):
        a.node.rights.check(B, Act(f"tool.call:{number}", "numa"))
    assert len(a.node.rights._memo) <= 4096
    govern(a, "terms", stack_id=B, mode="full")
    assert a.node.rights._memo == {}


def test_a_broken_proof_of_membership_proves_nothing() -> None:
    network = Network("a", "b")
    network.join("a", "b")
    rights = network["a"].node.rights
    assert not rights._proves(B, b"\xc1")
    rights._own |= {bytes([n // 256, n % 256]): (b"", True) for n in range(4096)}
    assert rights.is_own(B)
    assert show_id(B) in str(govern(network["a"], "terms", stack_id=B, mode="full"))


def test_while_the_audit_log_takes_no_entries_others_may_do_nothing() -> None:
    network = foreign()
    a = network["a"]
    a.register("numa", share="public")
    govern(a, "terms", stack_id=B, mode="full")
    network.handle(a, ev.AuditState(5, bytes(32), True))
    with pytest.raises(Exception, match="audit"):
        a.node.rights.require(B, SAY)
    network.handle(a, ev.AuditState(6, bytes(32), False))
    a.node.rights.require(B, SAY)


def test_stacks_of_others_may_send_so_many_messages_a_second_and_ones_own_as_they_like() -> None:
    def answered(network: Network, count: int) -> int:
        a, b = network["a"], network["b"]
        a.register("numa", share="public")
        a.echo()
        network.settle()
        tickets = [b.send("numa@a") for _ in range(count)]
        network.run(2.0)
        return sum(isinstance(b.answer(ticket), fx.Answer) for ticket in tickets)

    network = foreign()
    govern(network["a"], "terms", stack_id=B, mode="full")
    assert 200 <= answered(network, 300) < 300
    own = Network("a", "b")
    own.join("a", "b")
    assert answered(own, 300) == 300
