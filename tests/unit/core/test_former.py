"""Keys of before the present ones: how long what they made counts, and when it never does."""

from __future__ import annotations

from typing import Any

import pytest

from tektonmesh.core import former as fm
from tektonmesh.core.effects import Save
from tektonmesh.core.former import Former
from tektonmesh.core.keydoc import KeyDoc, hash_doc
from tektonmesh.core.machine import Env
from tektonmesh.core.meshtime import MeshTime
from tektonmesh.core.types import Saved
from tektonmesh.wire.codec import Codec, pack
from tests.support import WALL_S, make_env, make_keys, only

CODEC = Codec()
KEYS = make_keys(2)[0]
NEXT = make_keys(3)[0]
FIRST = KeyDoc(KEYS.root_public, KEYS.stack_id, 0, KEYS.op_public, KEYS.box_public)


def after(before: KeyDoc, **changes: Any) -> KeyDoc:
    """The document that follows `before`, by default with grace."""
    fields: dict[str, Any] = {
        "root_pk": KEYS.root_public,
        "stack_id": KEYS.stack_id,
        "key_epoch": before.key_epoch + 1,
        "op_pk": NEXT.op_public,
        "box_pk": NEXT.box_public,
        "prev_hash": hash_doc(before.encode(CODEC)),
        "grace": True,
    }
    return KeyDoc(**fields | changes)


def open_former(saved: Saved | None = None) -> tuple[Env, Former]:
    env, saved = make_env(), saved or {}
    return env, Former(env, MeshTime(env, saved, WALL_S), saved)


def disk(env: Env) -> Saved:
    rows: Saved = {}
    for effect in env.take():
        for table, key, value in getattr(effect, "rows", ()):
            rows.pop((table, key), None)
            if value is not None:
                rows[table, key] = value
    return rows


def test_the_keys_before_count_beside_those_that_follow_them_with_grace() -> None:
    _, former = open_former()
    second = after(FIRST)
    assert former.of(second) is None
    former.note(FIRST, second)
    assert former.of(second) == FIRST


def test_they_stop_counting_when_all_that_they_made_has_ended() -> None:
    env, former = open_former()
    second = after(FIRST)
    former.note(FIRST, second)
    env.now += fm.GRACE_MS / 1000.0 - 1.0
    assert former.of(second) == FIRST
    env.now += 1.0
    assert former.of(second) is None


@pytest.mark.parametrize(
    "changes", [{"grace": False}, {"prev_hash": bytes(32)}, {"key_epoch": 2}], ids=str
)
def test_revoked_keys_and_those_that_are_not_the_ones_before_do_not_count(
    changes: dict[str, Any],
) -> None:
    _, former = open_former()
    second = after(FIRST, **changes)
    former.note(FIRST, second)
    assert former.of(second) is None and len(former) == 0


def test_a_revocation_ends_the_grace_of_the_rotation_before_it() -> None:
    env, former = open_former()
    second = after(FIRST)
    former.note(FIRST, second)
    third = after(second, grace=False)
    former.note(second, third)
    assert former.of(third) is None and former.of(second) is None
    assert disk(env) == {}


def test_an_older_document_changes_nothing() -> None:
    _, former = open_former()
    second = after(FIRST)
    former.note(FIRST, second)
    former.note(second, FIRST)
    former.note(second, second)
    assert former.of(second) == FIRST


def test_the_grace_outlives_a_restart_and_a_damaged_row_grants_none() -> None:
    env, former = open_former()
    second = after(FIRST)
    former.note(FIRST, second)
    saved = disk(env)
    assert open_former(saved)[1].of(second) == FIRST
    key = ("former", KEYS.stack_id)
    for damaged in (b"\xc1", pack([1]), pack([b"", 5]), pack([FIRST.encode(CODEC), True])):
        env, again = open_former({key: damaged})
        assert again.of(second) is None
        assert [save.rows for save in only(env.take(), Save)] == [((*key, None),)]


def test_what_was_kept_for_a_forgotten_stack_is_gone() -> None:
    env, former = open_former()
    second = after(FIRST)
    former.note(FIRST, second)
    former.forget(KEYS.stack_id)
    former.forget(KEYS.stack_id)
    assert former.of(second) is None and disk(env) == {}
