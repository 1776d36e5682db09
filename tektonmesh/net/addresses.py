"""Addresses as text: taking `host:port` apart, which interfaces there are, who counts as local.

This module decides what an address means and which ones are never dialled. Whom to dial is the
core's decision; the names in seed lists are resolved in `seeds`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from tektonmesh.errors import LocalError

DEFAULT_PORT = 7700
ADDRESSES_MAX = 8
"""How many of its own addresses a stack tells; its peers never dial more."""

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_METADATA = frozenset(
    ipaddress.ip_address(text) for text in ("169.254.169.254", "fd00:ec2::254", "100.100.100.200")
)
"""Where cloud providers answer with credentials. No stack listens there."""

_INTERFACE = re.compile("[0-9A-Za-z._-]{1,15}")
_PORT = re.compile("[0-9]{1,5}")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def split_address(text: str, default_port: int = DEFAULT_PORT) -> tuple[str, int]:
    """`host:port`, `[v6]:port` or a bare host. Raises LocalError if it is none of them."""
    host, colon, port = text.rpartition(":")
    if text.startswith("[") and text.endswith("]"):
        return text[1:-1], default_port
    if not colon or (":" in host and not host.startswith("[")):
        return text, default_port
    if not host or not _PORT.fullmatch(port) or int(port) > 65535:
        raise LocalError(f"'{text}' is not an address.", hint="Write HOST:PORT or [IPV6]:PORT.")
    return host.removeprefix("[").removesuffix("]"), int(port)


def join_address(host: str, port: int) -> str:
    """The one written form: IPv6 hosts in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_ip(host: str) -> IpAddress | None:
    """The address that `host` spells in the ordinary way; None for a name, and also for the odd
    spellings (`2130706433`, `0x7f.1`) that only the resolver takes for an address. An IPv6 address
    may name its interface (`fe80::1%eth0`)."""
    plain, percent, interface = host.partition("%")
    try:
        address = ipaddress.ip_address(plain)
    except ValueError:
        return None
    if percent and (address.version == 4 or not _INTERFACE.fullmatch(interface)):
        return None
    return address


def unwrap(address: IpAddress) -> IpAddress:
    """The IPv4 address that really answers behind an IPv6 one: mapped, 6to4, Teredo or NAT64.

    Without this `2002:7f00:1::` and `64:ff9b::a9fe:a9fe` would pass as foreign addresses although
    they lead to 127.0.0.1 and to the metadata service.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and address.teredo is not None:
        inner = address.teredo[1]
    return inner or address


def never_dialled(host: str) -> bool:
    """Whether this numeric address is refused whoever names it: nobody can be there, or a cloud's
    metadata service is."""
    address = parse_ip(host)
    if address is None:
        return True
    inner = unwrap(address)
    return inner.is_unspecified or inner.is_multicast or inner in _METADATA


def is_near(host: str) -> bool:
    """Loopback, private or link-local: where the well-known test secret counts."""
    address = parse_ip(host)
    if address is None:
        return False
    inner = unwrap(address)
    return inner.is_loopback or inner.is_private or inner.is_link_local


_last_seen: list[str] = []
"""Asking takes a file descriptor; when there is none left, what was so before is still so."""


def interface_addresses() -> list[str]:
    """Every unicast address of this machine's interfaces, loopback last; link-local IPv6
    addresses are left out (they mean nothing without an interface of the reader's own)."""
    # zeroconf brings ifaddr with it; it is imported here because a client never needs it.
    import ifaddr

    try:
        adapters = list(ifaddr.get_adapters())
    except OSError:
        return list(_last_seen)
    found: dict[str, bool] = {}
    for adapter in adapters:
        for entry in adapter.ips:
            text = entry.ip if isinstance(entry.ip, str) else entry.ip[0]
            address = parse_ip(text)
            if address is None or (address.version == 6 and address.is_link_local):
                continue
            found[str(address)] = address.is_loopback
    _last_seen[:] = sorted(found, key=lambda text: (found[text], ":" in text))
    return list(_last_seen)


def dialable(bound: Iterable[tuple[str, int]], *, with_loopback: bool) -> list[str]:
    """The concrete `host:port` texts under which the sockets in `bound` can be reached.

    A wildcard becomes every address of the interfaces of its family. Loopback counts when it was
    asked for by address, `with_loopback` is set, or there is nothing else.
    """
    interfaces: list[str] | None = None
    plain: dict[str, None] = {}
    loopback: dict[str, None] = {}
    for host, port in bound:
        address = parse_ip(host)
        if address is None or not address.is_unspecified:
            plain[join_address(host, port)] = None
            continue
        if interfaces is None:
            # A stack that listens on named addresses never needs to know.
            interfaces = interface_addresses()
        for text in interfaces:
            if (":" in text) == (address.version == 6):
                mine = ipaddress.ip_address(text).is_loopback
                (loopback if mine else plain)[join_address(text, port)] = None
    if with_loopback or not plain:
        plain.update(loopback)
    return list(plain)[:ADDRESSES_MAX]
