"""Discovery on this machine's own interfaces, and what is made of other people's announcements."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import pytest
import trio

from tektonmesh.net.mdns import (
    SERVICES_MAX,
    Card,
    Seen,
    _Found,
    keep_discovering,
    read_service,
)


def card(number: int, mesh: bytes = b"the mesh", port: int = 7700) -> Card:
    """A stack that listens on loopback only, so that the test stays on this machine."""
    return Card(bytes([number]) * 32, mesh, (f"127.0.0.1:{port}",), loopback_only=True)


def announced(of: Card, **changed: bytes | None) -> Mapping[bytes, bytes | None]:
    told: dict[str, bytes | None] = {"id": of.id_prefix.encode(), "mesh": of.mesh.encode()}
    return {key.encode(): value for key, value in (told | changed).items()}


async def test_two_stacks_of_one_machine_find_each_other_and_leave_no_thread_behind() -> None:
    before = threading.active_count()
    seen: dict[int, list[Seen]] = {1: [], 2: [], 3: []}
    cards = {1: card(1, port=7701), 2: card(2, port=7702), 3: card(3, b"another!", port=7703)}
    with trio.move_on_after(10):
        async with trio.open_nursery() as nursery:

            def tell(number: int, found: Seen) -> None:
                seen[number].append(found)
                if seen[1] and seen[2]:
                    nursery.cancel_scope.cancel()

            for number in cards:
                nursery.start_soon(
                    keep_discovering,
                    lambda number=number: cards[number],
                    lambda found, number=number: tell(number, found),
                )
    assert seen[1] == [Seen(cards[2].id_prefix, ("127.0.0.1:7702",))]
    assert seen[2] == [Seen(cards[1].id_prefix, ("127.0.0.1:7701",))]
    assert seen[3] == [], "another mesh is nobody's business"
    own = [thread for thread in threading.enumerate() if not thread.name.startswith("Trio")]
    assert len(own) <= before


def test_an_announcement_of_our_mesh_is_read() -> None:
    seen = read_service(card(1), announced(card(2)), 7702, ["192.0.2.7", "2001:db8::7"])
    assert seen == Seen(card(2).id_prefix, ("192.0.2.7:7702", "[2001:db8::7]:7702"))


@pytest.mark.parametrize(
    ("properties", "port", "hosts"),
    [
        (announced(card(1)), 7702, ["192.0.2.7"]),
        (announced(card(2), mesh=b"6f74686572"), 7702, ["192.0.2.7"]),
        (announced(card(2), mesh=None), 7702, ["192.0.2.7"]),
        (announced(card(2), id=b""), 7702, ["192.0.2.7"]),
        (announced(card(2), id=b"\xff" * 16), 7702, ["192.0.2.7"]),
        (announced(card(2), id=b"a" * 17), 7702, ["192.0.2.7"]),
        (announced(card(2)), 0, ["192.0.2.7"]),
        (announced(card(2)), None, ["192.0.2.7"]),
        (announced(card(2)), 7702, []),
        (announced(card(2)), 7702, ["0.0.0.0", "224.0.0.251", "169.254.169.254", "fe80::1", "x"]),
        ({}, 7702, ["192.0.2.7"]),
    ],
)
@pytest.mark.hostile("mdns-own-id")
def test_what_is_ours_foreign_or_cannot_be_dialled_is_ignored(
    properties: Mapping[bytes, bytes | None], port: int | None, hosts: list[str]
) -> None:
    assert read_service(card(1), properties, port, hosts) is None


def test_of_many_addresses_only_eight_are_taken() -> None:
    hosts = [f"192.0.2.{number}" for number in range(1, 200)]
    seen = read_service(card(1), announced(card(2)), 7702, hosts)
    assert seen is not None
    assert len(seen.addresses) == 8


@pytest.mark.hostile("mdns-flood")
def test_at_most_256_services_are_kept_and_known_ones_may_change() -> None:
    found = _Found()
    for number in range(SERVICES_MAX):
        assert found.put(f"service {number}", Seen("p", (f"192.0.2.1:{number + 1}",)))
    assert not found.put("one too many", Seen("p", ("192.0.2.1:1",)))
    assert not found.put("service 3", Seen("p", ("192.0.2.1:4",)))
    assert found.put("service 3", Seen("p", ("192.0.2.9:4",)))
    assert len(found.seen) == SERVICES_MAX
