from __future__ import annotations

from tektonmesh.core import held as hd
from tektonmesh.core.equivocation import Evidence, proof_of_heads, read_evidence
from tektonmesh.core.fingerprints import NO_PROOF
from tektonmesh.core.held import Held, own_held
from tektonmesh.core.keydoc import KeyDoc
from tektonmesh.core.layers import Layered
from tektonmesh.core.types import ContentVersion
from tektonmesh.wire import limits
from tektonmesh.wire.codec import Codec, encode_message, pack
from tests.support import MESH_ID, Author

CODEC = Codec()


def hold(author: Author) -> Held:
    keys = KeyDoc.decode(CODEC, author.keydoc.doc), author.keydoc
    return Held(CODEC, author.head(), author.sign(), keys, author.records, 1000.0)


def step(author: Author, held: Held, values: dict[str, object], *delete: str) -> ContentVersion:
    """Change the author's records and let `held` take them; returns the version before."""
    before = held.content_version
    author.delta(dict(values), delete=delete)
    held.take(author.head(), author.sign(), author.records, 1001.0)
    return before


def started() -> tuple[Author, Held]:
    author = Author()
    author.delta({"stack/self": {"name": "b"}, "ci/numa": {"name": "numa"}, "ci/zeno": {}})
    return author, hold(author)


def test_records_are_decoded_when_they_are_read() -> None:
    _, held = started()
    assert held.value("ci/numa") == {"name": "numa"}
    assert held.value("ci/numa") is held.value("ci/numa")
    assert held.value("ci/nobody") is None
    assert held.keys("ci") == ["ci/numa", "ci/zeno"]
    assert held.keys("link") == []


def test_a_changed_record_is_decoded_anew() -> None:
    author, held = started()
    assert held.value("ci/numa") == {"name": "numa"}
    step(author, held, {"ci/numa": {"name": "Numa"}})
    assert held.value("ci/numa") == {"name": "Numa"}


def test_a_record_that_cannot_be_read_quarantines_its_owner_until_it_changes() -> None:
    for bad in (b"\xc1", pack([1])):
        author, held = started()
        step(author, held, {"ci/numa": bad})
        assert not held.quarantined
        assert held.value("ci/numa") is None
        assert held.quarantined
        assert held.value("ci/zeno") is None
        assert held.keys("ci") == []
        step(author, held, {"ci/numa": {}})
        assert held.value("ci/numa") == {}


def test_whoever_holds_a_recent_version_gets_what_changed_since() -> None:
    author, held = started()
    first = step(author, held, {"ci/numa": {"v": 2}, "ci/new": {}})
    second = step(author, held, {"ci/more": {}}, "ci/zeno")
    delta = held.delta(first, with_keydoc=False)
    assert delta.base == first and delta.keydoc is None
    assert [key for _, key, _ in delta.puts] == ["ci/more", "ci/new", "ci/numa"]
    assert delta.deletes == ((1, "ci/zeno"),)
    delta = held.delta(second, with_keydoc=True)
    assert [key for _, key, _ in delta.puts] == ["ci/more"]
    assert delta.keydoc == author.keydoc


def test_what_came_and_went_in_between_is_not_told() -> None:
    author, held = started()
    base = step(author, held, {"ci/brief": {}})
    step(author, held, {}, "ci/brief")
    delta = held.delta(base, with_keydoc=False)
    assert delta.puts == ()
    before = held.record_set.changed([], [])
    assert before.changed(delta.puts, delta.deletes).records == held.records


def test_a_record_that_moved_to_another_scope_is_deleted_there() -> None:
    author = Author()
    author.delta({"mood/now": {}})
    held = hold(author)
    base = held.content_version
    records = author.records.changed([(6, "mood/now", pack({}))], [(5, "mood/now")])
    author.ver, author.content_ver, author.records = 2, 2, records
    held.take(author.head(), author.sign(), records, 1001.0)
    assert held.delta(base, with_keydoc=False).puts == ()  # the value is the same: a snapshot tells
    assert held.record_set.scope_of("mood/now") == 6


def test_whoever_holds_what_we_hold_gets_the_head_alone() -> None:
    _, held = started()
    delta = held.delta(held.content_version, with_keydoc=False)
    assert delta.puts == delta.deletes == ()
    assert delta.base == held.content_version


def test_whoever_holds_nothing_or_something_forgotten_gets_all() -> None:
    author, held = started()
    for base in (None, ContentVersion(0, 1, 1)):
        delta = held.delta(base, with_keydoc=True)
        assert delta.base is None and delta.puts == author.records.puts() and not delta.deletes


def test_the_past_is_bounded_by_versions_and_by_keys() -> None:
    author, held = started()
    first = held.content_version
    for n in range(hd.HISTORY_STEPS_MAX):
        step(author, held, {"ci/numa": {"n": n}})
    assert held.delta(first, with_keydoc=False).base == first
    second = step(author, held, {"ci/numa": {}})
    assert held.delta(first, with_keydoc=False).base is None
    assert held.delta(second, with_keydoc=False).base == second
    step(author, held, {f"ci/{n}": {} for n in range(hd.HISTORY_KEYS_MAX)})
    assert held.delta(second, with_keydoc=False).base is None


