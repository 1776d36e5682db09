"""Who may knock: the limits on connections that have not proved who they are."""

from __future__ import annotations

import pytest

from tektonmesh.errors import LocalError
from tektonmesh.net.addresses import (
    dialable,
    is_near,
    join_address,
    never_dialled,
    parse_ip,
    split_address,
    unwrap,
)
from tektonmesh.net.gate import (
    ADDRESSES_MAX,
    BURST_S,
    HANDSHAKES_PER_ADDRESS_S,
    WAITING_MAX,
    WAITING_PER_ADDRESS_MAX,
    Gate,
    origin,
)


def test_one_address_gets_four_places_and_gets_one_back_when_somebody_leaves() -> None:
    gate = Gate()
    for _ in range(WAITING_PER_ADDRESS_MAX):
        assert gate.enter("192.0.2.1", 0.0, local=False) == ""
    assert "from this address" in gate.enter("192.0.2.1", 0.0, local=False)
    assert gate.enter("192.0.2.2", 0.0, local=False) == ""
    gate.leave("192.0.2.1", local=False)
    assert gate.enter("192.0.2.1", 0.0, local=False) == ""


def test_stacks_of_this_machine_share_all_places_and_no_more() -> None:
    gate = Gate()
    for _ in range(WAITING_MAX):
        assert gate.enter("127.0.0.1", 0.0, local=True) == ""
    assert "too many" in gate.enter("127.0.0.1", 0.0, local=True)
    assert "too many" in gate.enter("192.0.2.1", 0.0, local=False)
    gate.leave("127.0.0.1", local=True)
    assert gate.enter("192.0.2.1", 0.0, local=False) == ""


def test_an_address_that_hammers_is_slowed_down_to_its_rate() -> None:
    gate = Gate()
    entered = 0
    for step in range(1000):
        now = step / 100
        if gate.enter("192.0.2.1", now, local=False) == "":
            gate.leave("192.0.2.1", local=False)
            entered += 1
    assert entered == pytest.approx(HANDSHAKES_PER_ADDRESS_S * (10 + BURST_S), abs=2)


def test_an_ipv6_network_counts_as_one_address() -> None:
    gate = Gate()
    for number in range(WAITING_PER_ADDRESS_MAX):
        assert gate.enter(f"2001:db8::{number + 1}", 0.0, local=False) == ""
    assert gate.enter("2001:db8::ffff", 0.0, local=False) != ""
    assert gate.enter("2001:db8:0:1::1", 0.0, local=False) == ""
    assert origin("::ffff:192.0.2.1") == "192.0.2.1"


def test_the_memory_of_addresses_is_bounded() -> None:
    gate = Gate()
    for number in range(2 * ADDRESSES_MAX):
        host = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        if gate.enter(host, number / 50, local=False) == "":
            gate.leave(host, local=False)
    assert len(gate._buckets) <= ADDRESSES_MAX


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("192.0.2.1:80", "192.0.2.1", 80),
        ("west.example", "west.example", 7700),
        ("[2001:db8::1]:80", "2001:db8::1", 80),
        ("[2001:db8::1]", "2001:db8::1", 7700),
        ("2001:db8::1", "2001:db8::1", 7700),
    ],
)
def test_an_address_is_taken_apart(text: str, host: str, port: int) -> None:
    assert split_address(text) == (host, port)
    assert split_address(join_address(host, port)) == (host, port)


@pytest.mark.parametrize(
    "text",
    ["west:", "west:x", "west:65536", ":80", "west:８０", "west:" + "1" * 5000],
    ids=lambda text: text[:12],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(LocalError, match="is not an address"):
        split_address(text)


@pytest.mark.parametrize(
    "text", ["127.0.0.1%lo", "127.0.0.1%", "fe80::1%", "fe80::1%a]b", "fe80::1%a:1", "fe80::1%\0"]
)
def test_only_an_ipv6_address_names_an_interface_and_plainly(text: str) -> None:
    assert parse_ip(text) is None and never_dialled(text) and not is_near(text)
    assert is_near("fe80::1%eth0.100") and not never_dialled("fe80::1%eth0.100")


@pytest.mark.parametrize(
    ("shown", "real"),
    [
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("64:ff9b::a9fe:a9fe", "169.254.169.254"),
        ("2002:7f00:1::", "127.0.0.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("10.0.0.1", "10.0.0.1"),
    ],
)
def test_an_address_inside_an_address_is_found(shown: str, real: str) -> None:
    address = parse_ip(shown)
    assert address is not None
    assert str(unwrap(address)) == real


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "169.254.169.254", "64:ff9b::a9fe:a9fe", "x"]
)
def test_some_addresses_are_never_dialled(host: str) -> None:
    assert never_dialled(host)


def test_near_is_loopback_private_and_link_local() -> None:
    near = ["127.0.0.1", "::1", "10.1.2.3", "192.168.0.1", "169.254.1.1", "fd00::1", "fe80::1"]
    far = ["8.8.8.8", "2606:4700::1111", "west.example", "64:ff9b::808:808"]
    assert all(is_near(host) for host in near)
    assert not any(is_near(host) for host in far)


def test_a_socket_on_a_concrete_address_is_dialled_there() -> None:
    assert dialable([("127.0.0.1", 7701)], with_loopback=False) == ["127.0.0.1:7701"]


def test_a_wildcard_becomes_concrete_addresses_and_loopback_only_on_demand() -> None:
    plain = dialable([("0.0.0.0", 7700)], with_loopback=False)
    assert plain
    assert not any(address.startswith("0.0.0.0") for address in plain)
    with_loopback = dialable([("0.0.0.0", 7700)], with_loopback=True)
    assert with_loopback[-1] == "127.0.0.1:7700"
