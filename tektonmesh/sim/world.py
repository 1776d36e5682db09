"""One world: hosts that run the production `Node`, virtual time, and nothing that is not drawn
from one seed.

The world keeps a heap of (instant, sequence, act), injects events and carries effects out. It
decides no protocol question. A run has a safety phase (writes, messages and faults, the checkers
look on) and a liveness phase (all is healed, the mesh must converge), after TigerBeetle's VOPR.
"""

from __future__ import annotations

import hashlib
import heapq
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core.node import Node
from tektonmesh.core.replica import Change
from tektonmesh.core.types import StackId, Version
from tektonmesh.sim.components import Components
from tektonmesh.sim.disk import Write
from tektonmesh.sim.faults import Faults, cloned
from tektonmesh.sim.forgers import Hostile
from tektonmesh.sim.gauges import gauges
from tektonmesh.sim.host import Host, Run
from tektonmesh.sim.hostile import HOSTILE, RESTLESS
from tektonmesh.sim.keyring import MESH_KEY, Memory, WorldCrypto, host_keys
from tektonmesh.sim.network import Network
from tektonmesh.sim.options import Options, edges_of
from tektonmesh.sim.warm import Warm
from tektonmesh.sim.watcher import HOOKS, Violation, Watcher
from tektonmesh.sim.wiresize import through_wire
from tektonmesh.sim.workload import DRAIN_S, LEAVE_S, Workload
from tektonmesh.wire.codec import Codec

SWEEP_S = 0.5
WALL_INTERVAL_S = 10.0
REST_S = 10.0
"""Between the settling of a world and the watch that it is quiet: links that came last compare."""
WRONG_S = 60.0
"""A wall clock that is wrong by more can make a stack useless until somebody sets it right."""
CLOCK_GRAIN_S = 1e-6
"""What adding a clock's base to an instant may round away."""
TURNS_MAX = 3000
"""Turns per host and virtual second beyond which a world counts as running away."""


