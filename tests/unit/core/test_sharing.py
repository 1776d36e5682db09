"""CIs for partners: who gets their records, by which way, and who never sees a byte of them."""

from __future__ import annotations

from typing import Any

import pytest

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core import sharing, views_cis
from tektonmesh.core.envelope import NO_ID, Kind
from tektonmesh.core.messages import Message
from tests.network import Member, Network
from tests.support import make_keys

A, B, C = (make_keys(n)[1].stack_id for n in (1, 2, 3))


def chain() -> Network:
    """a - b - c of three organisations: b is on the way from a to c."""
    network = Network("a", "b", "c", mesh_keys=(), allowed_ids=(A, B, C), share_default="private")
    network.join("a", "b", "c")
    return network


def terms(member: Member, who: bytes, **params: Any) -> None:
    answer = member.answer(
        member.do(lambda ticket: ev.Govern(ticket, "terms", {"stack_id": who} | params))
    )
    assert isinstance(answer, fx.Answer), answer


def seen(member: Member) -> list[str]:
    return sorted(row["address"] for row in views_cis.cis(member.node, local=False))


def share(member: Member, to: bytes, cis: Any, version: Any = 1) -> None:
    """Say to another stack what no daemon of ours would."""
    body = {"v": version, "cis": cis}
    member.node.deliveries.posts.send(Kind.SHARE, to, NO_ID, body, within_s=5.0)
    member.network.handle(member, ev.Tick())
    member.network.settle()


def test_a_partner_two_hops_away_sees_what_is_shared_and_the_relay_sees_nothing() -> None:
    network = chain()
    passed: list[Message] = []
    network.on_message = lambda _one, _two, message: passed.append(message)
    a, b, c = (network[name] for name in "abc")
    a.register("canary-partner", share="partners")
    a.register("canary-private", share="private")
    terms(a, C, mode="full")
    network.settle()
    assert seen(c) == ["canary-partner@a"]
    assert seen(b) == []
    assert views_cis.record(c.node, "canary-partner@a")["share"] == "partners"
    assert "canary" not in repr(passed)
    assert not [key for key, value in b.saved.items() if b"canary" in key[1] + value]
    on_disk = [key for key, value in c.saved.items() if b"canary-partner" in value]
    assert on_disk == [(sharing.TABLE, A)]


def test_a_partner_may_speak_to_what_is_shared_with_it() -> None:
    network = chain()
    a, b, c = (network[name] for name in "abc")
    a.register("numa", share="partners")
    a.echo()
    terms(a, C, mode="full")
    network.settle()
    asked, guessed = c.send("numa@a"), b.send("numa@a")
    network.settle()
    assert c.result(asked)["body"] == b"hello"
    assert b.error(guessed)["code"] == "not_found"


def test_what_is_no_longer_shared_disappears() -> None:
    network = chain()
    a, c = network["a"], network["c"]
    a.register("numa", share="partners")
    a.register("athena", share="partners")
    terms(a, C, mode="full")
    network.settle()
    assert len(seen(c)) == 2
    terms(a, C, mode="partial", shared_cis=["athena"])
    network.settle()
    assert seen(c) == ["athena@a"]
    a.do(lambda ticket: ev.DeregisterCi(ticket, "athena", None, True))
    network.settle()
    assert seen(c) == []
    assert [notice["ci"] for notice in c.notices("ci_gone")] == ["numa@a", "athena@a"]


def test_a_partner_that_starts_anew_gets_everything_again() -> None:
    network = chain()
    a, c = network["a"], network["c"]
    a.register("numa", share="partners")
    terms(a, C, mode="full")
    network.settle()
    network.kill("c")
    again = network.add("c", c.saved)
    network.join("b", "c")
    network.settle()
    assert seen(again) == ["numa@a"]


def restarted(network: Network, name: str, *peers: str) -> Member:
    network.settle()
    return network.restart(name, *peers)


def test_after_a_restart_that_meets_nobody_what_was_shared_is_still_there() -> None:
    network = chain()
    a, c = network["a"], network["c"]
    a.register("numa", share="partners")
    terms(a, C, mode="full")
    c = restarted(network, "c")
    network.run(2.5 * sharing.CONFIRM_S)
    assert seen(c) == ["numa@a"]
    # What is said now is newer than what was on the disk.
    network.join("b", "c")
    a.register("athena", share="partners")
    network.settle()
    assert seen(c) == ["athena@a", "numa@a"]
    assert seen(restarted(network, "c")) == ["athena@a", "numa@a"]


def test_an_owner_that_is_there_and_does_not_say_it_again_has_taken_it_back() -> None:
    network = chain()
    a = network["a"]
    a.register("numa", share="partners")
    terms(a, C, mode="full")
    network.settle()
    before = network["c"].saved
    network.kill("c")
    terms(a, C, mode="")
    network.restart("a", "b")  # and knows no more whom it has told what
    c = network.add("c", before)
    told: list[bytes] = []
    c.node.sharing.watch(told.append)
    network.join("b", "c")
    network.settle()
    assert seen(c) == ["numa@a"]
    network.run(2.5 * sharing.CONFIRM_S)
    assert seen(c) == [] and told == [A]
    assert (sharing.TABLE, A) not in c.saved


@pytest.mark.parametrize(("leaves", "away_s"), [(True, 1.0), (True, 500.0), (False, 900.0)])
def test_what_was_taken_back_while_a_partner_was_away_is_told_when_it_is_back(
    leaves: bool, away_s: float
) -> None:
    network = chain()
    a = network["a"]
    a.register("numa", share="partners")
    terms(a, C, mode="full")
    network.run(sharing.AGAIN_S * 0.5)
    before = network["c"].saved
    if leaves:
        network["c"].do(ev.Leave)
        network.settle()
    network.kill("c")
    network.run(away_s)
    terms(a, C, mode="")
    network.settle()
    c = network.add("c", before)
    network.join("b", "c")
    network.settle()
    assert seen(c) == []


