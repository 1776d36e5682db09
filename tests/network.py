"""A few real nodes joined by perfect in-memory links under one virtual clock.

For unit and property tests of what happens between nodes. Messages take `delay_s`; a link can be
frozen (nothing arrives, nobody is told), cut (both ends are told) and watched. Random worlds with
faults are the simulator's business.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core.messages import Message
from tektonmesh.core.node import Node
from tektonmesh.core.types import NodeSettings, Saved, StackId
from tektonmesh.sim.files import Files
from tektonmesh.wire.codec import Codec
from tests.support import MESH_KEY, WALL_S, make_keys, number_of

START = 1000.0

Filter = Callable[[str, str, Message], bool]
"""Whether a message from one stack to another (by name) may pass."""


def spec(name: str, **changes: Any) -> dict[str, Any]:
    """A registration as the doors hand it in."""
    plain: dict[str, Any] = {
        "name": name,
        "type": "ci",
        "specialties": [],
        "capabilities": [],
        "share": None,
        "persist": False,
        "lease_s": None,
        "description": "",
        "stream": True,
        "how": {"kind": "attached"},
        "metadata": {},
        "via": "socket",
    }
    return plain | changes


class Member:
    """One stack: its node, what it did so far, and its tickets."""

    def __init__(self, network: Network, name: str, saved: Saved, **settings: Any) -> None:
        # Whether its key document proves that it knows the secret of the mesh.
        mesh_key = MESH_KEY if settings.pop("proves", True) else None
        keys, identity = make_keys(number_of(name), name=name, mesh_key=mesh_key)
        self.name = name
        self.id: StackId = identity.stack_id
        self.keys = keys
        self.network = network
        self.saved: Saved = dict(saved)
        self.files = Files()
        self.effects: list[fx.Effect] = []
        self.slept_s = 0.0
        self.asleep = False
        self.disk_stuck = False
        """Nothing becomes durable until this is false again; what was written waits."""
        self.unwritten: list[fx.Save] = []
        self.on_deliver: Callable[[fx.Deliver], None] | None = None
        self.reads = True
        """Whether callers here read their streamed replies at once."""
        self._ticket = 0
        self.node = Node(
            identity,
            NodeSettings(**({"mesh_keys": (MESH_KEY,)} | settings)),
            crypto=keys,
            codec=Codec(),
            chance=random.Random(number_of(name)),
            saved=saved,
            now=network.now,
            wall_s=WALL_S + network.now - START,
        )

    # --- asking ----------------------------------------------------------------------------------

    def do(self, make: Callable[[int], ev.Event]) -> int:
        """Inject a command; its ticket."""
        self._ticket += 1
        self.network.handle(self, make(self._ticket))
        return self._ticket

    def register(self, name: str, **changes: Any) -> dict[str, Any]:
        """Register an attached CI on connection 1 (or as `changes` say); the answer."""
        connection = 1 if changes.get("how", {"kind": "attached"})["kind"] == "attached" else None
        made = spec(name, **changes)
        ticket = self.do(lambda t: ev.RegisterCi(t, made, connection, None, True))
        answer = self.answer(ticket)
        assert isinstance(answer, fx.Answer), answer
        return answer.result

    def send(
        self,
        target: str,
        body: bytes = b"hello",
        *,
        timeout_s: float = 30.0,
        stream: bool = False,
        sender: str = "",
        **options: Any,
    ) -> int:
        return self.do(
            lambda t: ev.SendMessage(
                t, target, body, "text/plain", sender, timeout_s, stream, options
            )
        )

    def reply(self, delivery: fx.Deliver, body: bytes) -> None:
        self.network.handle(self, ev.ReplyDone(delivery.delivery, body, "text/plain"))

    def chunk(self, delivery: fx.Deliver, data: bytes) -> None:
        self.network.handle(self, ev.ReplyChunk(delivery.delivery, data))

    def fail(self, delivery: fx.Deliver, code: str, detail: str = "no") -> None:
        self.network.handle(self, ev.ReplyFailed(delivery.delivery, code, detail))

    def echo(self) -> None:
        """From now on every CI here answers at once with what it got."""
        self.on_deliver = lambda delivery: self.reply(delivery, delivery.body)

    # --- looking ---------------------------------------------------------------------------------

    def answer(self, ticket: int) -> fx.Answer | fx.AnswerFailed | None:
        """What `ticket` was answered with; None so far. Never two answers."""
        found = [
            effect
            for effect in self.effects
            if isinstance(effect, (fx.Answer, fx.AnswerFailed)) and effect.ticket == ticket
        ]
        assert len(found) < 2, found
        return found[0] if found else None

    def result(self, ticket: int) -> dict[str, Any]:
        answer = self.answer(ticket)
        assert isinstance(answer, fx.Answer), answer
        return answer.result

    def error(self, ticket: int) -> dict[str, Any]:
        answer = self.answer(ticket)
        assert isinstance(answer, fx.AnswerFailed), answer
        return answer.error

    def streamed(self, ticket: int) -> list[bytes]:
        return [e.data for e in self.of(fx.AnswerChunk) if e.ticket == ticket]

    def of(self, kind: type) -> list[Any]:
        return [effect for effect in self.effects if type(effect) is kind]

    def notices(self, kind: str) -> list[dict[str, Any]]:
        return [notice.data for notice in self.of(fx.Notice) if notice.kind == kind]

    def deliveries(self) -> list[fx.Deliver]:
        return self.of(fx.Deliver)


class Network:
    """Nodes by name. `join` links two of them; `run` lets time pass."""

    def __init__(self, *names: str, delay_s: float = 0.001, **settings: Any) -> None:
        self.now = START
        self.delay_s = delay_s
        self.settings = settings
        self.passes: Filter = lambda _from, _to, _message: True
        self.on_message: Callable[[str, str, Message], None] = lambda _from, _to, _message: None
        self._members: dict[str, Member] = {}
        self._ends: dict[tuple[str, int], tuple[str, int]] = {}
        self._link = 0
        self._seq = 0
        self._flight: list[tuple[float, int, str, ev.Event]] = []
        for name in names:
            self.add(name)

    def __getitem__(self, name: str) -> Member:
        return self._members[name]

    def add(self, name: str, saved: Saved | None = None, **settings: Any) -> Member:
        """Start a node (again, with `saved`)."""
        member = Member(self, name, saved or {}, **(self.settings | settings))
        self._members[name] = member
        self._carry_out(member, member.node.start(self.now))
        return member

    # --- links -----------------------------------------------------------------------------------

    def join(self, *names: str) -> None:
        """Link each of these with the next."""
        for one, other in itertools.pairwise(names):
            self._join(one, other)
        self.settle()

    def _join(self, one: str, other: str) -> None:
        self._link += 1
        link = self._link
        self._ends[(one, link)], self._ends[(other, link)] = (other, link), (one, link)
        for here, there, outbound in ((one, other, True), (other, one, False)):
            peer = self._members[there]
            identity = peer.node.env.identity
            up = ev.LinkUp(
                link=link,
                stack_id=peer.id,
                name=there,
                keydoc=identity.keydoc,
                instance=identity.instance,
                addresses=(),
                address=f"{there}:7700",
                outbound=outbound,
            )
            self.handle(self._members[here], up)

    def cut(self, one: str, other: str) -> None:
        """The link between two breaks; both are told at once."""
        for here, there in ((one, other), (other, one)):
            for (name, link), (far, _) in list(self._ends.items()):
                if (name, far) == (here, there):
                    del self._ends[(name, link)]
                    # What comes for a machine that sleeps is lost here; it asks when it wakes.
                    if not self._members[here].asleep:
                        self.handle(self._members[here], ev.LinkDown(link, "reset"))

    def kill(self, name: str) -> None:
        """The process is gone: every peer sees its link reset."""
        ends = [(end, far) for end, far in self._ends.items() if end[0] == name]
        for end, far in ends:
            del self._ends[end], self._ends[far]
        for _, (peer, link) in ends:
            self.handle(self._members[peer], ev.LinkDown(link, "reset"))
        del self._members[name]

    # --- time ------------------------------------------------------------------------------------

    def handle(self, member: Member, event: ev.Event) -> None:
        now = self.now - member.slept_s
        if isinstance(event, ev.Tick):
            # The difference rounds: the tick must not come a hair before its deadline.
            now = max(now, min(member.node.deadline, now + 1e-6))
        self._carry_out(member, member.node.handle(event, max(now, member.node.env.now)))

    def run(self, seconds: float) -> None:
        """Let time pass, with everything that happens in it."""
        end = self.now + seconds
        while (instant := self._next()) <= end:
            self.now = max(self.now, instant)
            self._step()
        self.now = end

    def suspend(self, name: str, seconds: float, *, noticed: bool = True) -> None:
        """A machine sleeps for so long, its monotonic clock too. If it was stopped from outside it
        has not `noticed`; then only its wall clock, set right afterwards, tells."""
        member = self._members[name]
        member.asleep = True
        self.run(seconds)
        member.asleep = False
        member.slept_s += seconds
        if noticed:
            self.handle(member, ev.Stalled(seconds, seconds))
        self.handle(member, ev.WallClock(WALL_S + self.now - START))

    def settle(self) -> None:
        """Long enough for news and graphs to be everywhere."""
        self.run(3.0)

    def _next(self) -> float:
        deadlines = [self._deadline(member) for member in self._members.values()]
        return min([*deadlines, self._flight[0][0] if self._flight else float("inf")])

    def _deadline(self, member: Member) -> float:
        """The instant of this network at which a member has something to do."""
        return float("inf") if member.asleep else member.node.deadline + member.slept_s

    def _step(self) -> None:
        if self._flight and self._flight[0][0] <= self.now:
            _, _, name, event = heapq.heappop(self._flight)
            link = event.link if isinstance(event, ev.Received) else None
            awake = name in self._members and not self._members[name].asleep
            if awake and (link is None or (name, link) in self._ends):
                self.handle(self._members[name], event)
            return
        for member in list(self._members.values()):
            if self._deadline(member) <= self.now:
                self.handle(member, ev.Tick())

    def _carry_out(self, member: Member, effects: Sequence[fx.Effect]) -> None:
        member.effects.extend(effects)
        for effect in effects:
            if isinstance(effect, fx.Send):
                self._transmit(member, effect)
            elif isinstance(effect, fx.Save):
                self._save(member, effect)
            elif isinstance(effect, fx.BodyAct):
                self._post(member.name, member.files.act(effect), 0.0)
            elif isinstance(effect, fx.CloseLink):
                far = self._ends.get((member.name, effect.link))
                if far is not None:
                    self.cut(member.name, far[0])
        for effect in effects:  # a CI answers when the turn is over
            if isinstance(effect, fx.Deliver) and member.on_deliver is not None:
                member.on_deliver(effect)
            elif isinstance(effect, fx.AnswerChunk) and member.reads:
                self._post(member.name, ev.ChunksTaken(effect.ticket, len(effect.data)), 0.0)

    def _transmit(self, member: Member, effect: fx.Send) -> None:
        far = self._ends.get((member.name, effect.link))
        if far is None:
            return
        peer, link = far
        passed = []
        for message in effect.messages:
            if self.passes(member.name, peer, message):
                self.on_message(member.name, peer, message)
                passed.append(message)
        if passed:
            self._post(peer, ev.Received(link, tuple(passed)), self.delay_s)

    def write(self, name: str) -> None:
        """The disk of a member takes what waits for it."""
        member = self._members[name]
        member.disk_stuck = False
        waiting, member.unwritten = member.unwritten, []
        for effect in waiting:
            self._save(member, effect)

    def restart(self, name: str, *peers: str) -> Member:
        """The process dies as by `kill -9`, starts with what its disk held, and is linked anew."""
        before = self._members[name]
        self.kill(name)
        before.files.crash()
        member = self.add(name, before.saved)
        member.files = before.files
        for peer in peers:
            self.join(name, peer)
        return member

    def _save(self, member: Member, effect: fx.Save) -> None:
        if member.disk_stuck:
            member.unwritten.append(effect)
            return
        for table, key, value in effect.rows:
            if value is None:
                member.saved.pop((table, key), None)
            else:
                member.saved[(table, key)] = value
        if effect.ticket is not None:
            self._post(member.name, ev.Saved(effect.ticket), 0.0)

    def _post(self, name: str, event: ev.Event, delay_s: float) -> None:
        self._seq += 1
        heapq.heappush(self._flight, (self.now + delay_s, self._seq, name, event))
