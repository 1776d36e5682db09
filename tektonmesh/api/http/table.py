"""What a route is: its place, its handler, who may call it, and what the OpenAPI page says of it.

One table serves the router, the guard and the page, so that none of them can know of a route that
the others do not. The rows are in the `routes_*` modules and in `tekton.hermes`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from tektonmesh.api import validate
from tektonmesh.api.http.guard import Access
from tektonmesh.api.operations import Caller, Operations
from tektonmesh.api.tasks import helpers
from tektonmesh.errors import LocalError
from tektonmesh.wire.jsonrpc import read_json

BODY_SIZE_MAX = 1 << 20


class Call:
    """One HTTP request as the handlers see it."""

    def __init__(self, request: Request, operations: Operations, caller: Caller) -> None:
        self.request = request
        self.operations = operations
        self.caller = caller
        self._body: bytes | None = None

    @property
    def place(self) -> Mapping[str, str]:
        """The parts of the path that the route names."""
        return self.request.path_params

    @property
    def query(self) -> dict[str, Any]:
        """The query; true, false and numbers stay text."""
        return dict(self.request.query_params)

    @property
    def over_tcp(self) -> bool:
        """Whether it came over TCP and not over the Unix socket."""
        return self.request.scope["state"].get("guard") is not None

    def header(self, name: str) -> str:
        return str(self.request.headers.get(name, ""))

    async def body(self) -> bytes:
        """The whole body. Raises LocalError (`too_large`)."""
        if self._body is None:
            parts, size = [], 0
            async with aclosing(self.request.stream()) as stream:
                async for part in stream:
                    size += len(part)
                    if size > BODY_SIZE_MAX:
                        detail = f"The body is over {BODY_SIZE_MAX} bytes."
                        raise LocalError(detail, code="too_large")
                    parts.append(part)
            self._body = b"".join(parts)
        return self._body

    async def body_or(self, take: Callable[[AsyncIterator[bytes]], Awaitable[Any]]) -> Any:
        """None if the body has at most `BODY_SIZE_MAX` bytes (`body` has it then), else what `take`
        makes of all its parts as they come."""
        parts, size = [], 0
        async with aclosing(self.request.stream()) as stream:
            async for part in stream:
                size += len(part)
                parts.append(part)
                if size > BODY_SIZE_MAX:
                    self._body = b"".join(parts)[:1]
                    return await take(_chained(parts, stream))
        self._body = b"".join(parts)
        return None

    async def json(self) -> dict[str, Any]:
        """The body as a JSON object; an empty body is an empty object. Raises LocalError."""
        body = await self.body()
        value = read_json(body) if body.strip() else {}
        if not isinstance(value, dict):
            raise LocalError("The body must be a JSON object.")
        return value

    async def until_gone(self, act: Callable[[], Awaitable[Any]]) -> Any:
        """What `act` returns; a caller who hangs up meanwhile cancels it."""
        await self.body()
        result: list[Any] = []

        async def wait_for_the_end() -> None:
            while (await self.request.receive())["type"] != "http.disconnect":
                continue
            nursery.cancel_scope.cancel()

        async with helpers() as nursery:
            nursery.start_soon(wait_for_the_end)
            result.append(await act())
        if not result:
            raise LocalError("The caller hung up.", code="cancelled")
        return result[0]


async def _chained(first: list[bytes], rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    for part in first:
        yield part
    async for part in rest:
        yield part


Handler = Callable[[Call], Awaitable[Any]]
"""Returns what JSON can carry, or a Starlette response. Raises MeshError."""


@dataclass(frozen=True, slots=True)
class Route:
    """One row. `answer` and `body` name schemas of `schemas`; a name in brackets is a list."""

    method: str
    path: str
    handler: Handler
    summary: str
    answer: str = "Object"
    body: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    errors: tuple[str, ...] = ()
    access: Access = Access.OWNER
    media: str = "application/json"


def filters_of(call: Call) -> dict[str, Any]:
    """The query of a list of CIs, with `local` as true or false."""
    found = call.query
    if "local" in found:
        found["local"] = switch("local", found["local"])
    return found


def switch(name: str, value: Any) -> bool:
    """A true or false of a query."""
    words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    found = words.get(str(value).lower())
    if found is None:
        raise validate.field_error(name, "must be true or false")
    return found


def seconds(name: str, value: Any) -> float:
    """A number of a query or header."""
    try:
        return float(value)
    except ValueError:
        raise validate.field_error(name, "must be a number of seconds") from None