def test_what_is_on_the_disk_is_judged_anew() -> None:
    network = chain()
    a, c = network["a"], network["c"]
    a.register("numa", share="partners")
    terms(a, C, mode="full")
    network.settle()
    whole = c.saved[sharing.TABLE, A]
    pack = c.node.env.codec.pack
    unknown = make_keys(9)[1].stack_id
    for source, row in (
        (A, b"nonsense"),
        (A, pack(7)),
        (A, pack([1, 2])),
        (A, pack(["1", [], None])),
        (A, pack([1, {}, None])),
        (unknown, whole),
    ):
        c.saved.pop((sharing.TABLE, A), None)
        c.saved[sharing.TABLE, source] = row
        c = restarted(network, "c")
        network.settle()
        assert seen(c) == [] and (sharing.TABLE, source) not in c.saved
    c.saved[sharing.TABLE, A] = whole
    c.do(lambda ticket: ev.EvictPeer(ticket, A))
    c = restarted(network, "c")
    network.settle()
    assert seen(c) == [] and (sharing.TABLE, A) not in c.saved


def test_what_is_said_again_is_not_written_again() -> None:
    network = chain()
    a, c = network["a"], network["c"]
    share(a, C, [{"name": "numa"}], 1)
    before = c.saved[sharing.TABLE, A]
    share(a, C, [{"name": "numa"}], 2)
    assert c.saved[sharing.TABLE, A] == before
    share(a, C, [{"name": "numa"}], 3)
    share(a, C, [], 4)
    assert c.saved[sharing.TABLE, A] != before


def test_a_snapshot_that_was_lost_comes_again() -> None:
    network = chain()
    a, c = network["a"], network["c"]
    a.register("numa", share="partners")
    terms(a, C, mode="full")
    network.settle()
    c.node.sharing._held.clear()
    network.run(sharing.AGAIN_S * 1.2)
    assert seen(c) == ["numa@a"]


def test_what_a_stack_shared_goes_with_it() -> None:
    network = chain()
    a, c = network["a"], network["c"]
    a.register("numa", share="partners")
    terms(a, C, mode="full")
    network.settle()
    a.do(ev.Leave)
    network.settle()
    assert seen(c) == []
    assert c.node.sharing.of(A) == {}


def test_nobody_is_told_anything_where_nothing_is_shared() -> None:
    network = chain()
    kinds: list[str] = []
    network.on_message = lambda _one, _two, message: kinds.append(type(message).__name__)
    network["a"].register("numa", share="private")
    terms(network["a"], C, mode="full")
    network.settle()
    assert "Forward" not in kinds


def test_an_evicted_partner_is_told_nothing_more() -> None:
    network = chain()
    a = network["a"]
    terms(a, C, mode="full")
    a.register("numa", share="partners")
    network.settle()
    a.do(lambda ticket: ev.EvictPeer(ticket, C))
    a.register("athena", share="partners")
    network.settle()
    assert "athena@a" not in seen(network["c"])
    assert C not in a.node.sharing._told


@pytest.mark.parametrize(
    ("cis", "version"),
    [([{"name": "numa"}], "1"), ("numa", 1), ([{"name": "../x"}, {"name": 5}, 7, {}], 1)],
)
def test_what_is_malformed_in_a_snapshot_is_passed_over(cis: Any, version: Any) -> None:
    network = chain()
    share(network["a"], C, cis, version)
    assert seen(network["c"]) == []


def test_an_older_snapshot_does_not_undo_a_newer_one() -> None:
    network = chain()
    a, c = network["a"], network["c"]
    share(a, C, [{"name": "new"}], 5)
    share(a, C, [{"name": "old"}], 5)
    share(a, C, [{"name": "old"}], 4)
    assert seen(c) == ["new@a"]


def test_snapshots_of_too_many_stacks_are_not_kept() -> None:
    network = chain()
    c = network["c"]
    c.node.sharing._size = sharing.HELD_SIZE_MAX
    share(network["a"], C, [{"name": "numa"}])
    assert seen(c) == []


def test_a_snapshot_that_cannot_be_opened_changes_nothing() -> None:
    network = chain()
    a, c = network["a"], network["c"]
    seal = a.node.deliveries.sealer.seal
    for broken in (True, False):
        whole = seal(Kind.SHARE, C, {"v": 1, "cis": [{"name": "numa"}]}, ttl_s=5.0)
        body = whole.body[:-1] + b"?" if broken else whole.body
        header = whole.header if broken else whole.header._replace(key_id=b"12345678")
        c.node.sharing._on_share(whole._replace(header=header, body=body))
    assert seen(c) == []


def test_one_partner_gets_no_more_than_fits_into_an_envelope() -> None:
    network = chain()
    a = network["a"]
    for number in range(500):
        a.register(
            f"ci{number}", share="partners", description="x" * 300, capabilities=["y" * 60] * 4
        )
    terms(a, C, mode="full")
    network.settle()
    assert 100 < len(seen(network["c"])) < 500
    assert a.notices("ci_not_published")


def test_what_everybody_is_told_is_not_told_to_partners_again() -> None:
    network = chain()
    a, c = network["a"], network["c"]
    a.register("open", share="public")
    a.register("numa", share="partners")
    terms(a, C, mode="full")
    network.settle()
    assert list(c.node.sharing.of(A)) == ["numa"]
    assert seen(c) == ["numa@a", "open@a"]
