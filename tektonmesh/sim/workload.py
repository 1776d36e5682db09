"""What people and programs do in a world: CIs come, go and answer, messages are sent.

The CIs of a host follow its incarnations: a start registers them anew, as attached CIs that come
back do. How a CI answers shows in its name (`echo-0`, `slow-1`). Every command is remembered as a
`Call` until its one outcome.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from tektonmesh.core import events as ev
from tektonmesh.core.effects import (
    Answer,
    AnswerChunk,
    AnswerFailed,
    CancelDelivery,
    Deliver,
)
from tektonmesh.sim.host import Host
from tektonmesh.sim.letters import LARGE, Letters, large_body
from tektonmesh.sim.readings import Readings

if TYPE_CHECKING:
    from tektonmesh.sim.world import World

BEHAVIOURS = ("echo", "echo", "echo", "stream", "slow", "fail", "mute")
"""How CIs answer, drawn evenly; most of them just do."""
CHUNKS = 4
TIMEOUT_S = 8.0
GRACE_S = 2.0
"""An outcome may come this much after the caller's own timeout."""
DRAIN_S, LEAVE_S = 3.0, 2.0
"""How long the shell gives a stack to finish what it holds, and to say goodbye."""
TRACED, CANCELLED = 0.05, 0.05
"""Parts of the messages that are traces, and that are cancelled within a second."""
BODIES = (5, 200, 2_000, 40_000)


@dataclass(slots=True, eq=False)
class Call:
    """One command and its outcome. `outcome` is "open", "answered" or the code of the failure."""

    ticket: int
    kind: str
    host: int
    incarnation: int
    at: float
    due: float
    target: str = ""
    body: bytes = b""
    outcome: str = "open"
    outcomes: int = 0
    result: dict[str, Any] | None = None
    chunks: bytes = b""
    void: bool = False
    """The host of the caller died or left: nobody waits any more."""


