"""How owners end, through a replica whose clock runs."""

from __future__ import annotations

import pytest

from tektonmesh.core import intake, leases, replica
from tektonmesh.core.layers import Layered
from tektonmesh.core.leases import RESYNC_S
from tektonmesh.core.replica import Applied
from tektonmesh.core.types import Status, Version
from tektonmesh.wire.codec import pack
from tests.support import WALL_S, Author, Member

LINK = 1
LEASE_S, SLACK_S = 300, 30


def holding(member: Member, n: int = 2) -> Author:
    author = Author(n)
    values = {"stack/self": {"name": "b"}, "addr/0": {"at": "x:1"}, "ci/numa": {}}
    assert member.replica.apply(author.delta(values), LINK) is Applied.APPLIED
    return author


def leave(member: Member, author: Author) -> None:
    author.delta({}, delete=("addr/0", "ci/numa"))
    delta = author.delta(full=True, status=Status.LEFT, lease_s=900)
    assert member.replica.apply(delta, LINK) is Applied.APPLIED


def kinds(member: Member) -> list[str]:
    return [change.kind for change in member.changes]


def test_after_a_sleep_owners_have_a_minute_to_be_heard_of_again() -> None:
    member = Member("a").start()
    author, silent = holding(member, 50), holding(member, 51)
    member.clock.suspended(8 * 3600.0)
    member.wait(RESYNC_S - 1.0)
    assert member.replica.live(author.id) and member.replica.live(silent.id)
    author.hlc = member.clock.now_ms()
    assert member.replica.apply(author.delta(), LINK) is Applied.REFRESHED
    member.wait(2.0)
    assert member.replica.live(author.id)
    assert not member.replica.live(silent.id)


def test_an_owner_that_stays_silent_expires_after_its_lease_and_the_slack() -> None:
    member = Member("a")
    author = holding(member)
    member.wait(LEASE_S + SLACK_S)
    assert member.replica.live(author.id)
    member.wait(0.1)
    assert not member.replica.live(author.id)
    assert member.replica.has(author.id)
    assert member.shown(author.id) == {
        "stack/self": pack({"name": "b"}),
        "addr/0": pack({"at": "x:1"}),
    }
    assert member.changes[-1].kind == "expired" and member.changes[-1].keys == ("ci/numa",)
    assert member.replica.count() == 0
    assert [entry.owner for entry in member.replica.entries(())] == []


def test_a_refresh_renews_the_lease() -> None:
    member = Member("a")
    author = holding(member)
    member.wait(200)
    author.hlc += 200_000
    member.replica.apply(author.delta(keydoc=False), LINK)
    member.wait(LEASE_S)
    assert member.replica.live(author.id)


def test_the_lease_left_is_shown() -> None:
    member = Member("a").start()
    author = holding(member)
    member.wait(100)
    assert member.replica.lease_left_s(author.id) == pytest.approx(200)
    member.wait(215)
    assert member.replica.lease_left_s(author.id) == 0
    member.wait(100)
    assert member.replica.lease_left_s(author.id) == 0
    assert member.replica.lease_left_s(member.id) > 0


def test_an_expired_owner_comes_back_with_a_fresh_head_only() -> None:
    member = Member("a")
    author = holding(member)
    old = author.delta({"ci/x": {}}, full=True)
    member.wait(400)
    assert member.replica.apply(old, LINK) is Applied.STALE
    author.hlc += 400_000
    assert member.replica.apply(author.delta(keydoc=False), LINK) is Applied.NEED
    assert member.replica.apply(author.delta(full=True), LINK) is Applied.APPLIED
    assert kinds(member) == ["new", "expired", "new"]
    assert sorted(member.shown(author.id) or {}) == ["addr/0", "ci/numa", "ci/x", "stack/self"]


def test_a_forgotten_owner_leaves_a_floor_below_which_nothing_is_taken() -> None:
    member = Member("a", forget_s=500.0)
    author = holding(member)
    floor = Version(0, author.epoch, author.ver)
    member.wait(501)
    assert not member.replica.has(author.id)
    assert kinds(member) == ["new", "expired", "forgotten"]
    assert member.disk["floor", author.id] == pack([*floor, author.hlc])
    assert [key for key in member.disk if key[0] != "floor"] == []
    author.hlc += 501_000
    author.ver = -1
    assert member.replica.apply(author.delta(full=True), LINK) is Applied.STALE
    author.ver = floor.ver - 1
    assert member.replica.apply(author.delta(full=True), LINK) is Applied.APPLIED


def test_the_floor_outlives_a_restart() -> None:
    member = Member("a", forget_s=500.0)
    author = holding(member)
    member.wait(501)
    again = Member("a", saved=member.disk)
    author.ver -= 2
    assert again.replica.apply(author.delta(full=True), LINK) is Applied.STALE


def test_a_left_owner_is_kept_for_a_thousand_seconds() -> None:
    member = Member("a")
    author = holding(member)
    leave(member, author)
    assert member.changes[-1].kind == "left"
    member.wait(929)
    assert kinds(member) == ["new", "left"]
    member.wait(10)
    assert kinds(member) == ["new", "left", "expired"]
    assert member.replica.owners[author.id].left
    member.wait(60)
    assert member.replica.has(author.id)
    member.wait(2)
    assert not member.replica.has(author.id)


