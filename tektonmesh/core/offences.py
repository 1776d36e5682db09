"""What comes of it when a peer breaks the protocol: its link closes, and the strike is noted.

This module decides between what is told, what closes a link and what counts against a stack. How
strikes add up is `strikes`' business.
"""

from __future__ import annotations

from tektonmesh.core.effects import CloseLink
from tektonmesh.core.machine import Env
from tektonmesh.core.neighbours import Neighbours
from tektonmesh.core.strikes import HELD_OFF
from tektonmesh.core.trust import Trust
from tektonmesh.core.types import LinkId, StackId
from tektonmesh.errors import NoveltyError, RemoteError

NOVELTY_QUIET_S = 600.0
"""Between two notices of what only later versions understand. A guess."""
_HELD_OFF_DETAIL = "This stack broke the protocol several times and is held off for a while."


class Offences:
    """The judge of one node's peers."""

    def __init__(self, env: Env, trust: Trust, neighbours: Neighbours) -> None:
        self._env = env
        self._trust = trust
        self._neighbours = neighbours
        self._novelty_due = env.now

    def refuse(self, link: LinkId, stack_id: StackId) -> bool:
        """Whether a link that has just come up is closed again, since its peer was struck while it
        shook hands. The dial, if one led here, counts as unanswered."""
        held_off = self._trust.strikes.held_off_s(stack_id) > 0.0
        if held_off:
            self._env.emit(CloseLink(link, HELD_OFF, _HELD_OFF_DETAIL))
        return held_off

    def pass_over(self, link: LinkId, error: NoveltyError) -> None:
        """Something of a later version. People hear of it once in a while."""
        if self._env.now >= self._novelty_due:
            self._novelty_due = self._env.after(NOVELTY_QUIET_S)
            self._env.notice("novelty_ignored", link=link, detail=error.detail)

    def on_link(self, link: LinkId, error: RemoteError) -> None:
        """A peer broke the protocol: its link closes and that is remembered against it."""
        neighbour = self._neighbours.links.get(link)
        self._env.counts.strikes += 1
        self._env.notice("link_error", link=link, detail=error.detail)
        self._env.emit(CloseLink(link, error.code.name, error.detail))
        if neighbour is not None:  # what follows a Bye in one batch is nobody's any more
            self.strike(neighbour.stack_id, error.detail)

    def afar(self, stack_id: StackId, detail: str) -> None:
        """A stack broke the protocol of one message, maybe from afar: its links stay."""
        self._env.counts.strikes += 1
        self.strike(stack_id, detail)

    def strike(self, stack_id: StackId, reason: str) -> None:
        """Note a fault; a peer that has made too many loses its links."""
        if self._trust.strikes.strike(stack_id, reason) > 0.0:
            self._neighbours.close(stack_id, HELD_OFF, _HELD_OFF_DETAIL)
