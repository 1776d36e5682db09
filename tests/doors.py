"""Running stacks with open doors, in this process, for the tests of the doors."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from tektonmesh.api.doors import open_doors
from tektonmesh.api.operations import Operations
from tektonmesh.config import Config, socket_path
from tektonmesh.config.home import prepare_socket_folder
from tektonmesh.net.daemon import Daemon, open_daemon

SECRET = "a mesh secret of more than thirty-two characters"


def config_of(home: Path, name: str, **changes: Any) -> Config:
    """A stack that listens on some loopback port and knows nobody."""
    settings: dict[str, Any] = {
        "home": home / name,
        "name": name,
        "mesh": "test",
        "secret": (SECRET,),
        "lan": False,
        "admission": "secret",
        "allow": (),
        "listen": ("127.0.0.1:0",),
        "seeds": (),
        "seeds_only": False,
        "mdns": False,
        "http": None,
        "socket": socket_path(home / name),
        "share_default": "public",
        "relay": "members",
        "refresh_s": None,
        "tekton_root": None,
        "log_level": "info",
    }
    return Config(**settings | changes)


@asynccontextmanager
async def open_stack(home: Path, name: str = "west", **changes: Any) -> AsyncIterator[Operations]:
    """A daemon with its doors; its folder is made first, since the socket's place depends on it."""
    (home / name).mkdir(mode=0o700, exist_ok=True)
    config = config_of(home, name, **changes)
    prepare_socket_folder(config.socket, config.home)
    async with open_daemon(config) as daemon, open_doors(daemon) as doors:
        yield doors


def socket_of(doors: Operations) -> str:
    return str(doors.daemon.socket_path)


async def until(condition: Any, within_s: float = 10.0) -> None:
    """Wait until something holds that no event tells of."""
    with trio.fail_after(within_s):
        while not condition():
            await trio.sleep(0.01)


class Lines:
    """A program that speaks the socket's lines by hand."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._rest = b""

    async def write(self, *messages: dict[str, Any] | bytes) -> None:
        data = [
            one if isinstance(one, bytes) else json.dumps(one).encode() + b"\n" for one in messages
        ]
        await self.stream.send_all(b"".join(data))

    async def read(self) -> dict[str, Any] | None:
        """The next object; None at the end."""
        with trio.fail_after(10):
            while b"\n" not in self._rest:
                try:
                    data = await self.stream.receive_some(65536)
                except trio.BrokenResourceError:
                    return None
                if not data:
                    return None
                self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        shown: dict[str, Any] = json.loads(line)
        return shown

    async def call(self, call: Any, method: str, **params: Any) -> dict[str, Any]:
        """The next object after a call; nothing else may come in between."""
        await self.write({"jsonrpc": "2.0", "id": call, "method": method, "params": params})
        answer = await self.read()
        assert answer is not None and answer.get("id") == call, answer
        return answer


@asynccontextmanager
async def lines_to(daemon: Daemon) -> AsyncIterator[Lines]:
    async with await trio.open_unix_socket(str(daemon.socket_path)) as stream:
        yield Lines(stream)