def test_more_changes_than_a_delta_may_have_are_told_as_a_snapshot() -> None:
    author = Author()
    author.delta({f"ci/{n}": {} for n in range(8)})
    held = hold(author)
    held_max, hd.DELTA_CHANGES_MAX = hd.DELTA_CHANGES_MAX, 3
    try:
        base = step(author, held, {f"ci/{n}": {"v": 2} for n in range(4)})
        assert held.delta(base, with_keydoc=False).base is None
    finally:
        hd.DELTA_CHANGES_MAX = held_max


def test_a_new_version_of_the_same_records_is_told_without_them() -> None:
    author, held = started()
    base = held.content_version
    author.ver, author.content_ver = 2, 2
    assert held.take(author.head(), author.sign(), held.record_set, 1001.0) == ()
    delta = held.delta(base, with_keydoc=False)
    assert delta.base == base and delta.puts == ()


def test_a_refresh_changes_nothing_but_the_head() -> None:
    author, held = started()
    content = held.content_version
    author.delta()
    assert held.take(author.head(), author.sign(), held.record_set, 1009.0) is None
    assert held.content_version == content
    assert held.version.ver == 2 and held.heard == 1009.0


def evidence(author: Author) -> Evidence:
    proof = proof_of_heads(author.sign(), author.sign(instance=b"twin"), author.keydoc)
    return read_evidence(CODEC, MESH_ID, proof)


def test_many_deletions_beside_large_changes_are_sent_as_a_snapshot_that_fits_on_a_link() -> None:
    author = Author()
    long_key = "x" * 120
    gone = {f"ci/{long_key}{n:03}": b"" for n in range(900)}
    author.delta({f"ci/{n:03}": bytes(2000) for n in range(400)} | gone)
    held = hold(author)
    base = step(author, held, {f"ci/{n:03}": bytes([1]) * 2048 for n in range(100)}, *gone)
    small = held.delta(base, with_keydoc=True)
    assert small.base == base and len(small.deletes) == 900
    values = {f"ci/{n:03}": bytes([2]) * 2048 for n in range(500)}
    gone = {f"ci/{long_key}{n:03}": b"" for n in range(124)}
    author, held = Author(), None
    author.delta({f"ci/{n:03}": bytes(1500) for n in range(500)} | gone)
    held = hold(author)
    base = step(author, held, values, *gone)
    large = held.delta(base, with_keydoc=True)
    assert large.base is None
    for delta in (small, large):
        assert len(encode_message(delta)) <= limits.DELTA_SIZE_MAX


def test_what_may_be_wrong_is_no_base() -> None:
    for flaw in ("doubted", "proof", "expired"):
        author, held = started()
        base = step(author, held, {"ci/numa": {"v": 2}})
        setattr(held, flaw, evidence(author) if flaw == "proof" else True)
        assert held.base is None
        if flaw != "expired":
            assert held.delta(base, with_keydoc=False).base is None


def test_the_proof_against_an_owner_is_named_by_its_digest() -> None:
    author, held = started()
    assert not held.equivocated and held.proof_digest == NO_PROOF
    held.proof = evidence(author)
    assert held.equivocated and held.proof_digest == held.proof.digest


def test_an_expired_owner_keeps_what_people_and_dialling_need() -> None:
    author = Author()
    author.delta({"stack/self": {"name": "b"}, "addr/0": {"at": "x:1"}, "ci/numa": {}})
    held = hold(author)
    assert held.wither() == ("ci/numa",)
    assert held.expired
    assert list(held.records) == ["addr/0", "stack/self"]
    assert held.value("stack/self") == {"name": "b"}


def test_a_copy_is_the_same_owner_and_goes_its_own_way() -> None:
    for read in (False, True):
        author, held = started()
        if read:
            assert held.value("ci/numa") == {"name": "numa"}
            step(author, held, {"ci/numa": {"name": "Numa"}})
        first = held.content_version
        said = held.delta(None, with_keydoc=True)
        copy = held.copy()
        assert copy.delta(None, with_keydoc=True) == said
        assert (copy.heard, copy.head_hash) == (held.heard, held.head_hash)
        step(author, copy, {"ci/numa": {"name": "other"}}, "ci/zeno")
        copy.wither()
        assert held.delta(None, with_keydoc=True) == said
        assert held.content_version == first and not held.expired
        assert held.value("ci/numa") == {"name": "Numa" if read else "numa"}
        assert held.delta(first, with_keydoc=False).base == first


def test_what_is_shared_is_copied_before_it_is_changed() -> None:
    author, held = started()
    base = {author.id: held}
    owners = Layered(base)
    changed = own_held(owners, author.id)
    assert changed is not held and owners[author.id] is changed
    assert own_held(owners, author.id) is changed
    assert own_held(base, author.id) is held
