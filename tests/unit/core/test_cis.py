"""Registrations: who gets a name, how long it lives, what the mesh and the disk see of it."""

from typing import Any

import pytest

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core.ci import ci_of_row
from tests.network import Member, Network, spec

HTTP = {
    "kind": "http",
    "url": "http://127.0.0.1:9/x",
    "format": "json_simple",
    "headers": {"k": "v"},
}


def alone(**settings: object) -> tuple[Network, Member]:
    network = Network("a", **settings)  # type: ignore[arg-type]
    network.run(0.1)
    return network, network["a"]


def register(
    member: Member,
    name: str,
    *,
    connection: int | None = None,
    token: str | None = None,
    trusted: bool = False,
    **changes: Any,
) -> fx.Answer | fx.AnswerFailed:
    made = spec(name, **changes)
    answer = member.answer(member.do(lambda t: ev.RegisterCi(t, made, connection, token, trusted)))
    assert answer is not None
    return answer


def token_of(answer: fx.Answer | fx.AnswerFailed) -> str:
    assert isinstance(answer, fx.Answer), answer
    return str(answer.result["token"])


def code_of(answer: fx.Answer | fx.AnswerFailed) -> str:
    assert isinstance(answer, fx.AnswerFailed), answer
    return str(answer.error["code"])


def record(member: Member, key: str) -> dict[str, Any] | None:
    return member.node.owner.get(f"ci/{key}")


def heartbeat(
    member: Member, name: str, token: str | None = None, *, trusted: bool = False
) -> fx.Answer | fx.AnswerFailed:
    answer = member.answer(member.do(lambda t: ev.HeartbeatCi(t, name, token, trusted)))
    assert answer is not None
    return answer


def deregister(
    member: Member, name: str, token: str | None = None, *, trusted: bool = False
) -> fx.Answer | fx.AnswerFailed:
    answer = member.answer(member.do(lambda t: ev.DeregisterCi(t, name, token, trusted)))
    assert answer is not None
    return answer


# --- registering ---------------------------------------------------------------------------------


def test_who_registers_gets_a_token_and_an_id() -> None:
    _, a = alone()
    result = a.register("Numa")
    assert result["success"] is True
    assert (result["name"], result["stack"], result["lease_s"]) == ("Numa", "a", None)
    assert result["token"].startswith("tmr_") and len(result["token"]) == 56
    assert len(result["id"]) == 32
    assert a.node.cis.get(result["id"]) is a.node.cis.get("NUMA")


def test_the_mesh_sees_what_is_for_it_and_nothing_local() -> None:
    _, a = alone()
    register(
        a,
        "Numa",
        how=HTTP,
        description="Helps.",
        specialties=["vision"],
        capabilities=["chat"],
        metadata={"port": 9},
        via="http",
    )
    assert record(a, "numa") == {
        "name": "Numa",
        "type": "ci",
        "specialties": ["vision"],
        "capabilities": ["chat"],
        "share": "public",
        "state": "up",
        "description": "Helps.",
        "stream": True,
    }


@pytest.mark.parametrize("share", ["private", "partners"])
def test_a_ci_that_is_not_shared_with_all_leaves_no_trace(share: str) -> None:
    _, a = alone()
    a.register("numa", share=share)
    assert record(a, "numa") is None
    assert a.node.cis.get("numa") is not None


def test_the_default_of_sharing_is_the_stacks() -> None:
    _, a = alone(share_default="private")
    a.register("numa")
    assert record(a, "numa") is None


def test_the_token_is_stored_as_a_hash_only() -> None:
    _, a = alone()
    token = token_of(register(a, "numa", connection=1))
    rows = [row for effect in a.of(fx.Save) for row in effect.rows if row[0] == "ci"]
    assert [key for _, key, _ in rows] == [b"numa"]
    assert all(token.encode() not in (value or b"") for _, _, value in rows)
    assert all(token[4:].encode() not in (value or b"") for _, _, value in rows)


