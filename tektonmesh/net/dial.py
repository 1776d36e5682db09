"""Opening links: the core says where to, here it is tried.

It decides how a name becomes tries at numeric addresses and which failure is reported. When to
try, and when again, is decided in `core/dialling`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import trio

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core.types import StackId
from tektonmesh.errors import MeshError
from tektonmesh.net.addresses import is_near, split_address
from tektonmesh.net.link import Link, LinkContext, LinkRefused, open_link
from tektonmesh.net.links import Links
from tektonmesh.net.log import clean
from tektonmesh.net.seeds import resolve

_LOG = logging.getLogger(__name__)

TRIES_S = 10.0
"""For one dial with all its addresses; one address may use 3 s to connect (core settings)."""

AT_ONCE_MAX = 32
"""Dials in flight. More would only compete for the CPU that handshakes take."""

_FAILURES = frozenset({"unreachable", "self", "wrong_identity", "protocol"})

Spawn = Callable[..., None]


class Dialler:
    """Carries out `Dial` effects, one task each."""

    def __init__(
        self,
        inject: Callable[[ev.Event], None],
        links: Links,
        context: Callable[[], LinkContext],
        spawn: Spawn,
        *,
        near_only: bool = False,
        seeds: Sequence[str] = (),
    ) -> None:
        """Each of the addresses `seeds` that cannot be dialled is told as a problem, once until
        that changes."""
        self._seeds = dict.fromkeys(seeds)
        self._troubles: dict[str, str] = {}
        self._inject = inject
        self._links = links
        self._context = context
        self._spawn = spawn
        self._near_only = near_only
        self._places = trio.CapacityLimiter(AT_ONCE_MAX)

    def dial(self, effect: fx.Dial) -> None:
        """Hand of the drive: start trying; the outcome comes as an event."""
        self._spawn(self._dial, effect.address, effect.expect)

    async def _dial(self, address: str, expect: StackId | None) -> None:
        async with self._places:
            link = await self._try(address, expect)
        if link is not None:
            self._troubles.pop(address, None)
            await self._links.serve(link, address)

    async def _try(self, address: str, expect: StackId | None) -> Link | None:
        code, detail = "unreachable", f"no answer within {TRIES_S:g} s"
        with trio.move_on_after(TRIES_S):
            try:
                targets = await resolve(address)
            except MeshError as error:
                self._failed(address, expect, "unreachable", error.detail)
                return None
            for target in targets:
                if self._near_only and not is_near(split_address(target)[0]):
                    code, detail = "refused", "the test secret counts on near addresses only"
                    continue
                try:
                    return await open_link(target, self._context(), expect=expect)
                except LinkRefused as refusal:
                    code, detail = self._judge(refusal), refusal.detail
                except Exception:
                    # What a stranger answers must not end the daemon, whatever it sets off.
                    _LOG.exception("fault in the handshake with %s", target)
                    code, detail = "protocol", "internal fault"
                if code == "refused":
                    break
        self._failed(address, expect, code, detail)
        return None

    def _judge(self, refusal: LinkRefused) -> str:
        """The core's word for it; a refusal by anyone's decision is also shown to people."""
        if refusal.code in _FAILURES:
            return refusal.code
        self._links.refused(refusal)
        return "refused"

    def _failed(self, address: str, expect: StackId | None, code: str, detail: str) -> None:
        _LOG.debug("dialling %s failed (%s): %s", address, code, detail)
        # Refusals were said by `links`; a seed list that is the same everywhere names us as well.
        if address in self._seeds and code not in ("refused", "self"):
            self._tell_trouble(address, code, detail)
        self._inject(ev.DialFailed(address, expect, code, detail))

    def _tell_trouble(self, address: str, code: str, detail: str) -> None:
        """A seed peer is dialled for ever: people need the line once until it changes."""
        if self._troubles.get(address) == code:
            return
        self._troubles[address] = code
        said = f"seed peer {address} cannot be dialled ({code}): {clean(detail)}"
        _LOG.warning("%s", said)
        self._links.on_problem(said)
