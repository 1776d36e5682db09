"""The steps of the demonstration: each does one thing to the mesh and measures it.

A step is a function that returns what it measured, or raises `StepFailed`. Nothing is taken on
trust: what a step claims was read back from the daemons' own sockets.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Any

import trio

from tektonmesh.api.client import Client
from tektonmesh.cli.demo.processes import Processes, StepFailed
from tektonmesh.cli.demo.shape import Shape
from tektonmesh.cli.demo.tools import installed, use_tool
from tektonmesh.errors import MeshError

ECHO = "echo"
POET = "poet"
TOKENS = ("so ", "many ", "stacks, ", "no ", "one ", "in ", "the ", "middle")
_TOKEN_PAUSE_S = 0.05
_POET_COMMAND = ["sh", "-c", f'for t in "$@"; do printf %s "$t"; sleep {_TOKEN_PAUSE_S}; done']
HOPS_MIN = 3
WAIT_S = 8.0
_POLL_S = 0.02
_TRAFFIC_PAUSE_S = 0.02
_TRAFFIC_BEFORE_S = 0.4
_TRAFFIC_AFTER_S = 0.6
_GAP_MAX_S = 5.0

Measured = dict[str, Any]


@dataclass(slots=True)
class Stage:
    """What the steps share: the shape, the processes, and who was killed."""

    shape: Shape
    processes: Processes
    killed: list[str] = field(default_factory=list)

    @property
    def running(self) -> list[str]:
        return list(self.processes.stacks)

    def client(self, name: str) -> Client:
        """A new connection to the daemon of a stack, to be entered."""
        return Client(self.processes.stacks[name].socket)

    def first(self) -> Client:
        return self.client(self.shape.first)

    async def kill(self, name: str) -> None:
        self.killed.append(name)
        await self.processes.kill(name)


@dataclass(frozen=True, slots=True)
class Step:
    """`says` is what a person reads, and what the step must have done to be ok."""

    name: str
    says: str
    act: Callable[[Stage], Awaitable[Measured]]


async def start(stage: Stage) -> Measured:
    """Start the daemons along the chains, each when those that it calls are ready."""
    took: list[float] = []

    async def one(name: str) -> None:
        began = time.monotonic()
        await _start_one(stage, name)
        took.append(time.monotonic() - began)

    waiting = list(stage.shape.names)
    while waiting:
        known = stage.processes.addresses
        level = [name for name in waiting if all(it in known for it in stage.shape.seeds[name])]
        waiting = [name for name in waiting if name not in level]
        async with trio.open_nursery() as nursery:
            for name in level:
                nursery.start_soon(one, name)
    return {"stacks": len(took), "median_start_ms": _ms(median(took))}


async def _start_one(stage: Stage, name: str) -> None:
    known = stage.processes.addresses
    await stage.processes.start_stack(name, [known[seed] for seed in stage.shape.seeds[name]])


async def converge(stage: Stage) -> Measured:
    """Wait until all list one another and hold the same registry; check that the ends share no
    link."""
    took = await _until(
        partial(_all_agree, stage, len(stage.shape.names)), "one registry on every stack"
    )
    async with stage.first() as client:
        status = await client.status()
    linked = [link["stack"] for link in status["links"]]
    if stage.shape.last in linked:
        raise StepFailed("The first and the last stack share a link.")
    return {"converged_ms": _ms(took), "links_of_first": len(linked)}


async def _all_agree(stage: Stage, count: int) -> bool:
    fingerprints = set()
    for name in stage.running:
        async with stage.client(name) as client:
            status = await client.status()
        fingerprints.add(status["fingerprint"])
        # `up` counts the others.
        if status["stacks"]["up"] != count - 1 or len(fingerprints) > 1:
            return False
    return True


async def register(stage: Stage) -> Measured:
    """Attach two CIs to the last stack, each a command in a process of its own."""
    last = stage.processes.stacks[stage.shape.last]
    await stage.processes.start_ci(last, ECHO, ["cat"])
    await stage.processes.start_ci(last, POET, [*_POET_COMMAND, POET, *TOKENS])
    await _until(partial(_listed, stage, [stage.shape.last]), "the CIs at their own stack")
    took = await _until(partial(_listed, stage, stage.running), "the CIs in every replica")
    return {"cis": 2, "in_every_replica_ms": _ms(took)}


async def _listed(stage: Stage, where: Iterable[str]) -> bool:
    for name in where:
        found = await _remote_cis(stage, name)
        if found != {ECHO: "up", POET: "up"}:
            return False
    return True


async def _remote_cis(stage: Stage, name: str) -> dict[str, str]:
    """The CIs of the last stack as the stack `name` sees them: name -> state."""
    async with stage.client(name) as client:
        cis = await client.cis(stack=stage.shape.last)
    return {ci["name"]: ci["state"] for ci in cis}


async def send(stage: Stage, *, ci: str = ECHO) -> Measured:
    """A message from the first to the last stack over at least three hops, and its answer."""
    text = "hello from the other end"
    async with stage.first() as client:
        reply = await client.send(f"{ci}@{stage.shape.last}", text, timeout=WAIT_S)
    path = list(reply.path)
    if reply.body != text:
        raise StepFailed(f"The answer was {reply.body!r}.")
    if len(path) - 1 < HOPS_MIN:
        raise StepFailed(f"The path {' > '.join(path)} has fewer than {HOPS_MIN} hops.")
    return {"answer": reply.body, "path": path, "hops": len(path) - 1, "round_trip_ms": reply.ms}


async def trace(stage: Stage) -> Measured:
    """The hops to the last stack, each with its round trip."""
    async with stage.first() as client:
        found = await client.trace(stage.shape.last, timeout=WAIT_S)
    hops = [(hop["stack"], hop["rtt_ms"]) for hop in found["hops"]]
    if not hops or hops[-1][0] != stage.shape.last:
        raise StepFailed(f"The trace ended at {hops[-1][0] if hops else 'once'}.")
    return {"hops": [f"{name} {rtt:.1f} ms" for name, rtt in hops]}


async def stream(stage: Stage) -> Measured:
    """A reply that comes token by token: the first must be here long before the last."""
    began = time.monotonic()
    arrived: list[float] = []
    parts: list[str] = []
    target = f"{POET}@{stage.shape.last}"
    async with (
        stage.first() as client,
        client.stream(target, "a line, please", timeout=WAIT_S) as reply,
    ):
        async for part in reply:
            arrived.append(time.monotonic() - began)
            parts.append(part)
    text = "".join(parts)
    if text != "".join(TOKENS):
        raise StepFailed(f"The streamed reply was {text!r}.")
    spread = arrived[-1] - arrived[0]
    if len(parts) < len(TOKENS) // 2 or spread < _TOKEN_PAUSE_S * len(TOKENS) / 2:
        raise StepFailed(f"The reply came in {len(parts)} pieces within {_ms(spread)} ms.")
    return {
        "reply": text,
        "chunks": len(parts),
        "first_token_ms": _ms(arrived[0]),
        "last_token_ms": _ms(arrived[-1]),
    }


async def tools(stage: Stage) -> Measured:
    """Call a tool of MCP on the stack two hops from the first."""
    hops = dict(stage.shape.seeds)
    near = [name for name in stage.shape.names if hops[name] == (stage.shape.first,)]
    (owner, *_others) = [name for name in stage.shape.names if hops[name] == (near[0],)]
    async with stage.client(owner) as offering, stage.first() as using:
        return await use_tool(offering, using, owner)


# --- failures ------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Traffic:
    """Requests that start every few milliseconds, and what became of each."""

    answered: list[tuple[float, list[str]]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    async def one(self, client: Client, target: str, text: str) -> None:
        try:
            reply = await client.send(target, text, timeout=_GAP_MAX_S)
        except MeshError as error:
            self.failed.append(f"{error.code.name}: {error.detail}")
            return
        if reply.body == text:
            self.answered.append((time.monotonic(), list(reply.path)))
        else:
            self.failed.append(f"a wrong answer: {reply.body!r}")

    async def flow(self, client: Client, target: str, seconds: float) -> None:
        until = time.monotonic() + seconds
        async with trio.open_nursery() as nursery:
            number = 0
            while time.monotonic() < until:
                nursery.start_soon(self.one, client, target, f"traffic {number}")
                number += 1
                await trio.sleep(_TRAFFIC_PAUSE_S)


async def reroute(stage: Stage) -> Measured:
    """Kill a relay in the middle of the path in use while messages flow over it."""
    target = f"{ECHO}@{stage.shape.last}"
    before, after = _Traffic(), _Traffic()
    async with stage.first() as client:
        await before.flow(client, target, _TRAFFIC_BEFORE_S)
        if before.failed or not before.answered:
            raise StepFailed(f"Traffic failed before the kill: {before.failed[:1]}.")
        path = before.answered[-1][1]
        relay = path[len(path) // 2]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(after.flow, client, target, _TRAFFIC_AFTER_S)
            killed = time.monotonic()
            await stage.kill(relay)
    if not after.answered or relay in after.answered[-1][1]:
        raise StepFailed(f"No message went round the dead relay {relay}: {after.failed[:1]}.")
    if after.failed:
        raise StepFailed(f"{len(after.failed)} messages failed, the first with {after.failed[0]}")
    times = sorted([killed, *(at for at, _ in after.answered)])
    gap = max(later - earlier for earlier, later in pairwise(times))
    return {
        "killed": relay,
        "old_path": path,
        "new_path": after.answered[-1][1],
        "gap_ms": _ms(gap),
        "answered": len(before.answered) + len(after.answered),
        "lost": 0,
    }


async def death(stage: Stage) -> Measured:
    """Kill the last stack; no replica may show its CIs as up any more."""
    began = time.monotonic()
    await stage.kill(stage.shape.last)
    await _until(
        partial(_gone, stage, stage.running), "the dead stack's CIs unreachable everywhere"
    )
    took = time.monotonic() - began
    states = [await _remote_cis(stage, name) for name in stage.running]
    shown = sorted({state for cis in states for state in cis.values()}) or ["not listed"]
    return {
        "killed": stage.shape.last,
        "gone_everywhere_ms": _ms(took),
        "its_cis_are": ", ".join(shown),
    }


async def _gone(stage: Stage, where: Iterable[str]) -> bool:
    for name in where:
        if "up" in (await _remote_cis(stage, name)).values():
            return False
    return True


async def comeback(stage: Stage) -> Measured:
    """Start the killed stacks again in their old homes; their CIs come back by themselves."""
    began = time.monotonic()
    async with trio.open_nursery() as nursery:
        for name in stage.killed:
            nursery.start_soon(_start_one, stage, name)
    stage.killed.clear()
    started = time.monotonic()
    await _until(partial(_all_agree, stage, len(stage.shape.names)), "one registry again")
    await _until(partial(_listed, stage, stage.running), "the CIs in every replica again")
    await send(stage)
    now = time.monotonic()
    return {"starts_ms": _ms(started - began), "back_everywhere_ms": _ms(now - started)}


STEPS: tuple[Step, ...] = (
    Step("start", "Real daemons start, each in a process and home of its own.", start),
    Step("converge", "All hold one registry; the first and the last share no link.", converge),
    Step("register", "Two CIs attach to the last stack and are in every replica.", register),
    Step("send", "A message crosses at least three hops and is answered.", send),
    Step("trace", "Every hop of the path answers for itself.", trace),
    Step("stream", "A reply streams across the mesh token by token.", stream),
    *(
        [Step("tools", "A tool of MCP two hops away is found and called.", tools)]
        if installed()
        else []
    ),
    Step("reroute", "A relay is killed with -9 under traffic, which goes round it.", reroute),
    Step(
        "death",
        "A stack is killed with -9; every replica shows it and its CIs as unreachable.",
        death,
    ),
    Step("return", "The killed stacks start again and their CIs are back.", comeback),
)


# --- helpers -------------------------------------------------------------------------------------


async def _until(done: Callable[[], Awaitable[bool]], what: str) -> float:
    """Seconds until `done()`; StepFailed that names `what` did not come after `WAIT_S`."""
    began = time.monotonic()
    while not await done():
        if time.monotonic() - began > WAIT_S:
            raise StepFailed(f"After {WAIT_S:.0f} s there was still not {what}.")
        await trio.sleep(_POLL_S)
    return time.monotonic() - began


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
