"""Names in seed lists to numeric addresses, anew on each try, since a name may move.

Which seeds are tried when is decided in `core/dialling`; here only what a name means now.
"""

from __future__ import annotations

import socket

import trio

from tektonmesh.errors import DeliveryError, LocalError
from tektonmesh.net.addresses import ADDRESSES_MAX, join_address, never_dialled, split_address


async def resolve(address: str) -> list[str]:
    """The numeric `host:port` texts that `address` stands for now, at most 8, in the order the
    resolver prefers. Raises DeliveryError (`unreachable`) if there is none worth dialling."""
    try:
        host, port = split_address(address)
    except LocalError as error:
        raise DeliveryError(error.sentence()) from None
    if port == 0:
        raise DeliveryError(f"'{address}' has no port.")
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DeliveryError(f"The name '{host}' cannot be resolved: {reason}.") from None
    texts: dict[str, None] = {}
    for _family, _kind, _protocol, _canonical, where in found:
        numeric = str(where[0])
        if len(where) == 4 and where[3] and "%" not in numeric:
            # A link-local address means nothing without the interface it was named with.
            numeric = f"{numeric}%{where[3]}"
        if not never_dialled(numeric):
            texts[join_address(numeric, port)] = None
    if not texts:
        raise DeliveryError(f"No address of '{host}' may be dialled.")
    return list(texts)[:ADDRESSES_MAX]
