"""The links that are up: one task each, and the hands through which the core speaks on them.

It decides how a link's life is told to the node (LinkUp, Received ..., LinkDown, in that order,
once each) and how a refused handshake is reported. Who is admitted is decided in `core/trust`,
which link survives a double dial in `core/neighbours`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import count

import trio

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core.ids import show_id
from tektonmesh.core.oldlinks import OLD_KEYS
from tektonmesh.core.types import LinkId, StackId
from tektonmesh.errors import MeshError
from tektonmesh.net.link import Link, LinkRefused
from tektonmesh.net.log import clean
from tektonmesh.net.rounds import ROUND_BYTES, Rounds

_LOG = logging.getLogger(__name__)

REFUSALS_REMEMBERED = 256
REFUSAL_QUIET_S = 600.0
"""A refused peer dials again every few seconds; people need the line once."""

_LISTED = frozenset({"not_admitted"})
"""Refusals that somebody can settle with `peers approve`, and that `peers` therefore lists."""


class Links:
    """All links of this daemon, by the number under which the core knows them."""

    def __init__(
        self,
        me: StackId,
        inject: Callable[[ev.Event], None],
        on_stale_leaf: Callable[[LinkRefused], None],
        rounds: Rounds,
        on_problem: Callable[[str], None],
    ) -> None:
        """`on_stale_leaf` hears of peers that have seen a newer certificate of ours, `on_problem`
        of refusals in a sentence."""
        self.on_problem = on_problem
        self._rounds = rounds
        self._me = me
        self._inject = inject
        self._on_stale_leaf = on_stale_leaf
        self._bytes_in = 0
        self._bytes_out = 0
        self._links: dict[LinkId, Link] = {}
        self._ids = count(1)
        self._refusals: dict[tuple[StackId | str, bool, str], float] = {}

    def __len__(self) -> int:
        return len(self._links)

    def queued(self) -> int:
        """Bytes that wait in all links."""
        return sum(link.queued for link in self._links.values())

    def bytes_in(self) -> int:
        """Bytes that all links together have brought, with those that are gone."""
        return self._bytes_in + sum(link.bytes_in for link in self._links.values())

    def bytes_out(self) -> int:
        """Bytes that all links together have taken."""
        return self._bytes_out + sum(link.bytes_out for link in self._links.values())

    # --- hands of the drive ----------------------------------------------------------------------

    def send(self, effect: fx.Send) -> None:
        link = self._links.get(effect.link)
        if link is not None:
            link.queue(effect.messages)
            if link.queued < ROUND_BYTES:
                self._rounds.at_end(link.flush)
            else:
                link.flush()

    def close_link(self, effect: fx.CloseLink) -> None:
        link = self._links.get(effect.link)
        if link is not None:
            link.close(effect.code, effect.detail)

    # --- a link's life ---------------------------------------------------------------------------

    async def serve(self, link: Link, address: str) -> None:
        """Live through one authenticated link until it is gone. `address` is where it goes to (as
        it was dialled) or comes from."""
        number = next(self._ids)
        self._links[number] = link
        fault = False
        try:
            self._inject(_link_up(number, link, address))
            fault = await self._pump(number, link)
        finally:
            del self._links[number]
            self._bytes_in += link.bytes_in
            self._bytes_out += link.bytes_out
            self._inject(ev.LinkDown(number, link.reason, fault))

    async def _pump(self, number: LinkId, link: Link) -> bool:
        """Carry messages until the link ends. Whether it ended because what came could not be
        read."""
        fault = False
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(link.run)
                async for messages in link:
                    self._inject(ev.Received(number, messages))
        except* MeshError as group:
            # The peer broke the protocol and was told; the link is closed already.
            fault = True
            _LOG.debug("link with %s: %s", clean(link.peer.name), first_of(group))
        except* Exception as group:
            # A fault of ours in reading one peer's bytes costs that peer's link, not the daemon.
            _LOG.error("fault on the link with %s", clean(link.peer.name), exc_info=group)
        return fault

    async def flush(self) -> None:
        """Wait until every link has written what is queued. The caller sets the time limit."""
        while any(link.queued for link in self._links.values()):
            await trio.sleep(0.01)

    async def gone(self) -> None:
        """Wait until no link is left. The caller sets the time limit."""
        while self._links:
            await trio.sleep(0.01)

    def close_all(self, code: str, detail: str) -> None:
        """Say goodbye on every link."""
        for link in list(self._links.values()):
            link.close(code, detail)

    # --- refusals --------------------------------------------------------------------------------

    def refused(self, refusal: LinkRefused) -> None:
        """One end did not admit the other: tell the core (it lists the peer) and people."""
        stack_id = refusal.stack_id
        if refusal.code == "stale_leaf" and refusal.by_peer:
            self._on_stale_leaf(refusal)
        if stack_id is not None and refusal.code in _LISTED:
            # `outbound` means to the core that they refused us, whoever dialled.
            self._inject(
                ev.PeerRefused(
                    stack_id,
                    refusal.name,
                    refusal.address,
                    refusal.by_peer,
                    refusal.detail,
                    refusal.peer.invite if refusal.peer is not None else b"",
                )
            )
        elif stack_id is not None and refusal.code == OLD_KEYS and not refusal.by_peer:
            self._inject(ev.PeerRefused(stack_id, refusal.name, refusal.address, False, OLD_KEYS))
        known = (refusal.address if stack_id is None else stack_id, refusal.by_peer, refusal.code)
        level = logging.WARNING if self._is_news(known) else logging.DEBUG
        said = self._sentence(refusal)
        _LOG.log(level, "%s", said)
        if level == logging.WARNING:
            self.on_problem(said)

    def _sentence(self, refusal: LinkRefused) -> str:
        """Who, where, why, and what to do about it."""
        stack_id = refusal.stack_id
        who = f"'{clean(refusal.name)}'" if refusal.name else "the stack"
        identified = f" (id {show_id(stack_id)})" if stack_id is not None else ""
        where = f"{'at' if refusal.outbound else 'from'} {refusal.address}"
        why = clean(refusal.detail).rstrip(".")
        if refusal.by_peer:
            said = f"refused by {who}{identified} {where}: {why}."
            todo = f"On that stack run `tektonmesh peers approve {show_id(self._me)}`"
            todo += ", unless this one was evicted there: that is permanent."
        elif refusal.detail == "evicted":
            said = f"refused {who}{identified} {where}: {why}."
            todo = "It was evicted here, and an eviction is permanent."
        else:
            said = f"refused {who}{identified} {where}: {why}."
            todo = f"To admit it run `tektonmesh peers approve {show_id(stack_id or b'')}`."
        return f"{said} {todo}" if refusal.code in _LISTED else said

    def _is_news(self, key: tuple[StackId | str, bool, str]) -> bool:
        now = trio.current_time()
        last = self._refusals.pop(key, None)
        if last is not None and now - last < REFUSAL_QUIET_S:
            self._refusals[key] = last
            return False
        if len(self._refusals) >= REFUSALS_REMEMBERED:
            del self._refusals[next(iter(self._refusals))]
        self._refusals[key] = now
        return True


def _link_up(number: LinkId, link: Link, address: str) -> ev.LinkUp:
    peer = link.peer
    return ev.LinkUp(
        number,
        peer.stack_id,
        peer.name,
        peer.keydoc,
        peer.instance,
        tuple(peer.addresses),
        address,
        link.outbound,
        peer.invite,
    )


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error inside nested groups."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
