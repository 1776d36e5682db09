"""The end of a stack, seen from inside: say that it is coming, finish what is held, then be done.

A stack that is to stop says `draining` in its own head, so that others pass it by
(docs/design/paths.md), takes no new message of anybody, and goes on with what it has: messages in
the hands of its CIs, replies that its callers wait for, envelopes on their way through it. It is
done when it holds nothing more and nothing has passed through it for a moment, or when its time is
over; what is left then is released by leaving (`Node`) or waits on the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tektonmesh.core.machine import Env

QUIET_S = 0.15
"""So long nothing must have passed through: neighbours have the news by then, and choose other
ways 50 ms after it (`graph.SETTLE_S`). A guess for round trips of up to some 50 ms; whoever is
farther has what it sent back when the link closes, and sends it another way."""

LOOK_S = 0.02
"""How often it is looked whether anything is held."""

DEADLINE = "draining"


class Draining:
    """Waits until a node may go. `held` are the counts that must be zero, by what they count;
    `passed` counts what passes through."""

    def __init__(
        self, env: Env, held: Mapping[str, Callable[[], int]], passed: Callable[[], int]
    ) -> None:
        self._env = env
        self._held = held
        self._passed = passed
        self._last = 0
        self._quiet_at = 0.0
        self._until = 0.0
        self._told: list[Callable[[dict[str, Any]], None]] = []

    @property
    def active(self) -> bool:
        """Whether this stack takes nothing new any more."""
        return self._until > 0.0

    def held(self) -> dict[str, int]:
        """What is still here, without the counts that are zero."""
        counts = {what: count() for what, count in self._held.items()}
        return {what: count for what, count in counts.items() if count}

    def begin(self, within_s: float, done: Callable[[dict[str, Any]], None]) -> None:
        """Wait for at most `within_s`; `done` is then told what is left. Asked again, it waits for
        the earlier of the two ends and tells both."""
        until = self._env.after(within_s)
        self._until = min(self._until, until) if self.active else until
        self._told.append(done)
        self._last, self._quiet_at = self._passed(), self._env.after(QUIET_S)
        self._look()

    def _look(self) -> None:
        env, passed = self._env, self._passed()
        if passed != self._last:
            self._last, self._quiet_at = passed, env.after(QUIET_S)
        held = self.held()
        if env.now < self._until and (held or env.now < self._quiet_at):
            env.deadlines.set(DEADLINE, min(env.after(LOOK_S), self._until), self._look)
            return
        env.deadlines.drop(DEADLINE)
        assert self._told, "nobody waits twice for one end"
        told, self._told = self._told, []
        for done in told:
            done(held)