class Workload:
    """Draws what is done, keeps the calls, and plays the CIs."""

    def __init__(self, world: World) -> None:
        self.calls: dict[int, Call] = {}
        self.done: list[Call] = []
        """Calls whose outcome is known, or that are void."""
        self.written: dict[tuple[int, str], float] = {}
        """(host, record key) -> when its newest write was asked for."""
        self._world = world
        self._chance = Random(f"workload {world.options.rng_seed}")
        self._stopped = False
        self._cis: dict[int, list[str]] = {host.index: [] for host in world.hosts}
        self._answers: dict[tuple[int, int, int], bool] = {}
        self._connection = 0
        self._count = 0
        self._letters = Letters(world)
        self.readings = Readings(world)
        for host in world.hosts:
            for _ in range(world.options.cis_per_host):
                self._cis[host.index].append(self._draw_name())
        for index, count in world.options.records:
            self._cis[index].extend(f"mute-{index}-{at}" for at in range(count))

    def schedule(self) -> None:
        """Put the first write and the first message into the heap."""
        options = self._world.options
        if options.writes:
            self._later(options.writes, self._write)
        if options.messages:
            self._later(options.messages, self._message)
        self._letters.schedule()
        self.readings.schedule()
        for instant in options.chorus:
            self._world.at(instant, self._all_write)

    def stop(self) -> None:
        """Nobody writes or sends from here on; CIs go on answering."""
        self._stopped = True
        self._letters.stop()
        self.readings.stop()

    @property
    def idle(self) -> bool:
        """Whether nobody waits for anything, or is about to ask again."""
        return not (self.calls or self.readings.open)

    def open_calls(self) -> list[Call]:
        """Calls that somebody still waits for."""
        return list(self.calls.values())

    def attached_since(self, target: str) -> float | None:
        """Since when a CI that always answers (`ci@stack`) is attached; None for any other."""
        name, _, stack = target.partition("@")
        if not name.startswith(("echo", "stream")):
            return None
        for host in self._world.hosts:
            if host.name == stack and name in self._cis[host.index]:
                return self.written.get((host.index, f"ci/{name}"))
        return None

    # --- hosts -----------------------------------------------------------------------------------

    def started(self, host: Host) -> None:
        """A node runs: its CIs attach."""
        for name in self._cis[host.index]:
            self.register(host, name)
        self.readings.started(host)

    def stopped(self, host: Host) -> None:
        """The node is gone, and with it everyone who waited there."""
        for call in self.open_calls():
            if call.host == host.index:
                call.void = True
                self._finish(call)

    def leave(self, host: Host) -> None:
        """As the shell does at SIGTERM: first the stack finishes what it holds, then it goes."""
        call = self.call(host, "drain", DRAIN_S)
        self._world.inject(host, ev.Drain(call.ticket, DRAIN_S))

    def _drained(self, host: Host) -> None:
        call = self.call(host, "leave", LEAVE_S)
        self._world.soon(host, ev.Leave(call.ticket))

    # --- commands --------------------------------------------------------------------------------

    def register(self, host: Host, name: str) -> Call:
        """Attach a CI on a connection of its own."""
        self._connection += 1
        call = self.call(host, "register", 1.0, target=name)
        self.written[(host.index, f"ci/{name}")] = call.at
        spec = {
            "name": name,
            "type": "ai",
            "specialties": [name.partition("-")[0]],
            "capabilities": [],
            "teams": [],
            "share": "public",
            "persist": False,
            "lease_s": None,
            "description": "",
            "stream": name.startswith("stream"),
            "how": {"kind": "attached"},
            "metadata": {},
            "via": "socket",
        }
        self._world.inject(host, ev.RegisterCi(call.ticket, spec, self._connection, None, True))
        return call

    def deregister(self, host: Host, name: str) -> Call:
        call = self.call(host, "deregister", 1.0, target=name)
        self.written[(host.index, f"ci/{name}")] = call.at
        self._world.inject(host, ev.DeregisterCi(call.ticket, name, None, True))
        return call

    def send(self, host: Host, target: str, size: int = 5, *, stream: bool = False) -> Call:
        """Send `size` bytes to `target` and wait for the reply."""
        body = (b"%d " % len(self.done) + b"tekton " * (size // 7 + 1))[:size]
        call = self.call(host, "send", TIMEOUT_S, target=target, body=body)
        options: dict[str, Any] = {}
        event = ev.SendMessage(
            call.ticket, target, body, "text/plain", "", TIMEOUT_S, stream, options
        )
        self._world.inject(host, event)
        return call

    def post(
        self, host: Host, target: str, size: int, ttl_s: float, *, may_park: bool = False
    ) -> Call:
        """Hand over a durable message; the answer says that it is accepted."""
        body = (b"%d " % self._count + b"tekton " * (size // 7 + 1))[:size]
        options: dict[str, Any] = {"durable": True, "ttl_s": ttl_s}
        if may_park:
            options["may_park"] = True
        if size >= LARGE[0]:
            options["large"], body = host.disk.files.hand_in(large_body(size)), b""
        call = self.call(host, "post", TIMEOUT_S, target=target, body=body)
        self._world.inject(
            host,
            ev.SendMessage(call.ticket, target, body, "text/plain", "", TIMEOUT_S, False, options),
        )
        return call

    def names_of(self, host: Host) -> list[str]:
        """The CIs of a host that answer sooner or later."""
        return [name for name in self._cis[host.index] if not name.startswith("mute")]

    def has(self, stack: str, name: str) -> bool:
        return any(
            host.name == stack and name in self._cis[host.index] for host in self._world.hosts
        )

    def trace(self, host: Host, stack: str) -> Call:
        """Ask for the hops to a stack."""
        call = self.call(host, "trace", TIMEOUT_S, target=stack)
        self._world.inject(host, ev.TraceRoute(call.ticket, stack, TIMEOUT_S))
        return call

    def _cancel(self, host: Host, call: Call) -> None:
        """The caller goes away; its one outcome is then `cancelled`, if it has none yet."""
        if host.incarnation == call.incarnation:
            self._world.inject(host, ev.CancelCommand(call.ticket))

    def call(
        self, host: Host, kind: str, timeout_s: float, target: str = "", body: bytes = b""
    ) -> Call:
        """A command is about to be given."""
        now = self._world.now
        ticket = self._world.ticket()
        due = now + timeout_s + GRACE_S
        call = Call(ticket, kind, host.index, host.incarnation, now, due, target, body)
        self.calls[ticket] = call
        return call

    # --- what is drawn ---------------------------------------------------------------------------

    def _later(self, rate: float, act: Any) -> None:
        self._world.at(self._world.now + self._chance.expovariate(rate), act)

    def _draw_name(self) -> str:
        self._count += 1
        return f"{self._chance.choice(BEHAVIOURS)}-{self._count}"

    def _write(self) -> None:
        if self._stopped:
            return
        self._later(self._world.options.writes, self._write)
        options = self._world.options
        writers = self._world.hosts[: options.writers or None]
        host = self._chance.choice(writers)
        names = self._cis[host.index]
        if not host.alive or not self._world.honest(host):
            return
        if names and self._chance.random() < 0.4:
            name = names.pop(self._chance.randrange(len(names)))
            self.deregister(host, name)
        else:
            names.append(self._draw_name())
            self.register(host, names[-1])

    def _all_write(self) -> None:
        """Every owner has news at the same instant."""
        for host in self._world.hosts:
            if host.alive and self._world.honest(host) and not self._stopped:
                self._cis[host.index].append(self._draw_name())
                self.register(host, self._cis[host.index][-1])

    def _message(self) -> None:
        if self._stopped:
            return
        self._later(self._world.options.messages, self._message)
        host = self._chance.choice(self._world.hosts)
        target = self._chance.choice(self._world.hosts)
        names = self._cis[target.index] or ["nobody-0"]
        name = self._chance.choice(names)
        size, stream = self._chance.choice(BODIES), self._chance.random() < 0.3
        if not host.alive or not self._world.honest(host):
            return
        roll = self._chance.random()
        if roll < TRACED:
            self.trace(host, target.name)
            return
        call = self.send(host, f"{name}@{target.name}", size, stream=stream)
        if roll < TRACED + CANCELLED:
            pause = self._chance.uniform(0.0, 1.0)
            self._world.at(self._world.now + pause, self._cancel, host, call)

    # --- outcomes --------------------------------------------------------------------------------

    def answered(self, host: Host, effect: Answer | AnswerChunk | AnswerFailed) -> None:
        """An answer, or part of one, reached the caller."""
        call = self.calls.get(effect.ticket)
        if call is None:
            return
        if isinstance(effect, AnswerChunk):
            call.chunks += effect.data
            self.readings.came(host, effect.ticket, effect.data)
            return
        if isinstance(effect, AnswerFailed):
            call.outcome = effect.error["code"]
        else:
            call.outcome, call.result = "answered", effect.result
        self._finish(call)
        if call.kind == "drain":
            self._drained(host)
        elif call.kind == "leave":
            self._world.left(host, call.incarnation)

    def _finish(self, call: Call) -> None:
        del self.calls[call.ticket]
        self.done.append(call)
        self.readings.ended(call.ticket, "its host is gone" if call.void else call.outcome)

    # --- CIs -------------------------------------------------------------------------------------

    def deliver(self, host: Host, deliver: Deliver) -> None:
        """A message reached a CI: it answers as its name says."""
        behaviour = deliver.ci.partition("-")[0]
        key = (host.index, host.incarnation, deliver.delivery)
        self._answers[key] = True
        pause = self._chance.uniform(0.001, 0.05)
        if behaviour == "mute":
            return
        if deliver.reply_from is not None:
            for wait_s, said in self.readings.says(deliver):
                self._reply(host, key, wait_s, said)
            return
        if behaviour == "fail":
            event: ev.Event = ev.ReplyFailed(deliver.delivery, "ci_failed", "It would not.")
            self._reply(host, key, pause, event)
            return
        if behaviour == "stream":
            pieces = [deliver.body[at::CHUNKS] for at in range(CHUNKS)]
            for at, piece in enumerate(pieces[:-1]):
                chunk = ev.ReplyChunk(deliver.delivery, piece)
                self._reply(host, key, pause * (at + 1), chunk)
            last = ev.ReplyDone(deliver.delivery, pieces[-1], deliver.content_type)
            self._reply(host, key, pause * CHUNKS, last)
            return
        if behaviour == "slow":
            pause = self._chance.uniform(1.0, 2.0 * TIMEOUT_S)
        done = ev.ReplyDone(deliver.delivery, b"echo " + deliver.body, deliver.content_type)
        self._reply(host, key, pause, done)

    def cancelled(self, host: Host, cancel: CancelDelivery) -> None:
        """Nobody waits for the CI's answer any more."""
        self._answers.pop((host.index, host.incarnation, cancel.delivery), None)

    def _reply(self, host: Host, key: tuple[int, int, int], pause: float, event: ev.Event) -> None:
        self._world.at(self._world.now + pause, self._speak, host, key, event)

    def _speak(self, host: Host, key: tuple[int, int, int], event: ev.Event) -> None:
        if host.incarnation != key[1] or key not in self._answers:
            return
        if not isinstance(event, ev.ReplyChunk):
            del self._answers[key]
        if host.node is not None:
            self._world.inject(host, event)


def expected_reply(target: str, body: bytes) -> bytes:
    """What the CI called `target` says to `body`."""
    if target.startswith("stream"):
        return b"".join(body[at::CHUNKS] for at in range(CHUNKS))
    return b"echo " + body
