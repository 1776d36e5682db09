"""Links with relays: who is told outlines only, and what a relay passes on.

A stack with the role `relay` carries what others say to one another. For that it needs to know who
there is and which links they have, and nothing of what they offer: of each owner it gets the head
and the topology records, unasked (`RelayOutlines`). It holds them as a joining stack does for a
moment (`core/outlines`), passes them on as they are, and never compares prints over such a link: by
what others hold, it lacks everything. That a link is such a one is for whoever sends to decide.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tektonmesh.core.held import Held
from tektonmesh.core.messages import RelayOutlines
from tektonmesh.core.outlines import topology_of
from tektonmesh.core.replica import Replica
from tektonmesh.core.types import LinkId, StackId

if TYPE_CHECKING:
    from tektonmesh.core.dissemination import Dissemination

RELAY = "relay"


class RelayLinks:
    """What is known of the links of one node in this respect."""

    def __init__(self, replica: Replica, dissemination: Dissemination) -> None:
        self._replica = replica
        self._dissemination = dissemination
        self.role_of: Callable[[StackId], str] = lambda _stack_id: ""
        """The role of a stack here; told by `core/rights`."""
        self._outlined: dict[LinkId, None] = {}

    def link_down(self, link: LinkId) -> None:
        self._outlined.pop(link, None)

    def is_relay(self, link: LinkId | None) -> bool:
        """Whether the peer is a relay here."""
        peer = None if link is None else self._dissemination.peer(link)
        return peer is not None and self.is_role(peer)

    def is_role(self, stack_id: StackId) -> bool:
        """Whether a stack has the role `relay` here."""
        return self.role_of(stack_id) == RELAY

    def on_outlines(self, link: LinkId, message: RelayOutlines) -> None:
        """Hold what is new; the peer may take this stack for a relay, or be one itself. Raises
        RemoteError as `Replica.take_outline` does."""
        if message.only and self._dissemination.peer(link) is not None:
            self._outlined[link] = None
        for outline in message.outlines:
            self._dissemination.has_outline(link, outline)
            self._replica.take_outline(outline, link)

    def tell_all(self, link: LinkId) -> None:
        """The outlines of all owners go to this link; later of those that change."""
        for owner, held in self._replica.owners.items():
            if held.whole or held.outlined:
                self._dissemination.offer(link, owner)

    def pass_on(self, owner: StackId) -> None:
        """The outline of this owner came over a link with a relay, which brings no more of it."""
        for link in self._dissemination.links():
            self._dissemination.offer(link, owner)

    def is_relay_for(self, link: LinkId | None) -> bool:
        """Whether the peer takes this stack for a relay."""
        return link in self._outlined

    def is_silent(self, link: LinkId) -> bool:
        """Whether nothing is to be compared over this link."""
        return link in self._outlined or self.is_relay(link)

    def outline(self, link: LinkId, held: Held) -> RelayOutlines | None:
        """All that this link is told of an owner, if it is not told everything."""
        only = self.is_relay(link)
        return RelayOutlines((topology_of(held),), only) if only or held.outlined else None
