"""The keys of a stack: signatures, prekeys and what is derived from names and secrets."""

from __future__ import annotations

import pytest

from tektonmesh.core.ids import stack_id_of
from tektonmesh.core.types import SealKey
from tektonmesh.errors import LocalError, RemoteError
from tektonmesh.wire.keys import mesh_id_of, mesh_key_of, prekey_id, verify
from tektonmesh.wire.limits import PREKEYS_MAX
from tests.support import make_keys, seal_key_of

KEYS, _ = make_keys(1)
OTHER, _ = make_keys(2)


def test_the_same_seeds_make_the_same_keys() -> None:
    again, _ = make_keys(1)
    assert again.root_public == KEYS.root_public
    assert again.prekey() == KEYS.prekey()
    assert again.sign(b"c", b"data") == KEYS.sign(b"c", b"data")


def test_the_id_is_derived_from_the_root_key() -> None:
    assert KEYS.stack_id == stack_id_of(KEYS.root_public)


def test_a_signature_holds_for_its_key_context_and_data_only() -> None:
    sig = KEYS.sign(b"context", b"data")
    assert len(sig) == 64
    assert KEYS.verify(KEYS.op_public, b"context", b"data", sig)
    assert not KEYS.verify(OTHER.op_public, b"context", b"data", sig)
    assert not KEYS.verify(KEYS.root_public, b"context", b"data", sig)
    assert not KEYS.verify(KEYS.op_public, b"contexT", b"data", sig)
    assert not KEYS.verify(KEYS.op_public, b"context", b"datA", sig)


def test_the_root_key_signs_with_a_key_of_its_own() -> None:
    sig = KEYS.sign_root(b"c", b"doc")
    assert verify(KEYS.root_public, b"c", b"doc", sig)
    assert not verify(KEYS.op_public, b"c", b"doc", sig)


GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493


@pytest.mark.hostile("malleated-signature")
def test_a_malleated_signature_is_refused() -> None:
    sig = KEYS.sign(b"", b"data")
    scalar = int.from_bytes(sig[32:], "little") + GROUP_ORDER
    assert not verify(KEYS.op_public, b"", b"data", sig[:32] + scalar.to_bytes(32, "little"))


SMALL_ORDER = [bytes(32), b"\x01" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"]


@pytest.mark.parametrize("public", SMALL_ORDER)
@pytest.mark.hostile("small-order-key")
def test_a_public_key_of_small_order_verifies_nothing(public: bytes) -> None:
    assert not verify(public, b"", b"anything", public + bytes(32))
    assert not verify(public, b"", b"anything", b"\x01" + bytes(63))


@pytest.mark.parametrize(("public", "sig"), [(31, 64), (33, 64), (32, 63), (32, 65), (0, 0)])
def test_keys_and_signatures_of_a_wrong_size_are_false_not_errors(public: int, sig: int) -> None:
    assert not verify(bytes(public), b"", b"data", bytes(sig))


# --- prekeys -------------------------------------------------------------------------------------


def test_the_newest_prekey_is_published_and_the_older_still_open() -> None:
    ours, _ = make_keys(3)
    before = seal_key_of(ours)
    sealed = OTHER.seal(before, b"aad", b"body")
    key_id = ours.add_prekey(b"n" * 32)
    assert ours.prekey()[0] == key_id == prekey_id(ours.prekey()[1]) != before.key_id
    assert ours.open(OTHER.box_public, before.key_id, b"aad", sealed) == b"body"


def test_the_oldest_prekeys_are_forgotten_beyond_the_limit() -> None:
    ours, _ = make_keys(3)
    first = seal_key_of(ours)
    sealed = OTHER.seal(first, b"", b"body")
    for number in range(PREKEYS_MAX):
        ours.add_prekey(bytes([number]) * 32)
    with pytest.raises(LocalError) as caught:
        ours.open(OTHER.box_public, first.key_id, b"", sealed)
    assert caught.value.code.name == "not_found"


def test_a_prekey_that_is_added_again_becomes_the_newest_and_counts_once() -> None:
    ours, _ = make_keys(3)
    first = ours.add_prekey(b"a" * 32)
    ours.add_prekey(b"b" * 32)
    assert ours.add_prekey(b"a" * 32) == first == ours.prekey()[0]


# --- the mesh ------------------------------------------------------------------------------------


def test_a_mesh_is_named_by_8_bytes_of_its_own() -> None:
    assert len(mesh_id_of("lan")) == 8
    assert mesh_id_of("lan") != mesh_id_of("lab")


def test_a_mesh_key_depends_on_the_secret_and_on_the_mesh() -> None:
    keys = {
        mesh_key_of("s" * 32, "lan"),
        mesh_key_of("t" * 32, "lan"),
        mesh_key_of("s" * 32, "lab"),
    }
    assert {len(key) for key in keys} == {32}
    assert len(keys) == 3


# --- one set of keys after another ---------------------------------------------------------------


def test_until_they_settle_new_keys_seal_and_vouch_with_the_ones_before() -> None:
    old, new = make_keys(3)[0], make_keys(4)[0]
    to = seal_key_of(OTHER)
    new.follow(old)
    sealed = new.seal(to, b"aad", b"body")
    assert OTHER.open(old.box_public, to.key_id, b"aad", sealed) == b"body"
    assert OTHER.verify(old.op_public, b"c", b"data", new.vouch(b"c", b"data"))
    assert OTHER.verify(new.op_public, b"c", b"data", new.sign(b"c", b"data"))
    new.settle()
    sealed = new.seal(to, b"aad", b"body")
    assert OTHER.open(new.box_public, to.key_id, b"aad", sealed) == b"body"
    assert OTHER.verify(new.op_public, b"c", b"data", new.vouch(b"c", b"data"))


def test_keys_that_follow_twice_in_a_moment_use_the_ones_just_before() -> None:
    first, second, third = (make_keys(n)[0] for n in (3, 4, 5))
    second.follow(first)
    third.follow(second)
    assert OTHER.verify(second.op_public, b"c", b"data", third.vouch(b"c", b"data"))


def test_a_stack_opens_what_is_sealed_to_it_under_a_former_box_key_and_no_other() -> None:
    ours, _ = make_keys(3)
    former, foreign = make_keys(4)[0].box_public, make_keys(5)[0].box_public
    key_id, prekey = ours.prekey()
    sealed = {
        box: OTHER.seal(SealKey(box, key_id, prekey), b"aad", b"body")
        for box in (ours.box_public, former, foreign)
    }
    ours.also_known_by([former])
    for _ in range(2):  # the second time from the cache
        for box in (former, ours.box_public):
            assert ours.open(OTHER.box_public, key_id, b"aad", sealed[box]) == b"body"
    with pytest.raises(RemoteError):
        ours.open(OTHER.box_public, key_id, b"aad", sealed[foreign])


def test_a_root_key_that_was_forgotten_is_not_there() -> None:
    ours, _ = make_keys(3)
    stack_id = ours.stack_id
    ours.forget_root()
    assert not ours.has_root and ours.stack_id == stack_id
