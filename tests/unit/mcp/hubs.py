"""A hub on a desk: stack `a` as hosts and people meet it, with the CIs of `b` a link away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import trio
import trio.testing

from tektonmesh.core import events as ev
from tektonmesh.mcp import catalogue as cat
from tektonmesh.mcp.hub import Hub, open_hub
from tektonmesh.mcp.serving import Serving
from tests.desks import Desks, catalogue, offer, tool

MADE = catalogue(
    {"capabilities": {"tools": {}, "resources": {}, "prompts": {}}, "instructions": "Be kind."},
    tools=[tool("echo"), tool("look", annotations={"readOnlyHint": True})],
    resources=[{"uri": "note://one", "name": "one", "title": "One"}],
    templates=[{"uriTemplate": "file:///{name}", "name": "file"}],
    prompts=[{"name": "ask"}],
)
Act = Callable[[str, dict[str, Any], Any], Awaitable[dict[str, Any]]]


async def echo(method: str, params: dict[str, Any], _flight: Any) -> dict[str, Any]:
    """Says what it was asked."""
    if method == "resources/read":
        return {"contents": [{"uri": params["uri"], "text": "read"}]}
    if method == "prompts/get":
        return {"messages": []}
    return {"content": [{"type": "text", "text": str(params.get("arguments"))}]}


class Server:
    """The MCP server of a CI, as `servers` keeps one."""

    def __init__(self, name: str, made: cat.Catalogue, act: Act) -> None:
        self.name, self.catalogue, self.call = name, made, act
        self.modern, self.parking = True, None
        self.subscribed: list[str] = []

    async def ready(self, *, own: bool) -> Server:
        return self

    def subscribe(self, uri: str) -> Callable[[], None]:
        self.subscribed.append(uri)
        return lambda: self.subscribed.remove(uri)


class DaemonDesk:
    """A desk with what a hub asks of a daemon besides: settings, and a hand that takes calls."""

    def __init__(self, desk: Any, home: Path, views: dict[str, Any]) -> None:
        self._desk = desk
        self.config = SimpleNamespace(home=home, mcp_views=views, mcp={})
        self.calls = 0
        self.attached: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._desk, name)

    def attach(self, deliver: Any, cancel: Any) -> int:
        self._desk.takes_calls(SimpleNamespace(deliver=deliver, cancel=cancel))
        self.attached.append(1)
        return 1

    def detach(self, number: int) -> None:
        self.attached.remove(number)


class HubBench:
    """Both stacks. `servers` are those of b."""

    def __init__(self, nursery: trio.Nursery, home: Path, **settings: Any) -> None:
        views = settings.pop("views", {})
        self.desks = Desks("a", "b", **settings)
        self.b: Any = self.desks["b"]
        self.a: Any = DaemonDesk(self.desks["a"], home, views)
        self.servers: dict[str, Server] = {}
        found: Any = SimpleNamespace(get=lambda name: self.servers.get(name.lower()))
        self.serving = Serving(self.b, found, nursery)
        self.b.takes_calls(self.serving)
        self.used: list[str] = []
        self.hub: Hub

    async def offer(
        self, name: str = "files", made: cat.Catalogue = MADE, act: Act = echo, **more: Any
    ) -> None:
        """A CI of b, and what it offers from now on."""
        self.servers[name.lower()] = Server(name, made, act)
        await offer(self.b, name, made, **more)
        await self.settle()

    async def settle(self, seconds: float = 2.0) -> None:
        """News have gone round, and what the hub fetches because of them has come."""
        self.desks.settle(seconds)
        self.hub.federation.entries()
        await trio.testing.wait_all_tasks_blocked(0.01)
        self.hub.federation.touch()

    def govern(self, act: str, **params: Any) -> None:
        """What b's people decide on a."""
        who = {"stack_id": self.a.node.env.me}
        self.b.member.do(lambda ticket: ev.Govern(ticket, act, who | params))
        self.desks.settle()

    def imports(self, *names: str) -> None:
        """What callers of a may use of b."""
        params = {"stack_id": self.b.node.env.me, "imports": list(names)}
        self.a.member.do(lambda ticket: ev.Govern(ticket, "terms", params))
        self.desks.settle()


@asynccontextmanager
async def a_hub(home: Path, **settings: Any) -> AsyncIterator[HubBench]:
    async with trio.open_nursery() as nursery:
        bench = HubBench(nursery, home, **settings)
        async with open_hub(
            bench.a, bench.used.append, lambda name, _token: name, links={}
        ) as bench.hub:
            await trio.testing.wait_all_tasks_blocked()
            yield bench
        nursery.cancel_scope.cancel()
