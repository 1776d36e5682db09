"""The addresses a node could dial."""

import pytest

from tektonmesh.core.addressbook import (
    ADDRESSES_PER_STACK,
    ANONYMOUS_MAX,
    REMEMBERED_MAX,
    AddressBook,
    is_address,
)
from tektonmesh.core.effects import Save
from tests.support import make_env, make_keys, only

B = make_keys(2)[0].stack_id
C = make_keys(3)[0].stack_id


@pytest.mark.parametrize(
    "text", ["10.0.0.1:7700", "west.example:1", "[::1]:7700", "[fe80::1%eth0]:65535"]
)
def test_an_address_is_a_host_and_a_port(text: str) -> None:
    assert is_address(text)


@pytest.mark.parametrize(
    "text",
    ["", "west", "west:0", "west:65536", "we st:1", "::1:7700", "[::1]", "a/b:1", "u@h:1", None, 7],
)
def test_what_is_no_address_is_refused(text: object) -> None:
    assert not is_address(text)


def test_an_address_is_kept_once_per_stack() -> None:
    book = AddressBook(make_env(), {})
    first = book.add("h:1", B)
    assert book.add("h:1", B) is first
    assert book.of_stack(B) == [first]
    assert book.stacks() == [B]


def test_two_stacks_may_claim_one_address_without_spoiling_each_other() -> None:
    book = AddressBook(make_env(), {})
    one, other = book.add("h:1", B), book.add("h:1", C)
    assert one is not other
    assert book.of_stack(B) == [one]
    assert book.of_stack(C) == [other]


def test_a_known_address_can_become_a_seed() -> None:
    book = AddressBook(make_env(), {})
    target = book.add("h:1", None)
    assert target is not None
    assert not target.seed_peer
    book.add("h:1", None, seed_peer=True)
    assert target.seed_peer
    book.add("h:1", None)
    assert target.seed_peer


@pytest.mark.hostile("mdns-own-id", "dial-targets")
def test_own_addresses_and_the_own_id_are_not_dialled() -> None:
    env = make_env(listen=("h:1",))
    book = AddressBook(env, {})
    assert book.add("h:1", B) is None
    assert book.add("h:1", None, seed_peer=True) is None
    assert book.add("h:2", env.me) is None


def test_a_malformed_address_is_not_taken_unless_the_user_wrote_it() -> None:
    book = AddressBook(make_env(), {})
    assert book.add("nonsense", B) is None
    assert book.add("nonsense", None, seed_peer=True) is not None


def test_a_stack_has_at_most_eight_addresses() -> None:
    book = AddressBook(make_env(), {})
    taken = [book.add(f"h:{port}", B) for port in range(1, 20)]
    assert sum(target is not None for target in taken) == ADDRESSES_PER_STACK


def test_strangers_are_bounded_and_seeds_are_not() -> None:
    book = AddressBook(make_env(), {})
    for port in range(1, ANONYMOUS_MAX + 10):
        book.add(f"h:{port}", None)
    assert len(book.anonymous()) == ANONYMOUS_MAX
    assert book.add("seed:1", None, seed_peer=True) is not None


def test_a_removed_target_is_not_held_any_more() -> None:
    book = AddressBook(make_env(), {})
    target = book.add("h:1", B)
    assert target is not None
    assert book.holds(target)
    book.remove(target)
    assert not book.holds(target)
    assert book.stacks() == []
    book.remove(target)
    assert book.add("h:1", B) is not target


def test_removing_one_address_leaves_the_others() -> None:
    book = AddressBook(make_env(), {})
    first, second = book.add("h:1", B), book.add("h:2", B)
    assert first is not None
    book.remove(first)
    assert book.of_stack(B) == [second]


def test_an_address_that_leads_back_to_us_goes_for_good() -> None:
    book = AddressBook(make_env(), {})
    book.add("h:1", B)
    book.add("h:1", None, seed_peer=True)
    other = book.add("h:2", B)
    book.add("h:3", C)
    book.is_own("h:1")
    assert book.anonymous() == []
    assert book.of_stack(B) == [other]
    assert book.add("h:1", C) is None


def test_addresses_that_worked_come_first_and_strangers_met_count() -> None:
    book = AddressBook(make_env(), {})
    book.add("h:1", B)
    good = book.add("h:2", B)
    seed = book.add("s:1", None, seed_peer=True)
    assert good is not None
    assert seed is not None
    good.good = True
    seed.met = B
    assert [target.address for target in book.of_stack(B)] == ["h:2", "h:1", "s:1"]
    assert seed.peer == B
    assert good.peer == B


def test_a_stack_that_moved_loses_what_it_no_longer_tells() -> None:
    book = AddressBook(make_env(), {})
    targets = {port: book.add(f"h:{port}", B) for port in (1, 2, 3, 4)}
    assert targets[2] is not None
    assert targets[3] is not None
    targets[2].good = True
    targets[3].seed_peer = True
    book.keep_only(B, ("h:4",))
    assert [target.address for target in book.of_stack(B)] == ["h:2", "h:3", "h:4"]


def saved_rows(book_env: object) -> dict[tuple[str, bytes], bytes | None]:
    effects = only(book_env.take(), Save)  # type: ignore[attr-defined]
    return {(table, key): value for save in effects for table, key, value in save.rows}


def test_a_remembered_peer_is_there_at_the_next_start() -> None:
    env = make_env()
    AddressBook(env, {}).remember(B, ("h:1", "h:2"))
    rows = saved_rows(env)
    again = AddressBook(make_env(), {key: value for key, value in rows.items() if value})
    assert again.remembered == {B: ("h:1", "h:2")}


def test_remembering_the_same_again_writes_nothing() -> None:
    env = make_env()
    book = AddressBook(env, {})
    book.remember(B, ("h:1",))
    env.take()
    book.remember(B, ("h:1",))
    assert env.take() == []


def test_a_forgotten_peer_is_deleted_from_disk_once() -> None:
    env = make_env()
    book = AddressBook(env, {})
    book.remember(B, ("h:1",))
    env.take()
    book.forget(B)
    assert saved_rows(env) == {("address", B): None}
    book.forget(B)
    assert env.take() == []


def test_the_peer_met_longest_ago_makes_room() -> None:
    env = make_env()
    book = AddressBook(env, {})
    stacks = [bytes([number]) * 32 for number in range(REMEMBERED_MAX + 1)]
    for stack_id in stacks[:-1]:
        book.remember(stack_id, ("h:1",))
    book.remember(stacks[0], ("h:2",))
    env.take()
    book.remember(stacks[-1], ("h:1",))
    assert stacks[1] not in book.remembered
    assert stacks[0] in book.remembered
    assert len(book.remembered) == REMEMBERED_MAX


@pytest.mark.parametrize("row", [b"\xc1", b"\xc0", b"\x81\xa2at\xa1x", b"\x81\xa2at\x91\xa1x"])
def test_a_damaged_row_counts_as_a_peer_without_addresses(row: bytes) -> None:
    book = AddressBook(make_env(), {("address", B): row, ("address", b"short"): row})
    assert book.remembered == {B: ()}


def test_a_mesh_wide_flood_of_addresses_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tektonmesh.core.addressbook.TARGETS_MAX", 3)
    book = AddressBook(make_env(), {})
    taken = [book.add("h:1", bytes([number]) * 32) for number in range(5)]
    assert sum(target is not None for target in taken) == 3
