"""Links that were made under keys which their peer has replaced: when they end.

Whoever holds revoked keys may be a thief, so links under them end at once. Keys that were replaced
as a habit are still in the right hands: their links end one after another, since all of them at
once would cut a busy stack off for a moment. A new link shows the new keys.
"""

from __future__ import annotations

from functools import partial

from tektonmesh.core.effects import CloseLink
from tektonmesh.core.events import PeerRefused
from tektonmesh.core.ids import show_id
from tektonmesh.core.keydoc import KeyDoc
from tektonmesh.core.machine import Env
from tektonmesh.core.types import LinkId, StackId

OLD_KEYS = "old_keys"
"""The code that a link is closed with, or a handshake refused."""
OLD_LINK_S = 120.0
"""So long at most, and half of it at least, a link stays under replaced keys. A guess."""
QUIET_S = 600.0
"""A thief dials again every few seconds; the log needs the entry once in a while."""


class OldLinks:
    """The key epoch of each link's peer, as its handshake showed it."""

    def __init__(self, env: Env) -> None:
        self.env = env
        self._links: dict[LinkId, tuple[StackId, int]] = {}
        self._refused: dict[StackId, float] = {}
        """When it was last said; only of stacks whose newer keys are known, so it is bounded."""

    def link_up(self, link: LinkId, keydoc: KeyDoc) -> None:
        self._links[link] = keydoc.stack_id, keydoc.key_epoch

    def link_down(self, link: LinkId) -> None:
        self._links.pop(link, None)
        self.env.deadlines.drop((OLD_KEYS, link))

    def keys_changed(self, keydoc: KeyDoc) -> None:
        """This key document of a stack is the newest that is known here."""
        for link, (stack_id, key_epoch) in list(self._links.items()):
            behind = keydoc.key_epoch - key_epoch if stack_id == keydoc.stack_id else 0
            if behind == 1 and keydoc.grace:
                if (OLD_KEYS, link) not in self.env.deadlines:
                    wait_s = OLD_LINK_S * (0.5 + 0.5 * self.env.chance.random())
                    end = partial(self._end, link, keydoc)
                    self.env.deadlines.set((OLD_KEYS, link), self.env.after(wait_s), end)
            elif behind > 0:
                self._end(link, keydoc)

    def refused(self, event: PeerRefused) -> None:
        """Somebody showed keys that were replaced: an old backup, or a thief. That is worth an
        entry now and then."""
        known = self._refused.get(event.stack_id)
        if known is None or self.env.now - known >= QUIET_S:
            self._refused[event.stack_id] = self.env.now
            shown = {"stack": show_id(event.stack_id), "address": event.address}
            self.env.audit("old_keys_refused", **shown)

    def relink(self, stack_id: StackId, detail: str) -> None:
        """What a link with this stack carries was settled when it began: begin anew."""
        for link, (peer, _key_epoch) in self._links.items():
            if peer == stack_id:
                self.env.emit(CloseLink(link, "relink", detail))

    def _end(self, link: LinkId, keydoc: KeyDoc) -> None:
        self.env.deadlines.drop((OLD_KEYS, link))
        detail = "This stack has newer keys than those of this link."
        self.env.emit(CloseLink(link, OLD_KEYS, detail))
        stack = show_id(keydoc.stack_id)
        self.env.audit(OLD_KEYS, stack=stack, key_epoch=keydoc.key_epoch)
