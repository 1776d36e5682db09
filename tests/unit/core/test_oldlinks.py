"""Links under keys that were replaced: at once after a theft, one after another as a habit."""

from __future__ import annotations

import pytest

from tektonmesh.core.effects import Audit, CloseLink
from tektonmesh.core.events import PeerRefused
from tektonmesh.core.keydoc import KeyDoc
from tektonmesh.core.machine import Env
from tektonmesh.core.oldlinks import OLD_LINK_S, QUIET_S, OldLinks
from tests.support import advance, make_env, make_keys, only

B, C = make_keys(2)[0], make_keys(3)[0]


def doc(key_epoch: int, *, grace: bool = False, of: object = B) -> KeyDoc:
    keys = C if of is C else B
    return KeyDoc(
        keys.root_public, keys.stack_id, key_epoch, keys.op_public, keys.box_public, grace=grace
    )


def linked() -> tuple[Env, OldLinks]:
    env = make_env()
    links = OldLinks(env)
    links.link_up(7, doc(0))
    links.link_up(8, doc(0, of=C))
    return env, links


def closed(env: Env) -> list[tuple[int, str]]:
    return [(effect.link, effect.code) for effect in only(env.take(), CloseLink)]


def test_nothing_ends_while_the_keys_are_those_of_the_link() -> None:
    env, links = linked()
    links.keys_changed(doc(0))
    assert closed(env) == [] and advance(env, 1000.0) == []


@pytest.mark.hostile("stolen-keys")
def test_a_link_under_revoked_keys_ends_at_once_and_that_is_audited() -> None:
    env, links = linked()
    links.keys_changed(doc(1))
    effects = env.take()
    assert [(one.link, one.code) for one in only(effects, CloseLink)] == [(7, "old_keys")]
    (entry,) = only(effects, Audit)
    assert (entry.kind, entry.data["key_epoch"]) == ("old_keys", 1)


def test_a_link_under_keys_that_were_replaced_as_a_habit_ends_in_its_time() -> None:
    env, links = linked()
    links.keys_changed(doc(1, grace=True))
    assert closed(env) == []
    assert only(advance(env, OLD_LINK_S / 2 - 0.1), CloseLink) == []
    links.keys_changed(doc(1, grace=True))  # as at every change of a record: not put off
    assert [one.link for one in only(advance(env, OLD_LINK_S / 2 + 0.1), CloseLink)] == [7]


def test_a_link_that_is_two_key_epochs_behind_ends_at_once() -> None:
    env, links = linked()
    links.keys_changed(doc(1, grace=True))
    links.keys_changed(doc(2, grace=True))
    assert closed(env) == [(7, "old_keys")]
    assert only(advance(env, OLD_LINK_S), CloseLink) == []


@pytest.mark.hostile("stolen-keys")
def test_whoever_shows_old_keys_again_and_again_is_audited_once_in_a_while() -> None:
    env, links = linked()
    event = PeerRefused(B.stack_id, "b", "10.0.0.9:1", False, "old_keys")
    for _ in range(3):
        links.refused(event)
    env.now += QUIET_S
    links.refused(event)
    entries = only(env.take(), Audit)
    assert [entry.kind for entry in entries] == ["old_keys_refused"] * 2
    assert entries[0].data["address"] == "10.0.0.9:1"


def test_the_links_of_one_stack_can_be_begun_anew() -> None:
    env, links = linked()
    links.relink(C.stack_id, "Changed.")
    assert closed(env) == [(8, "relink")]


def test_a_link_that_is_gone_is_not_ended() -> None:
    env, links = linked()
    links.keys_changed(doc(1, grace=True))
    links.link_down(7)
    links.link_down(7)
    links.keys_changed(doc(2))
    assert closed(env) == [] and only(advance(env, OLD_LINK_S), CloseLink) == []