def test_two_hundred_registrations_in_a_second_are_a_handful_of_heads() -> None:
    network, a = alone()
    before = a.node.replica.owners[a.id].version.ver
    for n in range(200):
        a.register(f"ci{n}")
        network.run(0.005)
    network.run(1.0)
    held = a.node.replica.owners[a.id]
    assert len(held.keys("ci")) == 200
    assert held.version.ver - before <= 15


def test_the_number_of_cis_is_bounded_and_updates_still_work() -> None:
    _, a = alone(ci_max=2)
    for name in ("one", "two"):
        a.register(name)
    assert code_of(register(a, "three", trusted=True)) == "busy"
    assert a.register("two")["success"] is True


def test_what_does_not_fit_into_a_record_is_refused_and_changes_nothing() -> None:
    _, a = alone()
    answer = register(a, "numa", connection=1, description="x" * 3000)
    assert code_of(answer) == "too_large"
    assert a.node.cis.all() == []
    assert not [row for effect in a.of(fx.Save) for row in effect.rows if row[0] == "ci"]
    token = token_of(register(a, "numa", connection=1))
    answer = register(a, "numa", connection=1, token=token, description="x" * 3000)
    assert code_of(answer) == "too_large"
    ci = a.node.cis.get("numa")
    assert ci is not None and ci.spec["description"] == ""
    assert ci.connection == 1


def test_a_notice_tells_a_first_registration_from_an_update() -> None:
    _, a = alone()
    a.register("numa")
    a.register("numa")
    assert a.notices("ci_registered") == [
        {"ci": "numa", "via": "socket", "new": True},
        {"ci": "numa", "via": "socket", "new": False},
    ]


# --- whose name it is ----------------------------------------------------------------------------


def test_a_name_with_a_live_connection_is_taken_even_for_trusted_callers() -> None:
    _, a = alone()
    register(a, "numa", connection=1, trusted=True)
    assert code_of(register(a, "NUMA", connection=2, trusted=True)) == "conflict"
    assert code_of(register(a, "numa", how=HTTP, trusted=True)) == "conflict"
    assert a.node.cis.get("numa").connection == 1  # type: ignore[union-attr]


def test_the_right_token_takes_over_and_stays_the_same() -> None:
    _, a = alone()
    token = token_of(register(a, "numa", connection=1))
    again = register(a, "numa", connection=2, token=token)
    assert token_of(again) == token
    ci = a.node.cis.get("numa")
    assert ci is not None and ci.connection == 2
    assert len(a.node.cis.all()) == 1


def test_a_wrong_token_does_not_take_over() -> None:
    _, a = alone()
    register(a, "numa", connection=1)
    assert code_of(register(a, "numa", connection=2, token="tmr_wrong")) == "conflict"


def test_the_same_connection_may_change_its_registration() -> None:
    _, a = alone()
    register(a, "numa", connection=1)
    register(a, "numa", connection=1, description="new")
    assert record(a, "numa")["description"] == "new"  # type: ignore[index]


def test_closing_the_old_connection_later_does_not_end_the_new_one() -> None:
    network, a = alone()
    token = token_of(register(a, "numa", connection=1))
    register(a, "numa", connection=2, token=token)
    network.handle(a, ev.Detached(1))
    network.run(20.0)
    assert a.node.cis.get("numa").state == "up"  # type: ignore[union-attr]


def test_without_a_live_connection_a_trusted_caller_takes_over_with_a_new_token() -> None:
    network, a = alone()
    old = token_of(register(a, "numa", connection=1))
    network.handle(a, ev.Detached(1))
    new = token_of(register(a, "numa", connection=2, trusted=True))
    assert new != old
    assert code_of(heartbeat(a, "numa", old)) == "unauthorized"


def test_without_trust_or_token_an_offline_name_is_still_taken() -> None:
    network, a = alone()
    register(a, "numa", connection=1)
    network.handle(a, ev.Detached(1))
    assert code_of(register(a, "numa", connection=2)) == "conflict"


