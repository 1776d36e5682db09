"""A daemon as MCP sees one, around a node of `tests.network`: nothing of it is real but the core.

Messages between the nodes go as between daemons (sealed, signed, judged by both policies), and take
no time. Calls to CIs go to whoever `takes_calls`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

import trio

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core.ci import CALL_TYPE
from tektonmesh.errors import error_from
from tektonmesh.mcp import catalogue as cat
from tektonmesh.mcp import rules
from tektonmesh.net.notices import Notices
from tests.network import Member, Network

STEP_S = 0.2
"""Of the network's time, for what one event sets off."""


class Desk:
    """One stack's daemon. Whatever happens at any desk of the network wakes those that wait."""

    def __init__(self, desks: Desks, member: Member) -> None:
        self._desks = desks
        self.member = member
        self.node = member.node
        self.notices = Notices()
        self.reach = None
        self.injected: list[ev.Event] = []
        self._seen = 0
        member.on_deliver = self._deliver
        self._serving: Any = None

    def takes_calls(self, serving: Any) -> None:
        """Has `deliver` and `cancel`, as `mcp/serving`."""
        self._serving = serving

    def new_id(self) -> bytes:
        return self.node.deliveries.sealer.new_id()

    async def ask(self, make: Callable[[int], ev.Event]) -> dict[str, Any]:
        ticket = self.member.do(make)
        self._desks.settle()
        while (answer := self.member.answer(ticket)) is None:
            await self._desks.news.wait()
        if isinstance(answer, fx.AnswerFailed):
            raise error_from(answer.error)
        return answer.result

    @asynccontextmanager
    async def stream(self, make: Callable[[int], ev.Event]) -> AsyncIterator[Any]:
        ticket = self.member.do(make)
        self._desks.settle()
        try:
            async with aclosing(self._parts(ticket)) as parts:
                yield parts
        finally:
            if self.member.answer(ticket) is None:
                self.inject(ev.CancelCommand(ticket))

    async def _parts(self, ticket: int) -> AsyncGenerator[bytes | dict[str, Any], None]:
        given = 0
        while True:
            chunks, answer = self.member.streamed(ticket), self.member.answer(ticket)
            for chunk in chunks[given:]:
                yield chunk
            given = len(chunks)
            if isinstance(answer, fx.AnswerFailed):
                raise error_from(answer.error)
            if answer is not None:
                yield answer.result
                return
            await self._desks.news.wait()

    def inject(self, event: ev.Event) -> None:
        self.injected.append(event)
        self.member.network.handle(self.member, event)
        self._desks.settle()

    def tell(self) -> None:
        """Pass on what the core has said since the last time."""
        effects = self.member.effects
        while self._seen < len(effects):
            effect = effects[self._seen]
            self._seen += 1
            if isinstance(effect, fx.Notice):
                self.notices.take(effect)
            elif isinstance(effect, fx.CancelDelivery) and self._serving is not None:
                self._serving.cancel(effect)

    def _deliver(self, effect: fx.Deliver) -> None:
        if effect.content_type == CALL_TYPE and self._serving is not None:
            self._serving.deliver(effect)
        elif effect.content_type != CALL_TYPE:
            self.member.reply(effect, effect.body.upper())


class Desks:
    """A network of them, in a row."""

    def __init__(self, *names: str, **settings: Any) -> None:
        self.network = Network(*names, **settings)
        self.network.join(*names)
        self.news = trio.Event()
        self.desks = {name: Desk(self, self.network[name]) for name in names}

    def __getitem__(self, name: str) -> Any:
        """A daemon, for all that those who are tested ask of one."""
        return self.desks[name]

    def settle(self, seconds: float = STEP_S) -> None:
        self.network.run(seconds)
        for desk in self.desks.values():
            desk.tell()
        news, self.news = self.news, trio.Event()
        news.set()


def tool(name: str, **more: Any) -> dict[str, Any]:
    plain = {"name": name, "description": f"It is {name}.", "inputSchema": {"type": "object"}}
    return plain | more


def catalogue(info: Mapping[str, Any] | None = None, **lists: list[Any]) -> cat.Catalogue:
    return cat.make(info or {"capabilities": {"tools": {}}}, lists, lambda _word: None)


async def offer(desk: Any, name: str, made: cat.Catalogue, **more: Any) -> None:
    """A CI of that name with an MCP server that offers this."""
    server = {"mcp": {"http": {"url": "http://[::1]:9/"}}, "how": {"kind": "none"}}
    desk.member.register(name, **({"persist": True, "share": "public"} | server | more))
    data = cat.pack(made)
    put = await desk.ask(lambda ticket: ev.PutBlob(ticket, data))
    reference = {"hash": bytes.fromhex(put["hash"]), "length": put["length"]} | made.counts()
    offered = rules.all_offered(made)
    await desk.ask(lambda ticket: ev.SetCatalogue(ticket, name, reference, offered))
