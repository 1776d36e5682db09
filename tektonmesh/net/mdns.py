"""Finding stacks on the local network, and being found: multicast DNS through zeroconf.

This is the only module that knows zeroconf; its threads and its asyncio loop stay behind
`_Responder`, and what it finds crosses into Trio at one place (`_hand_over`). It decides which
services are worth a look (ours excepted, same mesh, at most 256) and keeps at it while interfaces
come and go. What is found grants nothing: whether to dial is decided in `core/dialling`.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from tektonmesh.core.frozen import frozen
from tektonmesh.core.ids import show_id
from tektonmesh.core.types import StackId
from tektonmesh.net.addresses import (
    ADDRESSES_MAX,
    interface_addresses,
    join_address,
    never_dialled,
    parse_ip,
    split_address,
)

if TYPE_CHECKING:
    import zeroconf

_LOG = logging.getLogger(__name__)

SERVICE_TYPE = "_tektonmesh._tcp.local."
SERVICES_MAX = 256
ID_PREFIX_SIZE = 16
"""Characters of the shown id, 80 bits: enough to tell stacks apart, and no more than needed."""

CHECK_EAGERLY_S = 1.0
CHECK_S = 5.0
EAGER_FOR_S = 30.0
"""Looking at the interfaces costs a millisecond. Right after the start (a machine that boots, a
test that sets up its namespaces) it is done every second, later every five."""

START_AFTER_S = 0.15
"""Importing zeroconf takes as long as the rest of the start; the local doors open first."""
RETRY_S = 5.0
ASK_MS = 3000
TELL_AGAIN_S = 600.0
"""The core gives an address up after an hour of failures; a service that is still announced is
told again, rarely, because each time starts a new series of tries."""
STOP_S = 2.0


@frozen
class Seen:
    """A stack of our mesh that says it is there: the start of its shown id and its addresses."""

    id_prefix: str
    addresses: tuple[str, ...]


@frozen
class Card:
    """What we say of ourselves."""

    stack_id: StackId
    mesh_id: bytes
    listen: tuple[str, ...]
    loopback_only: bool

    @property
    def id_prefix(self) -> str:
        return show_id(self.stack_id)[:ID_PREFIX_SIZE]

    @property
    def mesh(self) -> str:
        return self.mesh_id.hex()[:16]


@dataclass(slots=True)
class _Found:
    """The services of our mesh, by service name; bounded, because anyone can announce any."""

    seen: dict[str, Seen] = field(default_factory=dict)

    def put(self, name: str, seen: Seen) -> bool:
        """True if this is news."""
        if self.seen.get(name) == seen:
            return False
        if name not in self.seen and len(self.seen) >= SERVICES_MAX:
            return False
        self.seen[name] = seen
        return True


async def keep_discovering(make_card: Callable[[], Card], tell: Callable[[Seen], None]) -> None:
    """Announce ourselves and tell of others for ever, whatever the interfaces do. `make_card` is
    asked again whenever they may have changed."""
    # It warns of each interface that does not take multicast; what counts we say ourselves.
    logging.getLogger("zeroconf").setLevel(logging.CRITICAL)
    found = _Found()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_keep_telling, found, tell)
        await trio.sleep(START_AFTER_S)
        await _keep_announced(make_card, found, tell)


async def _keep_announced(
    make_card: Callable[[], Card], found: _Found, tell: Callable[[Seen], None]
) -> None:
    eager_until = trio.current_time() + EAGER_FOR_S
    level = logging.INFO
    while True:
        try:
            card = make_card()
            interfaces = _interfaces(card)
            if interfaces and card.listen:
                async with _announced(card, interfaces, found, tell):
                    _LOG.info("announced on the local network (%s)", ", ".join(interfaces))
                    level = logging.INFO
                    await _until_changed(make_card, card, eager_until)
            else:
                await trio.sleep(CHECK_EAGERLY_S)
        except Exception as error:
            # No route, no multicast, port 5353 kept by somebody: all may pass, none ends us.
            _LOG.log(level, "not on the local network for now: %s", error)
            level = logging.DEBUG
            await trio.sleep(RETRY_S)


@asynccontextmanager
async def _announced(
    card: Card, interfaces: list[str], found: _Found, tell: Callable[[Seen], None]
) -> AsyncIterator[None]:
    """Announced on these interfaces, and listening, for the length of the block."""
    responder = _Responder(card, found, tell)
    try:
        await trio.to_thread.run_sync(responder.start, interfaces)
        yield
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + STOP_S):
            await trio.to_thread.run_sync(responder.stop, abandon_on_cancel=True)


async def _until_changed(make_card: Callable[[], Card], card: Card, eager_until: float) -> None:
    """Return when there are other interfaces or other addresses to announce."""
    interfaces = _interfaces(card)
    while make_card() == card and _interfaces(card) == interfaces:
        eager = trio.current_time() < eager_until
        await trio.sleep(CHECK_EAGERLY_S if eager else CHECK_S)


async def _keep_telling(found: _Found, tell: Callable[[Seen], None]) -> None:
    while True:
        await trio.sleep(TELL_AGAIN_S)
        for seen in list(found.seen.values()):
            tell(seen)


def _interfaces(card: Card) -> list[str]:
    """The addresses whose interfaces we speak on. A daemon that listens on loopback only stays
    there; loopback is always among them, so that stacks on a machine without a network, or with
    a firewall, find one another."""
    addresses = [text for text in interface_addresses() if _usable(text)]
    if card.loopback_only:
        return [text for text in addresses if _is_loopback(text)]
    return addresses


def _usable(text: str) -> bool:
    """False for an IPv6 address in its first seconds, while the system looks for a double."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in text else socket.AF_INET) as probe:
            probe.bind((text, 0))
    except OSError:
        return False
    return True


