from __future__ import annotations

import hashlib

from tektonmesh.core.fingerprints import BUCKETS, Fingerprints, entry_of
from tektonmesh.core.types import Status
from tests.support import Author, seed_bytes

AUTHOR = Author()


def filled(owners: list[bytes]) -> Fingerprints:
    prints = Fingerprints()
    for owner in owners:
        prints.set(owner, b"entry of " + owner)
    return prints


OWNERS = [seed_bytes(n) for n in range(600)]


def test_the_order_of_arrival_does_not_matter() -> None:
    assert filled(OWNERS).total() == filled(OWNERS[::-1]).total()


def test_an_owner_changes_its_own_bucket_only() -> None:
    prints = filled(OWNERS)
    before = prints.prints()
    prints.set(OWNERS[3], b"other")
    differing = [n for n in range(BUCKETS) if before[n] != prints.prints()[n]]
    assert differing == [OWNERS[3][0]]


def test_an_owner_that_goes_leaves_no_trace() -> None:
    prints = filled(OWNERS)
    prints.set(OWNERS[0], None)
    prints.set(seed_bytes("never there"), None)
    assert prints.total() == filled(OWNERS[1:]).total()
    assert len(prints) == 599


def test_the_total_is_the_hash_of_the_prints_of_the_buckets() -> None:
    prints = filled(OWNERS)
    joined = b"".join(prints.prints())
    assert prints.total() == hashlib.blake2b(joined, digest_size=16).digest()


def test_owners_are_listed_by_bucket() -> None:
    prints = filled(OWNERS)
    assert sorted(prints.owners(())) == sorted(OWNERS)
    bucket = OWNERS[9][0]
    assert prints.owners((bucket,)) == sorted(owner for owner in OWNERS if owner[0] == bucket)


def test_a_refresh_leaves_the_entry_as_it_is() -> None:
    assert entry_of(AUTHOR.head()) == entry_of(AUTHOR.head(ver=9, hlc=1, lease_s=400))


def test_whatever_else_changes_changes_the_entry() -> None:
    heads = [
        AUTHOR.head(),
        AUTHOR.head(key_epoch=1),
        AUTHOR.head(epoch=6),
        AUTHOR.head(content_ver=1),
        AUTHOR.head(status=Status.LEFT),
        AUTHOR.head(roots={0: bytes(32)}),
    ]
    entries = {entry_of(head) for head in heads} | {entry_of(heads[0], b"a proof!")}
    assert len(entries) == len(heads) + 1


def test_owners_left_out_do_not_count() -> None:
    prints = filled(OWNERS)
    unknown = seed_bytes("never there")
    rest = filled(OWNERS[3:])
    assert prints.total((*OWNERS[:3], unknown)) == rest.total()
    assert prints.prints(OWNERS[:3]) == rest.prints()
    assert rest.total((unknown,)) == rest.total()
    assert prints.total() == filled(OWNERS).total()