def test_hermes_clients_update_by_name_and_touch_nothing_else() -> None:
    _, a = alone()
    register(a, "numa", how=HTTP, via="hermes")
    assert isinstance(register(a, "numa", how=HTTP, via="hermes"), fx.Answer)
    register(a, "athena", how=HTTP, via="http")
    assert code_of(register(a, "athena", how=HTTP, via="hermes")) == "conflict"
    assert code_of(register(a, "numa", how=HTTP, via="http")) == "conflict"
    assert isinstance(heartbeat(a, "numa"), fx.Answer)
    assert code_of(heartbeat(a, "numa", "tmr_bad")) == "unauthorized"
    assert code_of(heartbeat(a, "athena")) == "unauthorized"
    assert code_of(deregister(a, "athena")) == "unauthorized"
    assert isinstance(deregister(a, "numa"), fx.Answer)


# --- leases --------------------------------------------------------------------------------------


def test_an_http_registration_lives_as_long_as_its_heartbeats() -> None:
    network, a = alone()
    token = token_of(register(a, "numa", how=HTTP, via="http"))
    for _ in range(4):
        network.run(80.0)
        answer = heartbeat(a, "numa", token)
        assert isinstance(answer, fx.Answer)
        assert answer.result["lease_s"] == 90.0
    network.run(89.0)
    assert a.node.cis.get("numa") is not None
    network.run(2.0)
    assert a.node.cis.get("numa") is None
    assert record(a, "numa") is None
    assert a.notices("ci_deregistered") == [{"ci": "numa", "reason": "timeout"}]
    assert code_of(heartbeat(a, "numa", token)) == "unknown_ci"


def test_a_registration_may_ask_for_another_lease() -> None:
    network, a = alone()
    answer = register(a, "numa", how={"kind": "none"}, lease_s=6.0)
    assert isinstance(answer, fx.Answer)
    assert (answer.result["lease_s"], answer.result["heartbeat_s"]) == (6.0, 2.0)
    network.run(7.0)
    assert a.node.cis.get("numa") is None


def test_a_ci_that_cannot_take_messages_is_offline_from_the_start() -> None:
    _network, a = alone()
    register(a, "numa", how={"kind": "none"})
    held = a.node.cis.get("numa")
    assert held is not None and held.state == "offline"


def test_a_persistent_registration_needs_no_heartbeat() -> None:
    network, a = alone()
    answer = register(a, "numa", how=HTTP, persist=True)
    assert isinstance(answer, fx.Answer)
    assert (answer.result["lease_s"], answer.result["heartbeat_s"]) == (None, 30.0)
    network.run(1000.0)
    assert a.node.cis.get("numa") is not None


def test_a_heartbeat_by_id_is_as_good_as_by_name() -> None:
    network, a = alone()
    answer = register(a, "numa", how=HTTP)
    assert isinstance(answer, fx.Answer)
    network.run(80.0)
    heartbeat(a, answer.result["id"], answer.result["token"])
    network.run(80.0)
    assert a.node.cis.get("numa") is not None


# --- connections ---------------------------------------------------------------------------------


def test_a_closed_connection_leaves_its_cis_offline_and_then_removes_them() -> None:
    network, a = alone()
    for name in ("numa", "athena"):
        a.register(name)
    network.handle(a, ev.Detached(1))
    assert [ci.state for ci in a.node.cis.all()] == ["offline", "offline"]
    assert record(a, "numa")["state"] == "offline"  # type: ignore[index]
    assert a.notices("ci_offline")[0] == {"ci": "numa", "reason": "detached"}
    network.run(4.9)
    assert len(a.node.cis.all()) == 2
    network.run(0.2)
    assert a.node.cis.all() == []
    assert record(a, "numa") is None
    assert a.notices("ci_deregistered")[0] == {"ci": "numa", "reason": "detached"}


def test_a_ci_that_comes_back_within_the_grace_keeps_its_place() -> None:
    network, a = alone()
    token = token_of(register(a, "numa", connection=1))
    network.handle(a, ev.Detached(1))
    network.run(3.0)
    register(a, "numa", connection=2, token=token)
    network.run(20.0)
    assert record(a, "numa")["state"] == "up"  # type: ignore[index]
    assert a.notices("ci_deregistered") == []


