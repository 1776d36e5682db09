"""Stacks that others take for members and this one does not, since nothing proves it here.

In a mesh with a secret a guest (by invite or approval, without the secret) is known to the stacks
that admitted it and to no other, and itself knows no more than these: one member's word opens no
door of another. So replicas that are linked hold different stacks for good. Each tells the other
whom it leaves out (`Refuses`), as with those it evicted, and the two compare the rest.
"""

from __future__ import annotations

from collections.abc import Callable

from tektonmesh.core.machine import Env
from tektonmesh.core.types import StackId

SETTLE_S = 3.0
"""What proves a stack may come a moment after it: whoever vouches for it joins as well."""
AGAIN_S = 1800.0
"""Where members vouch for one another a new proof may exist that we asked not to be told of."""
UNPROVEN_MAX = 192
"""A liar can name as many as it likes; the rest of a `Refuses` is for those that were evicted."""

_LOOK = "unproven"


class Unproven:
    """Who is left out on all links of one node. `changed` is called when that is somebody else."""

    def __init__(self, env: Env, changed: Callable[[], None]) -> None:
        self.env = env
        self._changed = changed
        self._since: dict[StackId, float] = {}
        self._told: tuple[StackId, ...] = ()

    @property
    def left_out(self) -> tuple[StackId, ...]:
        """Sorted."""
        return self._told

    def came(self, owner: StackId) -> None:
        """News of an owner came and were not taken for want of a proof."""
        if owner in self._since or len(self._since) >= UNPROVEN_MAX:
            return
        self._since[owner] = self.env.now
        self.env.deadlines.set_earlier(_LOOK, self.env.after(SETTLE_S), self._look)

    def believe(self, owner: StackId) -> None:
        """This stack is a member after all, or may be one: it, and where members vouch for one
        another everybody that it could vouch for."""
        if self.env.settings.mesh_keys:
            found = self._since.pop(owner, None) is not None
        else:
            found = bool(self._since)
            self._since.clear()
        if found:
            self._look()

    def _look(self) -> None:
        """Leave out whoever is unproven for long enough; in a mesh without a secret, not for
        ever."""
        now = self.env.now
        if not self.env.settings.mesh_keys:
            for owner in [one for one, since in self._since.items() if now - since >= AGAIN_S]:
                del self._since[owner]
        settled = dict.fromkeys(one for one, at in self._since.items() if now - at >= SETTLE_S)
        self.env.deadlines.drop(_LOOK)
        for owner, since in self._since.items():
            due = since + (AGAIN_S if owner in settled else SETTLE_S)
            if due > now:
                self.env.deadlines.set_earlier(_LOOK, due, self._look)
        if tuple(sorted(settled)) != self._told:
            self._told = tuple(sorted(settled))
            self._changed()
