"""Whether the HTTP endpoints of local CIs answer.

It decides how a check is made and when a verdict is worth an event: the first one, and each
change; fewer than three misses are no verdict. What a CI's health means is decided in `core/cis`.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit, urlunsplit

import trio

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.errors import MeshError
from tektonmesh.net.reach import Reach

INTERVAL_S = 30.0
FIRST_AFTER_S = 1.0
"""A CI that registers before its server listens is the normal case."""
AGAIN_AFTER_S = 5.0
MISSES_MAX = 3
ANSWER_S = 5.0


class HealthChecks:
    """Carries out `WatchEndpoint` effects: one task per watched endpoint."""

    def __init__(
        self, inject: Callable[[ev.Event], None], reach: Reach, spawn: Callable[..., None]
    ) -> None:
        self._inject = inject
        self._reach = reach
        self._spawn = spawn
        self._scopes: dict[str, trio.CancelScope] = {}

    def watch(self, effect: fx.WatchEndpoint) -> None:
        """Hand of the drive: start, change or (with None) stop watching a CI's endpoint."""
        old = self._scopes.pop(effect.ci, None)
        if old is not None:
            old.cancel()
        if effect.url is not None:
            scope = self._scopes[effect.ci] = trio.CancelScope()
            self._spawn(self._keep_checking, effect.ci, health_url(effect.url), scope)

    async def _keep_checking(self, ci: str, url: str, scope: trio.CancelScope) -> None:
        with scope:
            told: bool | None = None
            misses = 0
            await trio.sleep(FIRST_AFTER_S)
            while True:
                problem = await self._check(url)
                misses = misses + 1 if problem else 0
                if misses == 0 or misses >= MISSES_MAX:
                    healthy = not problem
                    if healthy is not told:
                        told = healthy
                        self._inject(ev.CiHealth(ci, healthy, problem))
                await trio.sleep(AGAIN_AFTER_S if 0 < misses < MISSES_MAX else INTERVAL_S)

    async def _check(self, url: str) -> str:
        """What is wrong; empty when the endpoint is well. Any HTTP answer under 500 will do: many
        CIs have no health page and say so with 404."""
        try:
            with trio.fail_after(ANSWER_S):
                async with self._reach.request("GET", url, headers={}) as answer:
                    status = answer.status_code
        except trio.TooSlowError:
            return f"no answer within {ANSWER_S:g} s"
        except MeshError as error:
            return error.detail
        except Exception as error:
            return f"no valid HTTP answer ({type(error).__name__})"
        return f"status {status}" if status >= 500 else ""


def health_url(url: str) -> str:
    """`/health` at the base of the endpoint's URL."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, "/health", "", ""))