def test_a_persistent_attached_ci_stays_and_is_offline() -> None:
    network, a = alone()
    a.register("numa", persist=True)
    network.handle(a, ev.Detached(1))
    network.run(1000.0)
    assert record(a, "numa")["state"] == "offline"  # type: ignore[index]


def test_a_connection_without_cis_closes_unnoticed() -> None:
    network, a = alone()
    before = len(a.effects)
    network.handle(a, ev.Detached(77))
    assert a.effects[before:] == []


# --- health --------------------------------------------------------------------------------------


def health(network: Network, a: Member, healthy: bool, ci: str = "numa") -> None:
    network.handle(a, ev.CiHealth(ci, healthy, "checked"))


def test_an_endpoint_that_fails_takes_its_ci_offline_until_it_is_well_again() -> None:
    network, a = alone()
    register(a, "numa", how=HTTP, persist=True)
    health(network, a, True)
    assert a.notices("ci_up") == []
    for _ in range(2):
        health(network, a, False)
    assert record(a, "numa")["state"] == "offline"  # type: ignore[index]
    assert a.notices("ci_offline") == [{"ci": "numa", "reason": "unhealthy"}]
    health(network, a, True)
    assert record(a, "numa")["state"] == "up"  # type: ignore[index]
    assert a.notices("ci_up") == [{"ci": "numa"}]


def test_a_check_of_what_has_no_endpoint_is_ignored() -> None:
    network, a = alone()
    a.register("numa")
    for _ in range(5):
        health(network, a, False)
        health(network, a, False, "nobody")
    assert a.node.cis.get("numa").state == "up"  # type: ignore[union-attr]


def test_endpoints_are_watched_while_they_are_registered() -> None:
    _, a = alone()
    register(a, "Numa", how=HTTP, trusted=True)
    register(a, "Numa", how={"kind": "none"}, trusted=True)
    register(a, "Numa", how=HTTP, trusted=True)
    deregister(a, "numa", trusted=True)
    assert a.of(fx.WatchEndpoint) == [
        fx.WatchEndpoint("numa", HTTP["url"]),  # type: ignore[arg-type]
        fx.WatchEndpoint("numa", None),
        fx.WatchEndpoint("numa", HTTP["url"]),  # type: ignore[arg-type]
        fx.WatchEndpoint("numa", None),
    ]


def test_a_ci_that_becomes_private_loses_its_record() -> None:
    _, a = alone()
    a.register("numa")
    a.register("numa", share="private")
    assert record(a, "numa") is None
    a.register("numa", share="public")
    assert record(a, "numa") is not None


# --- deregistering -------------------------------------------------------------------------------


def test_deregistering_needs_the_token_or_trust() -> None:
    _, a = alone()
    token = token_of(register(a, "numa", connection=1))
    assert code_of(deregister(a, "numa")) == "unauthorized"
    assert code_of(deregister(a, "numa", "tmr_other")) == "unauthorized"
    assert isinstance(deregister(a, "numa", token), fx.Answer)
    assert a.node.cis.all() == [] and record(a, "numa") is None
    assert code_of(deregister(a, "numa", token)) == "unknown_ci"
    register(a, "numa", connection=1)
    assert isinstance(deregister(a, "numa", trusted=True), fx.Answer)


# --- restarts ------------------------------------------------------------------------------------


def restart(network: Network, a: Member) -> Member:
    saved = dict(a.saved)
    network.kill("a")
    return network.add("a", saved)


def test_registrations_survive_a_restart_with_their_tokens() -> None:
    network, a = alone()
    attached = token_of(register(a, "numa", connection=1, description="Helps."))
    register(a, "athena", how=HTTP, persist=True, metadata={"deep": {"list": [1, "two", None]}})
    a = restart(network, a)
    network.run(0.1)
    assert record(a, "numa")["state"] == "offline"  # type: ignore[index]
    assert record(a, "athena")["state"] == "up"  # type: ignore[index]
    assert [(one.ci, one.url) for one in a.of(fx.WatchEndpoint)] == [("athena", HTTP["url"])]
    athena = a.node.cis.get("athena")
    assert athena is not None and athena.spec["metadata"] == {"deep": {"list": [1, "two", None]}}
    assert athena.how == HTTP
    assert token_of(register(a, "numa", connection=1, token=attached)) == attached
    network.run(10.0)
    assert record(a, "numa")["state"] == "up"  # type: ignore[index]


