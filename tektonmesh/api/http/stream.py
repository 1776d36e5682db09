"""A response that goes on: server-sent events (WHATWG HTML, section 9.2) over ASGI.

It decides how events look and that a reader who hangs up ends what produces them, at once and in
the producer's own task. What the events are is decided by the routes.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tektonmesh.api.tasks import helpers

PING_S = 15.0
"""A comment this often keeps proxies and readers from taking silence for death."""
PING = b": still here\n\n"


def event(name: str, data: dict[str, Any], *, number: int | None = None) -> bytes:
    """One event. JSON has no bare line ends, so one `data:` line is enough."""
    shown = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    head = f"id: {number}\n" if number is not None else ""
    return f"{head}event: {name}\ndata: {shown}\n\n".encode("utf-8", "replace")


class EventStream(Response):
    """Sends what the generator yields until it ends or the reader hangs up."""

    media_type = "text/event-stream"

    def __init__(self, parts: AsyncGenerator[bytes, None]) -> None:
        super().__init__(headers={"Cache-Control": "no-store"})
        del self.headers["content-length"]
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)

        async def wait_for_the_end() -> None:
            while (await receive())["type"] != "http.disconnect":
                continue
            nursery.cancel_scope.cancel()

        async with aclosing(self._parts) as parts, helpers() as nursery:
            nursery.start_soon(wait_for_the_end)
            async for part in parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