class World:
    """Built from options and the classes that shall look on; `run` runs it to its end or to the
    first violation."""

    def __init__(self, options: Options, watchers: Sequence[type[Watcher]] = ()) -> None:
        self.options = options
        self.now = 0.0
        self.turns = 0
        self.shifts = 0
        """Counts what changes who can reach whom: starts, ends, pauses, cuts."""
        self.chance = Random(f"network {options.rng_seed}")
        self.violations: list[Violation] = []
        self.healed = False
        self.converged_after: float | None = None
        """Seconds from the heal until all fingerprints were equal."""
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._seq = 0
        self._tickets = 0
        self._trace = hashlib.blake2b(digest_size=16)
        self._memory: Memory = {}
        self._codec = Codec()
        self._hostile = dict(options.hostile)
        self._restless = any(kind in RESTLESS for kind in self._hostile.values())
        self._said_at_heal: dict[StackId, Version] = {}
        self._second = (0, 0)
        self.hosts = [self._new_host(index, index) for index in range(options.nodes)]
        for role in cloned(options.faults):
            self.hosts.append(self._new_host(len(self.hosts), role))
        self._addresses = {host.address: host for host in self.hosts}
        self._by_id = {host.stack_id: host for host in reversed(self.hosts)}
        self._seeds: dict[int, tuple[str, ...]] = {}
        for dialler, peer in () if options.warm else edges_of(options):
            known = self._seeds.get(dialler, ())
            self._seeds[dialler] = (*known, self.hosts[peer].address)
        self.network = Network(self)
        self.components = Components(self)
        self.workload = Workload(self)
        self.faults = Faults(self, options.faults)
        self.watchers = [kind(self) for kind in watchers]
        self._hooks: dict[str, list[Callable[..., None]]] = {
            hook: [
                getattr(watcher, hook)
                for watcher in self.watchers
                if getattr(type(watcher), hook) is not getattr(Watcher, hook)
            ]
            for hook in HOOKS
        }
        self._hands: dict[type, Callable[[Host, Any], None]] = {
            fx.Send: self._send,
            fx.CloseLink: lambda host, it: self.network.close(host, it.link, it.code, it.detail),
            fx.Dial: self.network.dial,
            fx.Save: self._save,
            fx.Deliver: self._deliver,
            fx.CancelDelivery: self.workload.cancelled,
            **dict.fromkeys((fx.Answer, fx.AnswerChunk, fx.AnswerFailed), self._answer),
            fx.BodyAct: lambda host, it: self.soon(host, host.disk.files.act(it)),
            **dict.fromkeys(
                (fx.WatchEndpoint, fx.Notice, fx.Audit, fx.ReplyKept), lambda _host, _it: None
            ),
        }

    # --- running ---------------------------------------------------------------------------------

    def run(self) -> None:
        """Both phases, and the quiet one if the options ask for it."""
        options = self.options
        if options.warm:
            Warm(self, self._memory, self._codec).start()
        else:
            for host in self.hosts[: options.nodes]:
                self.at(self.chance.uniform(0.0, options.start_spread_s), self.start, host)
        self.faults.schedule()
        self.workload.schedule()
        self.at(SWEEP_S, self._sweep)
        self.run_until(options.duration_s)
        self.heal()
        self.settle()
        if options.idle_s:
            self.run_until(self.now + REST_S)
        if not self.violations:
            self.tell("settled")
        self.run_until(self.now + options.idle_s)
        self.tell("finished")

    def run_until(self, instant: float) -> None:
        """Let virtual time pass, or stop at the first violation."""
        heap = self._heap
        while heap and heap[0][0] <= instant and not self.violations:
            self.now, _seq, act, arguments = heapq.heappop(heap)
            act(*arguments)
        if not self.violations:
            self.now = max(self.now, instant)

    def calm_s(self) -> float:
        """Seconds since anything was disturbed or began anew."""
        return self.now - max([self.faults.last_change, *(host.changed for host in self.hosts)])

    def heal(self) -> None:
        """From here on nothing new goes wrong, and nobody writes or sends."""
        self.workload.stop()
        self.healed = True
        for host in self.hosts:
            if isinstance(host.node, Hostile):
                host.node.calm_down()
        self.faults.heal()

    def settle(self) -> None:
        """Run until the mesh has converged, every call is answered and nothing of a message is
        kept any more, at most `settle_s`."""
        healed = self.now
        for host in self.hosts:
            held = host.node.replica.owners.get(host.stack_id) if host.node is not None else None
            if held is not None:
                self._said_at_heal[host.stack_id] = held.version
        end = healed + self.options.settle_s
        while self.now < end and not self.violations:
            self.run_until(min(end, self.now + SWEEP_S))
            if self.converged_after is None and self.converged():
                self.converged_after = self.now - healed
                self.tell("agreed")
            if self.converged_after is not None and self._all_done():
                return

    def _all_done(self) -> bool:
        nodes = [host.node for host in self.hosts if host.node is not None]
        return self.workload.idle and not any(
            size for node in nodes for size in gauges(node).values()
        )

    def converged(self) -> bool:
        """Whether all honest running nodes hold the same, and are up for one another."""
        hosts = [host for host in self.hosts if self.speaks(host)]
        nodes = [host.node for host in hosts if host.node is not None]
        if self._restless:
            return all(self._has_news(node, host.stack_id) for node in nodes for host in hosts)
        if len({node.replica.fingerprint(): None for node in nodes}) > 1:
            return False
        running = {host.stack_id: None for host in hosts}
        if any(stack in running for node in nodes for stack in node.graph.adrift()):
            return False
        # Equal prints: who is live for one is live for all.
        return not nodes or all(nodes[0].graph.reachable(stack) for stack in running)

    def _has_news(self, node: Node, owner: StackId) -> bool:
        """Where a liar's links never rest, nor do its neighbours' records: then it must do that
        everyone holds what each honest owner had said at the heal."""
        held = node.replica.owners.get(owner)
        return held is not None and held.version >= self._said_at_heal.get(owner, held.version)

    @property
    def trace(self) -> str:
        """A hash of every turn so far: the same seed gives the same trace."""
        return self._trace.hexdigest()

    def fail(self, checker: str, host: Host | None, detail: str) -> None:
        """Record a violation; the world stops at the end of this act."""
        name = host.name if host is not None else "world"
        self.violations.append(Violation(checker, round(self.now, 6), name, detail))

    def tell(self, hook: str, *arguments: Any) -> None:
        """Call every watcher that overrides `hook`."""
        for call in self._hooks[hook]:
            call(*arguments)

    # --- the heap --------------------------------------------------------------------------------

    def at(self, instant: float, act: Callable[..., None], *arguments: Any) -> None:
        """Do something at a virtual instant; ties in the order they were asked for."""
        self._seq += 1
        heapq.heappush(self._heap, (max(instant, self.now), self._seq, act, arguments))

    def ticket(self) -> int:
        """A number for a command that no other has."""
        self._tickets += 1
        return self._tickets

    def _sweep(self) -> None:
        self.tell("sweep")
        self.at(self.now + SWEEP_S, self._sweep)

    # --- hosts -----------------------------------------------------------------------------------

    def host_at(self, address: str) -> Host | None:
        return self._addresses.get(address)

    def host_of(self, stack_id: bytes) -> Host | None:
        return self._by_id.get(stack_id)

    def honest(self, host: Host) -> bool:
        return host.role not in self._hostile

    def speaks(self, host: Host) -> bool:
        """Whether an honest node runs there whom others must believe: one that has not fallen
        silent beside its clone, and does not know its wall clock to be wrong."""
        node = host.node
        if not self.honest(host) or node is None or node.owner.fenced:
            return False
        return abs(host.skew_s) < WRONG_S or not node.clock.alarm

    def _new_host(self, index: int, role: int) -> Host:
        chance = Random(f"host {self.options.rng_seed} {index}")
        skew_s = chance.uniform(-self.options.skew_s, self.options.skew_s)
        address = f"10.0.{index >> 8}.{index & 255}:7700"
        return Host(index, host_keys(role), address, chance.uniform(0.0, 1e6), skew_s, role)

    def start(self, host: Host) -> None:
        """Start a node with what the disk holds; nothing if one runs already."""
        if host.node is not None:
            return
        host.incarnation += 1
        host.node = self.new_node(host)
        self._turn_to(host, Run.RUNNING)
        host.started, host.tick_at = self.now, -1.0
        self._turn(host, None)
        self.at(self.now + WALL_INTERVAL_S, self._wall, host, host.incarnation)
        self.tell("started", host)
        self.workload.started(host)

    def new_node(self, host: Host) -> Node:
        """The node that is to run on a host, with what its disk holds."""
        chance = Random(f"node {self.options.rng_seed} {host.index} {host.incarnation}")
        seeds = self._seeds.get(host.role, ())
        node_class = HOSTILE.get(self._hostile.get(host.role, ""), Node)
        node = node_class(
            host.keys.identity(chance.randbytes(8)),
            self.options.node_settings(
                listen=(host.address,), seed_peers=seeds, mesh_keys=(MESH_KEY,)
            ),
            crypto=WorldCrypto(host.keys.keys(chance), self._memory),
            codec=self._codec,
            chance=chance,
            saved=dict(host.disk.rows),
            now=host.mono(self.now),
            wall_s=host.wall(self.now),
        )
        node.owner.minor += host.upgrades
        if self.healed and isinstance(node, Hostile):
            node.calm_down()
        node.replica.watch(partial(self._changed, host))
        return node

    def put_node(self, host: Host, node: Node) -> None:
        """A node that was made elsewhere runs on this host, which never ran before."""
        host.incarnation += 1
        host.node = node
        self._turn_to(host, Run.RUNNING)
        host.started, host.changed = self.now, float("-inf")
        node.replica.watch(partial(self._changed, host))
        self.at(self.now + WALL_INTERVAL_S * self.chance.random(), self._wall, host, 1)

    def resume_node(self, host: Host, links: Sequence[tuple[ev.LinkUp, float]]) -> None:
        """Its first turn, in the middle of its life."""
        assert host.node is not None
        for effect in host.node.resume(host.mono(self.now), links):
            self._hands[type(effect)](host, effect)
        self._wake(host)
        self.tell("started", host)
        self.workload.started(host)

    def kill(self, host: Host, *, wipe: bool = False) -> None:
        """The process ends without a word of its own."""
        if host.node is not None:
            self._stop(host, Run.OFF, silent=False)
        if wipe:
            host.disk.wipe()

    def freeze(self, host: Host) -> None:
        """The machine stands still for ever; its peers hear nothing at all."""
        if host.node is not None:
            self._stop(host, Run.FROZEN, silent=True)

    def leave(self, host: Host) -> None:
        """The graceful end, as on SIGTERM."""
        if host.run is not Run.RUNNING:
            return
        self.at(self.now + DRAIN_S + LEAVE_S, self.left, host, host.incarnation)
        self.workload.leave(host)

    def left(self, host: Host, incarnation: int) -> None:
        """The node has said goodbye, or had its time to."""
        if host.incarnation != incarnation or host.node is None:
            return
        for link in list(host.links):
            self.network.close(host, link, "leaving", "The stack leaves the mesh.")
        host.disk.flush()
        self._stop(host, Run.LEFT, silent=False)

    def _stop(self, host: Host, run: Run, *, silent: bool) -> None:
        self._turn_to(host, run)
        host.disk.crash()
        host.backlog.clear()
        self.network.drop_all(host, silent=silent)
        self.workload.stopped(host)
        self.tell("stopped", host)
        host.node = None

    def pause(self, host: Host, *, suspend: bool = False) -> None:
        """The process stands still; its kernel goes on receiving, unless it is suspended too."""
        if host.run is Run.RUNNING:
            self._turn_to(host, Run.SUSPENDED if suspend else Run.PAUSED)
            host.paused_at = self.now

    def resume(self, host: Host, *, suspend: bool = False) -> None:
        """The process goes on: it notices the gap first, as the shell's watchdog does. The
        monotonic clock of a suspended machine stood."""
        if host.run is not (Run.SUSPENDED if suspend else Run.PAUSED):
            return
        gap_s = self.now - host.paused_at
        self._turn_to(host, Run.RUNNING)
        host.tick_at = -1.0
        backlog, host.backlog = host.backlog, []
        if suspend:
            host.clock_base -= gap_s
            self.inject(host, ev.Stalled(gap_s, gap_s))
            self.inject(host, ev.WallClock(host.wall(self.now)))
        else:
            self.inject(host, ev.Stalled(gap_s))
        for event in backlog:
            self.inject(host, event)

    def _turn_to(self, host: Host, run: Run) -> None:
        host.run, host.changed = run, self.now
        self.shifts += 1

    def _wall(self, host: Host, incarnation: int) -> None:
        if host.incarnation == incarnation and host.node is not None:
            if host.run is Run.RUNNING:
                self.inject(host, ev.WallClock(host.wall(self.now)))
            self.at(self.now + WALL_INTERVAL_S, self._wall, host, incarnation)

    # --- turns -----------------------------------------------------------------------------------

    def soon(self, host: Host, event: ev.Event) -> None:
        """Inject after the turn that is running, unless the node is gone by then."""
        self.at(self.now, self._inject_later, host, host.incarnation, event)

    def _inject_later(self, host: Host, incarnation: int, event: ev.Event) -> None:
        if host.incarnation == incarnation:
            self.inject(host, event)

    def inject(self, host: Host, event: ev.Event) -> None:
        """One event for the node of a host: now, after its pause, or never."""
        if host.run is Run.RUNNING:
            if isinstance(event, ev.Received):
                self.tell("received", host, event)
            self._turn(host, event)
        elif host.node is not None:
            host.backlog.append(event)

    def _turn(self, host: Host, event: ev.Event | None) -> None:
        node = host.node
        assert node is not None
        self.turns += 1
        self._count_turn()
        now = host.mono(self.now)
        if isinstance(event, ev.Tick):
            # Adding the clock's base rounds: the tick must not come a hair before its deadline.
            now = max(now, min(node.deadline, now + CLOCK_GRAIN_S))
        now = max(now, node.env.now)
        try:
            effects = node.start(now) if event is None else node.handle(event, now)
            self._record(host, event, effects)
            for effect in effects:
                self._hands[type(effect)](host, effect)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            kind = type(event).__name__ if event is not None else "start"
            place = f"{where.filename.rpartition('tektonmesh/')[2]}:{where.lineno}"
            self.fail("fault", host, f"{type(error).__name__} at {place} in {kind}: {error}")
            return
        self._wake(host)

    def _count_turn(self) -> None:
        second, turns = self._second
        if second != int(self.now):
            second, turns = int(self.now), 0
        self._second = (second, turns + 1)
        if turns > TURNS_MAX * len(self.hosts):
            self.fail("runaway", None, f"{turns} turns in one virtual second")

    def _record(self, host: Host, event: ev.Event | None, effects: list[fx.Effect]) -> None:
        if self.options.deep_trace:
            line = f"{self.now:.9f} {host.index} {event!r} {effects!r}"
        else:
            kinds = ",".join([type(effect).__name__ for effect in effects])
            line = f"{self.now:.9f} {host.index} {type(event).__name__} {kinds}"
        self._trace.update(line.encode())

    def _wake(self, host: Host) -> None:
        """See to it that a tick comes when the node's earliest deadline does."""
        if host.run is not Run.RUNNING or host.node is None:
            return
        due = host.node.deadline - host.clock_base
        if due == float("inf"):
            return
        due = max(due, self.now)
        if host.tick_at < 0.0 or due < host.tick_at:
            host.tick_at = due
            self.at(due, self._tick, host, host.incarnation, due)

    def _tick(self, host: Host, incarnation: int, due: float) -> None:
        if host.incarnation != incarnation or host.tick_at != due:
            return
        host.tick_at = -1.0
        if host.run is not Run.RUNNING or host.node is None:
            return
        if host.node.deadline - host.clock_base <= self.now + CLOCK_GRAIN_S:
            self.inject(host, ev.Tick())
        else:
            self._wake(host)

    def _changed(self, host: Host, change: Change) -> None:
        self.tell("changed", host, change)

    # --- effects ---------------------------------------------------------------------------------

    def _send(self, host: Host, send: fx.Send) -> None:
        messages = send.messages
        if self.options.real_codec:
            messages = through_wire(messages)
        self.tell("sent", host, send.link, messages)
        self.network.send(host, send.link, messages)

    def _save(self, host: Host, save: fx.Save) -> None:
        if self.options.warm:
            if save.ticket is not None:
                self.soon(host, ev.Saved(save.ticket))
            return
        write = host.disk.write(save)
        lag = self.options.disk_s * (0.5 + self.chance.random()) + host.disk.slow_s
        self.at(self.now + lag, self._saved, host, host.incarnation, write)

    def _saved(self, host: Host, incarnation: int, write: Write) -> None:
        if host.incarnation != incarnation:
            return
        for ticket in host.disk.sync(write):
            self.inject(host, ev.Saved(ticket))

    def _deliver(self, host: Host, deliver: fx.Deliver) -> None:
        self.tell("delivered", host, deliver)
        self.workload.deliver(host, deliver)

    def _answer(self, host: Host, effect: fx.Answer | fx.AnswerFailed | fx.AnswerChunk) -> None:
        self.tell("answered", host, effect)
        self.workload.answered(host, effect)
