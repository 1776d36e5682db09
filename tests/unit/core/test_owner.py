from __future__ import annotations

from typing import Any

import pytest

from tektonmesh.core import owner as ow
from tektonmesh.core.effects import Answer, Save
from tektonmesh.core.equivocation import proof_of_heads, proof_of_keydocs
from tektonmesh.core.head import EPOCH_MAX
from tektonmesh.core.owner import FOREIGN_MAX
from tektonmesh.core.replica import Held
from tektonmesh.core.types import Status, Version
from tektonmesh.errors import LocalError
from tektonmesh.wire.codec import pack, unpack
from tests.support import WALL_S, Author, Member, only, seed_bytes

WALL_MS = int(WALL_S * 1000)
LOTS = ow.EPOCH_LOTS


@pytest.fixture(autouse=True)
def the_lowest_lot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs are the lowest that they may be."""
    monkeypatch.setattr(ow, "EPOCH_LOTS", 1)


def own(member: Member) -> Held:
    return member.replica.owners[member.id]


def count(member: Member) -> int:
    """How many heads were published so far."""
    return sum(change.owner == member.id for change in member.changes)


def lying(member: Member, epoch: int, *, instance: bytes = b"other", hlc: int = WALL_MS) -> None:
    """A head with our signature comes back from somewhere."""
    author = Author(1, epoch=epoch)
    author.hlc = hlc
    author.delta({"ci/former": {}})
    member.replica.apply(author.delta(full=True, instance=instance), 1)
    member.settle()


def put_many(member: Member, many: int, value: dict[str, Any], kind: str = "ci") -> None:
    for n in range(many):
        member.owner.put(f"{kind}/n{n}", value)


# --- start ---------------------------------------------------------------------------------------


def test_the_epoch_is_durable_before_anything_is_published() -> None:
    member = Member("a")
    member.owner.start()
    member.env.deadlines.run_due(member.env.now)
    (save,) = [effect for effect in only(member.env.take(), Save) if effect.ticket is not None]
    assert save.rows == (("meta", b"epoch", pack(WALL_MS)),)
    assert not member.owner.published and not member.replica.has(member.id)
    member.owner.saved(save.ticket + 1)
    assert not member.owner.published
    member.owner.saved(save.ticket)
    assert own(member).version == Version(0, WALL_MS, 1)
    member.owner.saved(save.ticket)
    assert own(member).version.ver == 1


def test_a_restart_raises_the_epoch_even_when_the_clock_went_back() -> None:
    first = Member("a").start()
    second = Member("a", saved=first.disk, wall_s=WALL_S - 10_000).start()
    assert own(second).version == Version(0, WALL_MS + 1, 1)


@pytest.mark.parametrize("row", [b"\xc1", pack("x"), pack(True), pack(-5), pack(EPOCH_MAX)])
def test_a_damaged_epoch_counts_as_none(row: bytes) -> None:
    member = Member("a", saved={("meta", b"epoch"): row}).start()
    assert own(member).version.epoch == WALL_MS


def test_what_a_stack_says_of_itself() -> None:
    member = Member(
        "a",
        listen=("10.0.0.1:7700", "[::1]:7700"),
        relay="peers",
        extra={"version": "9.1", "specialties": ["vision"]},
    ).start()
    key_id, public = member.env.crypto.prekey()
    assert own(member).value("stack/self") == {
        "name": "a",
        "mesh": "test",
        "version": "9.1",
        "box": {"id": key_id, "pk": public},
        "relay": "peers",
        "since": int(WALL_S),
        "specialties": ["vision"],
    }
    assert own(member).value("addr/0") == {"at": "10.0.0.1:7700"}
    assert own(member).value("addr/1") == {"at": "[::1]:7700"}


def test_the_head_commits_to_all_of_it() -> None:
    member = Member("a").start()
    head = own(member).head
    assert head.mesh_id == member.env.identity.mesh_id
    assert head.instance == WALL_MS.to_bytes(6, "big") + member.env.identity.instance
    assert head.hlc == WALL_MS and head.status is Status.UP
    assert head.roots == own(member).record_set.roots()


def test_what_was_put_before_the_first_publish_rides_on_it() -> None:
    member = Member("a")
    member.owner.put("ci/numa", {}, urgent=True)
    member.start()
    assert own(member).keys("ci") == ["ci/numa"]
    assert count(member) == 1


def test_where_a_peer_is_expected_the_first_publish_waits_a_second_for_it() -> None:
    seeds: list[dict[str, Any]] = [
        {"seed_peers": ("x:1",)},
        {"saved": {("address", b"x:1"): b""}},
    ]
    for more in seeds:
        member = Member("a", **more).start()
        assert not member.owner.published
        member.wait(0.9)
        assert not member.owner.published
        member.wait(0.2)
        assert member.owner.published


def test_the_first_word_of_a_peer_whose_clock_is_like_ours_ends_the_wait() -> None:
    member = Member("a", seed_peers=("x:1",)).start()
    member.clock.link_up(1, bytes(32))
    member.clock.on_peer(1, WALL_MS + 4_000, 0.0)
    member.settle()
    assert own(member).head.hlc == WALL_MS + 4_000
    member.clock.link_up(2, seed_bytes("other"))
    member.clock.on_peer(2, WALL_MS, 0.0)
    assert count(member) == 1


def test_one_peer_alone_whose_clock_is_not_like_ours_does_not_end_the_wait() -> None:
    member = Member("a", seed_peers=("x:1",)).start()
    for link in (1, 2):
        member.clock.link_up(link, bytes(32))
        member.clock.on_peer(link, WALL_MS + 50_000, 0.0)
        member.settle()
    assert not member.owner.published
    member.clock.link_up(3, seed_bytes("other"))
    member.clock.on_peer(3, WALL_MS + 100, 0.0)
    member.settle()
    assert own(member).head.hlc == WALL_MS + 100


def test_an_own_head_that_a_peer_still_holds_raises_the_first_epoch() -> None:
    member = Member("a", seed_peers=("x:1",)).start()
    lying(member, WALL_MS + 500)
    member.wait(1.1)
    assert own(member).version == Version(0, WALL_MS + 501, 1)
    assert count(member) == 1


# --- records -------------------------------------------------------------------------------------


def test_changes_of_a_moment_ride_on_one_head() -> None:
    member = Member("a").start()
    for n in range(40):
        member.owner.put(f"ci/n{n}", {})
        member.wait(0.001)
    member.wait(0.1)
    assert count(member) == 2
    assert own(member).version.ver == 2 and own(member).content_version.content_ver == 2
    assert len(own(member).keys("ci")) == 40


def test_urgent_news_go_at_the_end_of_the_turn_and_take_the_others_along() -> None:
    member = Member("a").start()
    for n in range(30):
        member.owner.put("link/x", {"n": n}, urgent=True)
        member.owner.put("ci/numa", {"n": n})
        member.settle()
        assert own(member).value("link/x") == own(member).value("ci/numa") == {"n": n}


def test_sustained_churn_is_published_ever_slower_and_nothing_is_lost() -> None:
    member = Member("a").start()
    for n in range(1200):
        member.owner.put("ci/numa", {"n": n})
        member.wait(0.05)
    assert count(member) < 45
    member.wait(6)
    assert own(member).value("ci/numa") == {"n": 1199}


def test_a_burst_of_200_registrations_takes_a_handful_of_heads() -> None:
    member = Member("a").start()
    for n in range(200):
        member.owner.put(f"ci/n{n}", {})
        member.wait(0.005)
    member.wait(1)
    assert count(member) <= 15
    assert len(own(member).keys("ci")) == 200


def test_a_record_is_read_as_it_was_last_put() -> None:
    member = Member("a").start()
    assert member.owner.get("ci/numa") is None
    member.owner.put("ci/numa", {"v": 1})
    assert member.owner.get("ci/numa") == {"v": 1}
    member.wait(1)
    member.owner.delete("ci/numa")
    assert member.owner.get("ci/numa") is None
    assert own(member).value("ci/numa") == {"v": 1}
    member.wait(1)
    assert own(member).value("ci/numa") is None


def test_saying_the_same_again_or_changing_back_publishes_nothing() -> None:
    member = Member("a").start()
    member.owner.put("ci/numa", {"v": 1})
    member.wait(1)
    member.owner.put("ci/numa", {"v": 1})
    member.owner.delete("ci/nobody")
    member.owner.put("ci/brief", {})
    member.owner.delete("ci/brief")
    member.wait(1)
    assert count(member) == 2


def test_a_record_over_its_quota_is_refused_and_nothing_changes() -> None:
    member = Member("a").start()
    with pytest.raises(LocalError) as caught:
        member.owner.put("ci/numa", {"description": "x" * 3000})
    assert caught.value.code.name == "too_large"
    assert member.owner.get("ci/numa") is None


def test_more_records_than_an_owner_may_have_are_refused() -> None:
    member = Member("a").start()
    put_many(member, 4095, {}, "addr")
    for key in ("ci/more", "addr/more"):
        with pytest.raises(LocalError, match="room"):
            member.owner.put(key, {})
    member.owner.put("addr/n0", {"v": 2})
    member.owner.delete("addr/n1")
    member.owner.put("ci/more", {})
    member.wait(1)
    assert own(member).value("ci/more") == {}


def test_more_bytes_than_an_owner_may_have_are_refused() -> None:
    member = Member("a").start()
    with pytest.raises(LocalError, match="room"):
        put_many(member, 600, {"d": "x" * 2000})
    with pytest.raises(LocalError, match="room"):
        put_many(member, 40, {"d": "x" * 2000}, "addr")
    member.wait(1)
    assert 500 * 2000 < own(member).record_set.size <= 2**20


def test_cis_leave_room_for_the_records_about_the_stack_itself() -> None:
    member = Member("a").start()
    with pytest.raises(LocalError) as caught:
        put_many(member, 4000, {})
    assert caught.value.code.name == "busy"
    member.owner.delete("ci/n0")
    member.owner.put("ci/again", {})
    put_many(member, 255, {"peer": bytes(32)}, "link")
    member.wait(1)
    assert len(own(member).records) == 4096


def test_a_ci_may_shrink_while_no_other_has_room() -> None:
    member = Member("a").start()
    with pytest.raises(LocalError, match="room"):
        put_many(member, 600, {"d": "x" * 2000})
    member.owner.put("ci/n0", {"d": "x"})
    member.owner.put("ci/other", {"d": "x" * 1900})
    with pytest.raises(LocalError, match="room"):
        member.owner.put("ci/n0", {"d": "x" * 2000})


def test_no_epoch_is_left_after_the_last_one() -> None:
    member = Member("a", saved={("meta", b"epoch"): pack(EPOCH_MAX - 1)}).start()
    assert own(member).version.epoch == EPOCH_MAX
    member.owner.outbid(Version(0, 5, 1))
    member.settle()
    assert member.notices("epoch_exhausted") == [{"epoch": 5}]


# --- refresh -------------------------------------------------------------------------------------


def test_a_refresh_keeps_the_content_version_and_renews_the_lease() -> None:
    member = Member("a").start()
    before = own(member).head
    member.wait(111)
    head = own(member).head
    assert head.ver == before.ver + 1 and head.content_ver == before.content_ver
    assert 90_000 <= head.hlc - before.hlc <= 110_000
    assert member.changes[-1].kind == "refresh"


def test_the_lease_is_three_refreshes_and_grows_with_the_owners() -> None:
    member = Member("a", refresh_min_s=0.1, refresh_max_s=0.25).start()
    assert own(member).head.lease_s == 1
    assert Member("a").start().replica.owners[member.id].head.lease_s == 300
    slow = Member("a", refresh_min_s=400.0, refresh_max_s=500.0).start()
    assert own(slow).head.lease_s == 900


def test_a_publish_puts_off_the_refresh() -> None:
    member = Member("a").start()
    member.wait(80)
    member.owner.put("ci/numa", {})
    member.wait(80)
    assert count(member) == 2


def test_after_a_sleep_a_stack_says_at_once_that_it_is_here() -> None:
    member = Member("a").start()
    member.clock.suspended(3600.0)
    member.settle()
    assert count(member) == 2
    assert own(member).head.hlc >= WALL_MS + 3_600_000
    member.owner.leave(1)
    member.clock.suspended(3600.0)
    member.settle()
    assert count(member) == 3
    silent = Member("b", seed_peers=("x:1",))
    silent.owner.start()
    silent.clock.suspended(3600.0)
    silent.settle()
    assert not silent.owner.published


def test_a_new_prekey_rides_on_the_next_refresh() -> None:
    member = Member("a").start()
    member.env.crypto.add_prekey(seed_bytes("tomorrow"))
    member.wait(111)
    about = own(member).value("stack/self") or {}
    assert about["box"]["pk"] == member.env.crypto.prekey()[1]
    assert member.changes[-1].kind == "content"


def test_a_new_proof_of_membership_is_told_to_all() -> None:
    member = Member("a").start()
    content = own(member).content_version
    member.owner._proof_changed()
    member.settle()
    assert own(member).content_version.content_ver == content.content_ver + 1
    assert member.changes[-1].kind == "content" and member.changes[-1].keys == ()
    unstarted = Member("b")
    unstarted.owner._proof_changed()
    assert not unstarted.owner.published


# --- leaving -------------------------------------------------------------------------------------


def answers(effects: list[Any]) -> list[Answer]:
    return only(effects, Answer)


def test_a_stack_that_leaves_says_so_and_takes_its_records_back() -> None:
    member = Member("a", listen=("x:1",)).start()
    member.owner.put("ci/numa", {})
    member.wait(1)
    member.owner.put("ci/late", {})
    member.owner.leave(7)
    assert own(member).left and own(member).head.lease_s == 900
    assert list(own(member).records) == ["stack/self"]
    assert member.changes[-1].kind == "left"
    assert answers(member.wait(0.2)) == []
    assert answers(member.wait(0.2)) == [Answer(7, {"left": True})]
    member.owner.put("link/x", {}, urgent=True)
    member.owner.leave(8)
    assert answers(member.wait(2)) == [Answer(8, {"left": True})]
    member.wait(1000)
    assert count(member) == 3


def test_a_stack_that_drains_says_so_at_once_and_once() -> None:
    member = Member("a").start()
    assert not member.owner.draining
    before = own(member).content_version.content_ver
    member.owner.drain()
    assert own(member).head.status is Status.DRAINING and member.owner.draining
    assert own(member).content_version.content_ver == before + 1, "a refresh may travel slowly"
    assert member.changes[-1].kind == "content"
    heads = count(member)
    member.owner.drain()
    assert count(member) == heads
    member.owner.put("ci/numa", {})
    member.wait(1)
    assert own(member).value("ci/numa") == {} and own(member).head.status is Status.DRAINING
    member.owner.leave(7)
    assert own(member).left
    member.owner.drain()
    assert own(member).left and not member.owner.draining


def test_a_stack_that_drains_before_its_first_publish_says_so_with_it() -> None:
    member = Member("a", seed_peers=("x:1",)).start()
    member.owner.drain()
    assert not member.owner.published
    member.wait(2)
    assert own(member).head.status is Status.DRAINING


def test_a_stack_that_never_published_leaves_at_once_and_stays_silent() -> None:
    member = Member("a", seed_peers=("x:1",)).start()
    member.owner.leave(7)
    assert answers(member.settle()) == [Answer(7, {"left": False})]
    member.wait(5)
    assert not member.owner.published


# --- our own heads from elsewhere ----------------------------------------------------------------


def test_a_former_self_with_a_higher_epoch_is_outbid_with_everything() -> None:
    member = Member("a").start()
    member.owner.put("ci/numa", {})
    member.wait(1)
    lying(member, WALL_MS + 10**9, hlc=WALL_MS - 5000)
    assert own(member).version == Version(0, WALL_MS + 10**9 + 1, 1)
    assert own(member).keys("ci") == ["ci/numa"]
    assert unpack(member.disk["meta", b"epoch"]) == WALL_MS + 10**9 + 1
    member.wait(200)
    assert own(member).version.ver >= 2


def test_an_older_own_head_is_passed_over() -> None:
    member = Member("a").start()
    lying(member, WALL_MS - 1)
    assert own(member).version == Version(0, WALL_MS, 1)


def test_several_former_selves_are_outbid_each() -> None:
    member = Member("a").start()
    for n in range(1, 4):
        lying(member, WALL_MS + n * 1000, instance=bytes([n]), hlc=WALL_MS - 5000)
        lying(member, WALL_MS + n * 1000 + 500, instance=bytes([n]), hlc=WALL_MS - 4000)
    assert own(member).version.epoch == WALL_MS + 3501
    assert member.notices("clone_fenced") == []


def test_a_clone_that_answers_is_outbid_once_and_then_we_fall_silent() -> None:
    member = Member("a").start()
    lying(member, WALL_MS + 1000, hlc=WALL_MS + 1000)
    assert own(member).version.epoch == WALL_MS + 1001
    member.owner.put("ci/pending", {})
    lying(member, WALL_MS + 2000, hlc=WALL_MS + 2000)
    (notice,) = member.notices("clone_fenced")
    assert notice == {"instance": b"other".hex(), "epoch": WALL_MS + 2000}
    published = count(member)
    member.owner.put("ci/numa", {}, urgent=True)
    lying(member, WALL_MS + 3000, hlc=WALL_MS + 3000)
    member.owner._proof_changed()
    member.wait(500)
    assert count(member) == published
    member.owner.leave(7)
    assert answers(member.settle()) == [Answer(7, {"left": False})]


def test_two_machines_that_outbid_each_other_in_one_millisecond_take_different_epochs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ow, "EPOCH_LOTS", LOTS)
    epochs = []
    for seed in range(20):
        member = Member("a", rng_seed=seed).start()
        lying(member, WALL_MS + 1000, hlc=WALL_MS - 5000)
        epochs.append(own(member).version.epoch)
    assert min(epochs) > WALL_MS + 1000 and max(epochs) <= WALL_MS + 1000 + LOTS
    assert len(dict.fromkeys(epochs)) >= 19


def test_a_clone_that_started_earlier_is_outbid_as_often_as_it_speaks() -> None:
    member = Member("a").start()
    earlier = (WALL_MS - 5000).to_bytes(6, "big") + b"earlier!"
    for n in range(1, 6):
        lying(member, WALL_MS + n * 1000, instance=earlier, hlc=WALL_MS + n * 1000)
        assert own(member).version.epoch == WALL_MS + n * 1000 + 1
    assert member.notices("clone_fenced") == []


def test_of_two_clones_the_newest_start_wins() -> None:
    old, new = Member("a", instance=b"old").start(), Member("a", instance=b"new", now=2000.0)
    new.clock.on_wall(WALL_S + 60)
    new.start()
    for member in (old, new, old, new, old):
        other = new if member is old else old
        member.env.now += 100 if member is old else 0
        delta = other.replica.delta_for(other.id, None, with_keydoc=True)
        member.replica.apply(delta, 1)
        member.settle()
    assert len(old.notices("clone_fenced")) == 1
    assert new.notices("clone_fenced") == []


def test_a_copy_of_the_running_machine_makes_us_raise_the_epoch() -> None:
    member = Member("a").start()
    instance = own(member).head.instance
    author = Author(1, epoch=WALL_MS)
    member.replica.apply(author.delta({"ci/other": {}}, instance=instance), 1)
    member.settle()
    assert own(member).version == Version(0, WALL_MS + 1, 1)
    assert own(member).head.instance != instance


def accuse(member: Member, epoch: int, *, keys: bool = False) -> None:
    """Somebody shows the proof that this stack said two things at once."""
    author = Author(1, epoch=epoch)
    if keys:
        proof = proof_of_keydocs(author.keydoc, author.twin().rotate(0, 30).keydoc)
    else:
        proof = proof_of_heads(author.sign(), author.sign(instance=b"twin"), author.keydoc)
    member.replica.take_proof(proof)
    member.settle()


def test_a_proof_against_us_makes_us_raise_the_epoch() -> None:
    member = Member("a").start()
    accuse(member, WALL_MS)
    assert own(member).version == Version(0, WALL_MS + 1, 1)
    assert not own(member).equivocated
    assert member.notices("self_contradicted") == [{"keys": False}]
    assert member.notices("stack_equivocated") == []
    accuse(member, WALL_MS + 7000)
    assert own(member).equivocated
    member.wait(1.0)
    assert own(member).version.epoch == WALL_MS + 7001


def test_a_stack_that_is_accused_again_and_again_answers_less_and_less_often() -> None:
    member = Member("a").start()
    answers = []
    for n in range(1200):
        epoch = own(member).version.epoch
        accuse(member, epoch)
        member.wait(1.0)
        if own(member).version.epoch > epoch:
            answers.append(n)
    assert len(answers) < 15
    member.wait(2000.0)
    assert not own(member).equivocated
    for _ in range(2):
        accuse(member, own(member).version.epoch)
        member.wait(1.5)
    assert not own(member).equivocated


def test_a_proof_that_something_else_has_outdone_needs_no_answer() -> None:
    member = Member("a").start()
    accuse(member, WALL_MS)
    accuse(member, own(member).version.epoch)
    lying(member, WALL_MS + 9000, hlc=WALL_MS - 5000)
    assert not own(member).equivocated
    before = own(member).version.epoch
    member.wait(10.0)
    assert own(member).version.epoch == before


def test_a_proof_of_what_we_are_past_or_are_leaving_behind_is_no_news() -> None:
    member = Member("a").start()
    accuse(member, WALL_MS - 1)
    assert own(member).version.epoch == WALL_MS
    member._carry_out = lambda _effect: None  # type: ignore[method-assign]
    accuse(member, WALL_MS)
    accuse(member, WALL_MS)
    assert len(member.notices("self_contradicted")) == 1


def test_a_proof_that_our_root_key_signed_two_documents_is_for_people() -> None:
    member = Member("a").start()
    accuse(member, 0, keys=True)
    assert own(member).version.epoch == WALL_MS
    assert own(member).equivocated
    assert member.notices("self_contradicted") == [{"keys": True}]
    member.wait(200)
    assert own(member).equivocated


def test_a_fenced_stack_answers_no_proof() -> None:
    member = Member("a").start()
    for n in (1000, 2000):
        lying(member, WALL_MS + n, hlc=WALL_MS + n)
    accuse(member, WALL_MS + 10_000)
    assert member.notices("self_contradicted") == []


def test_two_copies_of_one_running_machine_are_told_apart_and_the_later_one_stays() -> None:
    one, two = Member("a").start(), Member("a").start()
    for at, member in enumerate((one, two)):
        member.env.now += 1000 * (at + 1)
        member.owner._publish()
        member.settle()
    for _ in range(4):
        for member, other in ((one, two), (two, one)):
            member.env.now += 1.0
            member.replica.apply(other.replica.delta_for(other.id, None, with_keydoc=True), 1)
            member.settle()
    fenced = [member for member in (one, two) if member.notices("clone_fenced")]
    assert len(fenced) == 1


def test_other_runs_are_remembered_up_to_a_bound() -> None:
    member = Member("a").start()
    for n in range(2 * FOREIGN_MAX):
        lying(member, WALL_MS + n * 1000, instance=b"%03d" % n)
    assert len(member.owner._foreign) == FOREIGN_MAX


def test_an_epoch_that_cannot_be_outbid_makes_us_fall_silent() -> None:
    member = Member("a").start()
    lying(member, EPOCH_MAX, hlc=WALL_MS - 5000)
    member.owner.put("ci/numa", {}, urgent=True)
    member.wait(300)
    assert member.notices("epoch_exhausted") == [{"epoch": EPOCH_MAX}]
    assert count(member) == 1


def test_who_left_does_not_come_back_to_outbid() -> None:
    member = Member("a").start()
    member.owner.leave(1)
    lying(member, WALL_MS + 1000, hlc=WALL_MS - 5000)
    member.wait(1)
    assert own(member).left


# --- going on ------------------------------------------------------------------------------------


def resumed() -> tuple[Member, Member]:
    """A stack that published, and one that goes on from what the first said."""
    first = Member("a").start()
    first.owner.put("stack/self", {"since": 7})
    put_many(first, 3, {"v": 1})
    first.wait(1)
    second = Member("a")
    second.replica.owners[second.id] = own(first).copy()
    second.owner.resume(own(second))
    return first, second


def test_who_resumes_publishes_nothing_at_once() -> None:
    first, second = resumed()
    assert second.owner.published
    assert own(second).version == own(first).version
    second.wait(5)
    assert count(second) == 0
    assert [e for e in only(second.effects, Save) if e.ticket is not None] == []


def test_who_resumes_goes_on_from_its_last_version_in_the_same_epoch() -> None:
    first, second = resumed()
    before = own(first).version
    assert second.owner.get("ci/n1") == {"v": 1}
    second.owner.put("ci/late", {}, urgent=True)
    second.settle()
    assert own(second).version == before._replace(ver=before.ver + 1)
    assert own(second).content_version.content_ver == own(first).content_version.content_ver + 1
    assert set(own(second).records) == {*own(first).records, "ci/late"}


def test_who_resumes_refreshes_in_its_turn() -> None:
    _first, second = resumed()
    second.wait(second.env.settings.refresh_max_s)
    assert count(second) >= 1


def test_nobody_resumes_from_the_head_of_another_run() -> None:
    first, _second = resumed()
    other = Member("a", instance=b"another!")
    with pytest.raises(AssertionError, match="epoch"):
        other.owner.resume(own(first).copy())
