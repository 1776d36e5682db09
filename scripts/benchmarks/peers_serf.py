"""Serf agents as a group: their processes and their RPC protocol.

Serf (HashiCorp) is SWIM with Lifeguard over UDP gossip. Agents run with their default LAN profile,
unencrypted, without snapshots. Their state is read over RPC (msgpack over TCP, a header
`{Command, Seq}` and a body each way): the member events of `serf monitor` are held back for one to
three seconds to be told in groups, and the command line would cost a process for each look.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable
from typing import Any

import msgpack

from scripts.benchmarks.watching import until_all
from tests.e2e.stacks import free_ports


class Rpc:
    """One connection to an agent."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=90)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._unpacker = msgpack.Unpacker(raw=False)
        self._seq = 0
        self.call("handshake", Version=1)

    def call(self, command: str, **body: Any) -> None:
        """A command whose answer is a header alone."""
        self._seq += 1
        header = {"Command": command, "Seq": self._seq}
        self._socket.sendall(msgpack.packb(header) + msgpack.packb(body))
        answer = self.hear()
        assert answer == {"Seq": self._seq, "Error": ""}, (command, answer)

    def ask(self, command: str, **body: Any) -> dict[str, Any]:
        """A command whose answer has a body."""
        self.call(command, **body)
        return self.hear()

    def hear(self) -> dict[str, Any]:
        while True:
            with contextlib.suppress(msgpack.OutOfData):
                said: dict[str, Any] = self._unpacker.unpack()
                return said
            read = self._socket.recv(65536)
            if not read:
                raise ConnectionError("the agent hung up")
            self._unpacker.feed(read)

    def member(self, name: str) -> dict[str, Any]:
        """What this agent shows of a member; empty if nothing."""
        found = self.ask("members-filtered", Name=name, Status="", Tags={})["Members"]
        return dict(found[0]) if found else {}

    def alive(self) -> int:
        return len(self.ask("members-filtered", Name="", Status="alive", Tags={})["Members"])

    def close(self) -> None:
        self._socket.close()


class SerfGroup:
    """`count` agents that have joined the first one."""

    label = "serf"

    def __init__(self, count: int) -> None:
        ports = free_ports(2 * count)
        self.changes: dict[str, Callable[[int], float]] = {"tag": self._tag, "event": self._event}
        self._names = [f"n{number:02}" for number in range(count)]
        self._ports = list(zip(ports[:count], ports[count:], strict=True))
        self._agents: list[subprocess.Popen[bytes]] = []
        self._rpcs: list[Rpc] = []
        self._streams: list[Rpc] = []
        try:
            for number in range(count):
                self._agents.append(self._spawn(number))
                self._rpcs.append(self._reach(number))
            self._all_alive()
        except BaseException:
            self.close()
            raise

    def _spawn(self, number: int) -> subprocess.Popen[bytes]:
        gossip, rpc = self._ports[number]
        command = ["serf", "agent", "-node", self._names[number], "-log-level", "err"]
        command += ["-bind", f"127.0.0.1:{gossip}", "-rpc-addr", f"127.0.0.1:{rpc}"]
        if number:
            command += ["-join", f"127.0.0.1:{self._ports[0][0]}"]
        quiet = subprocess.DEVNULL
        return subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)

    def _reach(self, number: int) -> Rpc:
        give_up = time.monotonic() + 20
        while True:
            try:
                return Rpc(self._ports[number][1])
            except OSError:
                assert self._agents[number].poll() is None, "the agent ended"
                assert time.monotonic() < give_up, "the agent does not answer"
                time.sleep(0.01)

    def _all_alive(self) -> None:
        count = len(self._names)
        until_all([lambda rpc=rpc: rpc.alive() == count for rpc in self._rpcs])

    def pids(self) -> list[int]:
        return [agent.pid for agent in self._agents]

    def death(self, victim: int) -> float:
        others = [rpc for at, rpc in enumerate(self._rpcs) if at != victim]
        name = self._names[victim]
        began = time.monotonic()
        self._agents[victim].kill()
        shown = [lambda rpc=rpc: rpc.member(name).get("Status") == "failed" for rpc in others]
        took = until_all(shown) - began
        self._agents[victim].wait(10)
        self._rpcs[victim].close()
        self._agents[victim] = self._spawn(victim)
        self._rpcs[victim] = self._reach(victim)
        self._all_alive()
        return took

    def _tag(self, number: int) -> float:
        writer, *others = self._rpcs
        name, value = self._names[0], str(number)
        began = time.monotonic()
        writer.call("tags", Tags={"p": value}, DeleteTags=[])
        shown = [lambda rpc=rpc: rpc.member(name)["Tags"].get("p") == value for rpc in others]
        return until_all(shown) - began

    def _event(self, number: int) -> float:
        """A user event, which is pushed and kept nowhere: it is awaited on streams."""
        if not self._streams:
            self._streams = [self._reach(at) for at in range(1, len(self._rpcs))]
            for stream in self._streams:
                stream.call("stream", Type="user:p")
        payload = str(number).encode()
        began = time.monotonic()
        self._rpcs[0].call("event", Name="p", Payload=payload, Coalesce=False)
        for stream in self._streams:
            told: dict[str, Any] = {}
            while told.get("Payload") != payload:
                told = stream.hear()
        return time.monotonic() - began

    def close(self) -> None:
        for rpc in [*self._rpcs, *self._streams]:
            rpc.close()
        for agent in self._agents:
            agent.kill()
            agent.wait(10)
