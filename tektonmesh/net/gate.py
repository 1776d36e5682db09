"""Who may knock: the limits on connections that have not proved who they are.

Pure bookkeeping over the instants it is given (docs/design/security.md). Stacks on this machine
share their addresses, so for these only the total counts; a stranger gets few places and few
tries. Whether somebody is admitted is decided later, in `core/trust`.
"""

from __future__ import annotations

import ipaddress

from tektonmesh.net.addresses import parse_ip

WAITING_MAX = 64
WAITING_PER_ADDRESS_MAX = 4
HANDSHAKES_PER_S = 100.0
HANDSHAKES_PER_ADDRESS_S = 5.0
HANDSHAKES_LOCAL_S = 64.0
BURST_S = 4.0
"""A second's allowance may be saved up for four: a peer that lost its link tries at once, several
times, and a restarted host dials with all of its stacks. A guess."""

ADDRESSES_MAX = 4096
_WHOLE = "all"
_LOCAL = "local"


class Gate:
    """Counts who is inside and how fast each address comes."""

    def __init__(self) -> None:
        self._waiting: dict[str, int] = {}
        self._total = 0
        self._buckets: dict[str, tuple[float, float]] = {}

    def enter(self, host: str, now: float, *, local: bool) -> str:
        """Let a connection from this numeric host in, or say why not. An empty answer means it is
        in; then `leave` must follow. `local`: it comes from this machine."""
        key = _LOCAL if local else origin(host)
        if self._total >= WAITING_MAX:
            return "too many unauthenticated connections"
        if not local and self._waiting.get(key, 0) >= WAITING_PER_ADDRESS_MAX:
            return "too many unauthenticated connections from this address"
        rate = HANDSHAKES_LOCAL_S if local else HANDSHAKES_PER_ADDRESS_S
        if not self._take(key, rate, now):
            return "too many handshakes from this address"
        if not self._take(_WHOLE, HANDSHAKES_PER_S, now):
            return "too many handshakes"
        self._waiting[key] = self._waiting.get(key, 0) + 1
        self._total += 1
        return ""

    def leave(self, host: str, *, local: bool) -> None:
        """The connection was authenticated or is gone."""
        key = _LOCAL if local else origin(host)
        left = self._waiting[key] - 1
        assert left >= 0, "whoever leaves has entered"
        if left:
            self._waiting[key] = left
        else:
            del self._waiting[key]
        self._total -= 1

    def _take(self, key: str, rate: float, now: float) -> bool:
        """A token bucket per key; buckets that have filled up again are forgotten."""
        size = rate * BURST_S
        level, since = self._buckets.pop(key, (size, now))
        level = min(size, level + (now - since) * rate)
        taken = level >= 1.0
        self._buckets[key] = (level - 1.0 if taken else level, now)
        while len(self._buckets) > ADDRESSES_MAX:
            del self._buckets[next(iter(self._buckets))]
        return taken


def origin(host: str) -> str:
    """What counts as one address: an IPv4 address, or a whole IPv6 /64, which is one customer."""
    address = parse_ip(host)
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.IPv6Network((address, 64), strict=False))
    return host
