"""Large bodies of local callers: handed in before the message that they are of, by name.

It decides what is large (more than an envelope holds) and that a name is good for one message. The
files are `net/spool`'s; what becomes of a message is the core's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from tektonmesh.api import validate
from tektonmesh.api.bodies import body_of
from tektonmesh.core.large import Large
from tektonmesh.net.daemon import Daemon

REF = "body_ref"


class Uploads:
    """The large bodies of one daemon's callers."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    async def hand_in(self, parts: AsyncIterator[bytes]) -> dict[str, Any]:
        """Keep a body until it is sent: `{"body_ref", "size"}`. Raises LocalError `too_large`,
        DeliveryError `busy`, StoreError."""
        large = await self._daemon.spool.take(parts)
        return {REF: large.name, "size": large.size}

    def is_large(self, params: Mapping[str, Any]) -> bool:
        """Whether the body in these parameters fits into no envelope."""
        limit = self._daemon.node.env.settings.body_size_max
        text, encoded = params.get("body"), params.get("body_b64")
        if isinstance(encoded, str):
            return len(encoded) * 3 // 4 > limit + 2
        if not isinstance(text, str) or len(text) * 4 <= limit:
            return False
        return len(text) > limit or len(text.encode("utf-8", "replace")) > limit

    async def fitting(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """The same message, its body handed in if it is large."""
        if not self.is_large(params):
            return params
        body = body_of(params)

        async def parts() -> AsyncIterator[bytes]:
            yield body

        handed = await self.hand_in(parts())
        rest = {key: value for key, value in params.items() if key not in ("body", "body_b64")}
        return rest | {REF: handed[REF]}

    def named(self, params: Mapping[str, Any]) -> str:
        """The name that these parameters give for a body; empty if they do not. Raises LocalError
        `not_found` if no such body waits to be sent."""
        name = validate.text(params, REF, default="", size_max=64)
        if name:
            self._daemon.spool.check(name)
        return name

    def claim(self, name: str) -> Large:
        """The body, for the message that is sent in this very turn."""
        return self._daemon.spool.claim(name)