def _is_loopback(text: str) -> bool:
    address = parse_ip(text)
    return address is not None and address.is_loopback


class _Responder:
    """One running zeroconf with our service and a browser. Made and stopped in a worker thread,
    because both block; callbacks come in zeroconf's own thread."""

    def __init__(self, card: Card, found: _Found, tell: Callable[[Seen], None]) -> None:
        """Made in Trio's thread, to which `tell` belongs."""
        self._card = card
        self._found = found
        self._tell = tell
        self._token = trio.lowlevel.current_trio_token()
        self._zeroconf: zeroconf.Zeroconf | None = None
        self._browser: zeroconf.ServiceBrowser | None = None
        self._asking: dict[str, None] = {}

    # --- in a worker thread ----------------------------------------------------------------------

    def start(self, interfaces: list[str]) -> None:
        """Announce and browse on these interfaces. Raises OSError and zeroconf's own errors."""
        from zeroconf import DNSQuestionType, IPVersion, ServiceBrowser, Zeroconf

        six = any(":" in text for text in interfaces)
        chosen: Any = interfaces
        self._zeroconf = Zeroconf(
            interfaces=chosen,
            ip_version=IPVersion.All if six else IPVersion.V4Only,
            use_asyncio=False,
        )
        # QM: unicast answers would reach only one of the stacks that share port 5353 here.
        self._browser = ServiceBrowser(
            self._zeroconf,
            SERVICE_TYPE,
            handlers=[self._changed],
            question_type=DNSQuestionType.QM,
        )
        # The name holds our id, so nobody else has it, and the probing (0.75 s) can be left out.
        self._zeroconf.register_service(self._service(), cooperating_responders=True, strict=False)

    def stop(self) -> None:
        """Say goodbye and end zeroconf's threads; harmless if it never started."""
        browser, self._browser = self._browser, None
        if browser is not None:
            browser.cancel()
        running, self._zeroconf = self._zeroconf, None
        if running is not None:
            running.close()

    def _service(self) -> zeroconf.ServiceInfo:
        from zeroconf import ServiceInfo

        card = self._card
        split = [split_address(address) for address in card.listen]
        return ServiceInfo(
            SERVICE_TYPE,
            f"{card.id_prefix}.{SERVICE_TYPE}",
            port=split[0][1],
            properties={
                "id": card.id_prefix,
                "mesh": card.mesh,
                "port": str(split[0][1]),
            },
            server=f"{card.id_prefix}.local.",
            parsed_addresses=list(dict.fromkeys(host for host, _port in split)),
        )

    # --- in zeroconf's threads -------------------------------------------------------------------

    def _changed(self, zeroconf: Any, service_type: str, name: str, state_change: Any) -> None:
        """A service came, changed or went. One that went is only no longer told again: the core
        keeps the address, and a failed dial says more than a packet that anyone can send."""
        from zeroconf import ServiceStateChange

        if zeroconf.loop is None or name.startswith(self._card.id_prefix):
            return
        if state_change is ServiceStateChange.Removed:
            self._hand_over(name, None)
        elif name not in self._asking and len(self._asking) < SERVICES_MAX:
            self._asking[name] = None
            import asyncio

            asking = self._ask(zeroconf, service_type, name)
            asyncio.run_coroutine_threadsafe(asking, zeroconf.loop)

    async def _ask(self, zeroconf: Any, service_type: str, name: str) -> None:
        from zeroconf.asyncio import AsyncServiceInfo

        try:
            info = AsyncServiceInfo(service_type, name)
            if await info.async_request(zeroconf, ASK_MS):
                seen = read_service(self._card, info.properties, info.port, info.parsed_addresses())
                if seen is not None:
                    self._hand_over(name, seen)
        finally:
            self._asking.pop(name, None)

    def _hand_over(self, name: str, seen: Seen | None) -> None:
        """The one bridge from zeroconf's thread into Trio."""
        try:
            self._token.run_sync_soon(self._take, name, seen)
        except trio.RunFinishedError:
            return

    def _take(self, name: str, seen: Seen | None) -> None:
        if seen is None:
            self._found.seen.pop(name, None)
        elif self._found.put(name, seen):
            self._tell(seen)


def read_service(
    card: Card,
    properties: Mapping[bytes, bytes | None],
    port: int | None,
    hosts: list[str],
) -> Seen | None:
    """What a service says, if it is a stack of our mesh and not ourselves; all of it is input
    from strangers. None otherwise."""
    texts = {
        key.decode("ascii", "replace"): (value or b"").decode("ascii", "replace")
        for key, value in properties.items()
    }
    prefix = texts.get("id", "")
    plain = prefix.isascii() and prefix.isalnum() and len(prefix) == ID_PREFIX_SIZE
    if not plain or prefix == card.id_prefix or texts.get("mesh") != card.mesh:
        return None
    if not port or not 0 < port < 65536:
        return None
    usable = [host for host in hosts if _dialable(host)]
    addresses = tuple(join_address(host, port) for host in usable)[:ADDRESSES_MAX]
    return Seen(prefix, addresses) if addresses else None


def _dialable(host: str) -> bool:
    address = parse_ip(host)
    if address is None or never_dialled(host):
        return False
    # Link-local IPv6 needs a scope, which an announcement cannot carry.
    return not (address.version == 6 and address.is_link_local)