def test_an_attached_ci_that_does_not_come_back_after_a_restart_is_removed() -> None:
    network, a = alone()
    register(a, "numa", connection=1)
    a = restart(network, a)
    network.run(6.0)
    assert a.node.cis.all() == []
    assert restart(network, a).node.cis.all() == []


def test_a_lease_starts_anew_after_a_restart() -> None:
    network, a = alone()
    register(a, "numa", how=HTTP)
    network.run(80.0)
    a = restart(network, a)
    network.run(80.0)
    assert a.node.cis.get("numa") is not None
    network.run(11.0)
    assert a.node.cis.get("numa") is None


@pytest.mark.parametrize(
    "row",
    [
        b"\xc1",
        b"\x80",
        b"\x93\x01\x02\x03",
    ],
)
def test_a_damaged_row_is_dropped_and_told(row: bytes) -> None:
    network = Network()
    a = network.add("a", {("ci", b"numa"): row, ("meta", b"other"): b"\x00"})
    assert a.node.cis.all() == []
    assert a.notices("ci_row_damaged") == [{"ci": "numa"}]
    assert ("ci", b"numa") not in a.saved


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {}},
        {"spec": None},
        {"id": 5},
        {"token": "text"},
    ],
)
def test_a_row_of_another_form_is_no_registration(change: dict[str, Any]) -> None:
    _, a = alone()
    a.register("numa")
    ci = a.node.cis.get("numa")
    assert ci is not None
    assert ci_of_row(ci.row()) is not None
    assert ci_of_row(ci.row() | change) is None


def test_a_row_without_a_way_to_deliver_is_no_registration() -> None:
    _, a = alone()
    a.register("numa")
    row = a.node.cis.get("numa").row()  # type: ignore[union-attr]
    assert ci_of_row(row | {"spec": row["spec"] | {"how": {}}}) is None
    assert ci_of_row(row | {"spec": row["spec"] | {"how": 5}}) is None


def test_a_change_of_state_that_finds_the_records_full_is_told_and_survived() -> None:
    network, a = alone()
    a.register("numa")
    a.node.owner._wanted_size = 1 << 20
    network.handle(a, ev.Detached(1))
    assert [notice["ci"] for notice in a.notices("ci_not_published")] == ["numa"]
    assert a.node.cis.get("numa").state == "offline"  # type: ignore[union-attr]


def test_one_ci_of_a_connection_may_go_while_others_stay() -> None:
    network, a = alone()
    for name in ("numa", "athena"):
        a.register(name)
    deregister(a, "numa", trusted=True)
    network.handle(a, ev.Detached(1))
    assert [(ci.name, ci.state) for ci in a.node.cis.all()] == [("athena", "offline")]


def test_a_row_under_another_name_is_dropped() -> None:
    _, a = alone()
    a.register("numa")
    row = a.saved[("ci", b"numa")]
    other = Network()
    b = other.add("b", {("ci", b"numa"): row, ("ci", b"twin"): row})
    assert [ci.name for ci in b.node.cis.all()] == ["numa"]
    assert b.notices("ci_row_damaged") == [{"ci": "twin"}]


def test_a_name_wins_over_an_id_and_no_name_may_be_anothers_id() -> None:
    _, member = alone()
    first = register(member, "numa")
    assert isinstance(first, fx.Answer)
    assert code_of(register(member, first.result["id"], trusted=True)) == "conflict"
    second = register(member, "b" * 32)
    assert isinstance(second, fx.Answer)
    member.node.cis._ids["b" * 32] = "numa"
    found = member.node.cis.get("B" * 32)
    assert found is not None and found.id == second.result["id"]
