"""What tests of whole daemons share: stacks on loopback in one process, a CI that answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import trio

from tektonmesh.config import Config
from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core import views
from tektonmesh.net.daemon import Daemon, open_daemon

SECRET = "a mesh secret of more than thirty-two characters"


def config_of(home: Path, name: str, **changes: Any) -> Config:
    """A stack that listens on some loopback port and knows nobody."""
    config = Config(
        home=home / name,
        name=name,
        mesh="test",
        secret=(SECRET,),
        lan=False,
        admission="secret",
        allow=(),
        listen=("127.0.0.1:0",),
        seeds=(),
        seeds_only=False,
        mdns=False,
        http=None,
        socket=home / name / "tektonmesh.sock",
        share_default="public",
        relay="members",
        refresh_s=None,
        tekton_root=None,
        log_level="debug",
    )
    return replace(config, **changes)


async def until(condition: Callable[[], object], within_s: float = 10.0) -> None:
    """Wait until something holds that no event tells of."""
    with trio.fail_after(within_s):
        while not condition():
            await trio.sleep(0.01)


def state_of(daemon: Daemon, name: str) -> str | None:
    states = {shown["name"]: shown["state"] for shown in views.stacks(daemon.node)}
    return states.get(name)


def addresses_of_cis(daemon: Daemon) -> list[str]:
    return [shown["address"] for shown in views.cis(daemon.node)]


@asynccontextmanager
async def open_pair(home: Path, **changes: Any) -> AsyncIterator[tuple[Daemon, Daemon]]:
    """Two stacks, the second with the first as its seed, that have found each other."""
    async with AsyncExitStack() as stack:
        west = await stack.enter_async_context(open_daemon(config_of(home, "west", **changes)))
        east = await stack.enter_async_context(
            open_daemon(config_of(home, "east", seeds=(west.listen[0],), **changes))
        )
        await until(lambda: state_of(west, "east") == state_of(east, "west") == "up")
        yield west, east


def spec_of(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "type": "ci",
        "specialties": ["echo"],
        "capabilities": [],
        "share": None,
        "persist": False,
        "lease_s": None,
        "description": "",
        "stream": False,
        "how": {"kind": "attached"},
        "metadata": {},
        "via": "socket",
    } | changes


async def attach_echo(daemon: Daemon, name: str = "numa") -> int:
    """A CI that answers with what it was told, in capitals."""

    def deliver(effect: fx.Deliver) -> None:
        daemon.inject(ev.ReplyDone(effect.delivery, effect.body.upper(), effect.content_type))

    connection = daemon.attach(deliver, lambda _effect: None)
    await daemon.ask(lambda ticket: ev.RegisterCi(ticket, spec_of(name), connection, None, True))
    return connection


def message(target: str, body: bytes = b"hello", timeout_s: float = 10.0) -> Callable[[int], Any]:
    return lambda ticket: ev.SendMessage(
        ticket, target, body, "text/plain", "", timeout_s, False, {}
    )