def test_no_older_head_is_fresh_any_more_when_a_left_owner_is_forgotten() -> None:
    member = Member("a")
    author = holding(member)
    old = author.delta({"ci/x": {}}, full=True, lease_s=900)
    leave(member, author)
    for _ in range(11):
        member.wait(100)
        assert member.replica.apply(old, LINK) is Applied.STALE
    assert not member.replica.has(author.id)


def test_while_the_clock_is_in_doubt_nobody_ends() -> None:
    member = Member("a").start()
    author = holding(member)
    peer = bytes(32)
    member.clock.link_up(7, peer)
    member.clock.on_peer(7, int(WALL_S * 1000) + 10_000_000, 0.0)
    assert member.clock.alarm
    member.wait(600)
    assert member.replica.live(author.id)
    member.clock.drop_link(7)
    assert not member.clock.alarm
    member.wait(61)
    assert not member.replica.live(author.id)


def test_a_lease_follows_the_mesh_time_that_was_slewed() -> None:
    member = Member("a").start()
    author = holding(member)
    member.clock.link_up(7, bytes(32))
    member.clock.on_peer(7, int(WALL_S * 1000) - 20_000, 0.0)
    member.wait(LEASE_S + SLACK_S + 10)
    assert member.replica.live(author.id)
    member.wait(11)
    assert not member.replica.live(author.id)


def test_in_a_full_replica_the_longest_expired_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "OWNERS_MAX", 2)
    monkeypatch.setattr(replica, "OWNERS_MAX", 2)
    member = Member("a")
    first, second, third = holding(member), holding(member, 3), Author(4)
    member.wait(400)
    third.hlc += 400_000
    assert member.replica.apply(third.delta({}), LINK) is Applied.APPLIED
    assert not member.replica.has(first.id)
    assert member.replica.has(second.id)
    assert kinds(member)[-2:] == ["forgotten", "new"]


def test_floors_are_bounded_and_the_oldest_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "FLOORS_MAX", 2)
    member = Member("a")
    authors = [holding(member, n) for n in (2, 3, 4)]
    for author in authors:
        member.replica.drop(author.id)
    member.settle()
    assert [key[1] for key in member.disk if key[0] == "floor"] == [a.id for a in authors[1:]]


def test_floors_go_when_they_are_old() -> None:
    member = Member("a", forget_s=500.0)
    first = holding(member)
    member.replica.drop(first.id)
    member.wait(1001)
    second = Author(3)
    second.hlc += 1_001_000
    member.replica.apply(second.delta({}), LINK)
    member.replica.drop(second.id)
    member.settle()
    assert [key[1] for key in member.disk if key[0] == "floor"] == [second.id]


def test_dropping_whom_nobody_knows_is_harmless() -> None:
    member = Member("a")
    member.replica.drop(Author().id)
    assert member.settle() == []


def test_our_own_lease_runs_as_long_as_we_do() -> None:
    member = Member("a", refresh_min_s=10_000.0, refresh_max_s=20_000.0).start()
    member.wait(5000)
    assert member.replica.live(member.id)


def test_ten_thousand_owners_have_one_deadline() -> None:
    member = Member("a")
    for n in range(2, 6):
        holding(member, n)
    assert [key for key in member.env.deadlines._live if "lease" in str(key)] == [
        "leases",
        "half-leases",
    ]


def over(base: Member, *, now: float, wall_s: float) -> tuple[Member, leases.Leases, list[str]]:
    """Leases of another stack over those of `base`, whose clock started elsewhere; what they do."""
    member = Member("z", now=now, wall_s=wall_s)
    owners, said = Layered(base.replica.owners), []
    held = leases.Leases(
        member.env,
        member.clock,
        owners,
        {},
        lambda owner, kind, _keys: (
            said.append(f"{kind} {owners[owner].expired}")
            if kind == "expired"
            else said.append(kind)
        ),
        base.replica._leases,
    )
    return member, held, said


@pytest.mark.parametrize("ahead_s", [0.0, 20.0, -20.0])
def test_leases_over_a_base_end_by_their_own_clock_and_leave_the_base_alone(
    ahead_s: float,
) -> None:
    base = Member("a", forget_s=500.0)
    author = holding(base)
    base.wait(100)
    member, held, said = over(base, now=7.0, wall_s=WALL_S + 100.0 + ahead_s)
    member.wait(230.0 - ahead_s)
    assert said == []
    member.wait(0.1)
    assert said == ["expired True"]
    assert not base.replica.owners[author.id].expired
    assert held.can_make_room() and not base.replica._leases.can_make_room()
    held.forget(author.id)
    assert said == ["expired True", "forgotten"]
    assert held.floor(author.id) == Version(0, author.epoch, author.ver)
    assert base.replica._leases.floor(author.id) == Version(0, 0, 0)
    assert base.replica.has(author.id)


def test_what_the_base_forgot_stays_forgotten_and_what_expired_there_makes_room() -> None:
    base = Member("a")
    gone, silent = holding(base, 2), holding(base, 3)
    base.wait(400)
    base.replica.drop(gone.id)
    _member, held, said = over(base, now=7.0, wall_s=WALL_S + 400.0)
    assert held.floor(gone.id) == Version(0, gone.epoch, gone.ver)
    held.make_room()
    assert said == ["forgotten"]
    assert base.replica.has(silent.id)
