"""What goes wrong in a world, and when: a plan as data, and the machine that carries it out.

A plan is a tuple of `Fault`; the same plan and seed give the same world. Nothing here looks into
a node. At the end of the safety phase `heal` undoes all that can be undone: cuts end, paused
hosts run again, hosts that were to come back do. How plans are drawn is `sim/plans.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from tektonmesh.sim.garbler import Garbler
from tektonmesh.sim.host import Host, Run

if TYPE_CHECKING:
    from tektonmesh.sim.world import World

NETWORK_KINDS = ("cut", "oneway", "clog", "swizzle", "slow", "reset", "storm", "flap", "garble")
HOST_KINDS = ("kill", "freeze", "wipe", "leave", "pause", "suspend", "crashloop", "upgrade")
OTHER_KINDS = ("slowdisk", "power", "restore", "clone", "clock")
KINDS = (*NETWORK_KINDS, *HOST_KINDS, *OTHER_KINDS)

FOR_EVER = ("kill", "freeze", "wipe", "leave", "power", "clone")
"""What no heal undoes if it was planned without an end."""
UNREST = ("swizzle", "slow", "storm", "flap", "garble", "crashloop", "upgrade", "slowdisk")
"""What leaves nobody calm as long as it lasts."""

STORM_RATE = 2.0
"""Resets a second in a storm."""
FLAP_S = 1.0
FLAP_DOWN_S = (0.1, 0.6)
"""Between the reset and this a flapping host still passes packets; to this it passes none."""
CRASH_S, RESTART_S = 1.0, 0.3
UPGRADE_DOWN_S = 1.5
CHANGES_KEPT = 16
LEAVE_S = 6.0
"""More than a graceful end may take."""
GARBLE_RATE = 4.0
STUCK_S = 1e6
"""A disk that is about to lose power makes nothing durable any more."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong at `at_s` and, where it can end, ends `for_s` later.

    cut: no packet passes between `nodes` and the rest. oneway: none from `nodes` to the rest.
    clog: none among `nodes`. swizzle: the links of `nodes` are clogged one host after the other,
    then released in another order (FoundationDB's swizzle-clogging). slow: packets of `nodes` take
    `amount_s` longer. reset: the links of `nodes` are reset once; storm: those of one or another,
    again and again. flap: the network of `nodes` goes and comes back every second. garble: mutated
    messages arrive on the links of `nodes`, which are reset at the end.

    kill: the process dies, its kernel says so to the peers. freeze: the machine dies in silence.
    wipe: as kill, and the disk is lost. leave: the stack leaves the mesh. pause: the process stands
    still. suspend: the machine does, and its monotonic clock. crashloop: killed and started again
    every second. upgrade: each of `nodes` in turn leaves and comes back as the next version.

    slowdisk: writes take `amount_s` longer. power: nothing written within the last `amount_s`
    is durable when the machine dies in silence. restore: killed, and its disk is that of `at_s`
    again. clone: a second process with the same keys and a copy of the disk runs beside; at the
    end it is stopped and the first one started anew. clock: the wall clock jumps by `amount_s`.

    With `for_s` of 0 those of `FOR_EVER` never end, the others at the heal.
    """

    at_s: float
    kind: str
    nodes: tuple[int, ...]
    for_s: float = 0.0
    amount_s: float = 0.0


def cloned(plan: tuple[Fault, ...]) -> tuple[int, ...]:
    """The hosts that a plan clones: the world needs one more for each."""
    return tuple(index for fault in plan if fault.kind == "clone" for index in fault.nodes)


@dataclass(slots=True, eq=False)
class _Open:
    """A fault that has not ended, and what its end takes back, last thing first."""

    fault: Fault
    undo: list[Callable[[], None]] = field(default_factory=list)
    ended: bool = False


class Faults:
    """Carries a plan out and remembers what it disturbed last."""

    def __init__(self, world: World, plan: tuple[Fault, ...]) -> None:
        self._world = world
        self._plan = plan
        self._chance = Random(f"faults {world.options.rng_seed}")
        self.garbler = Garbler(self._chance)
        self._open: list[_Open] = []
        self._healed = False
        self._changes: list[float] = [0.0]
        """The newest instants of a disturbance or of an end, each once."""
        self._acts: dict[str, Callable[[_Open], None]] = {
            kind: getattr(self, f"_{kind}") for kind in KINDS
        }

    @property
    def last_change(self) -> float:
        """The instant of the newest disturbance or end of one, for checkers that need calm."""
        if any(it.fault.kind in UNREST for it in self._open):
            return self._world.now
        return self._changes[-1]

    def calm_before(self, instant: float) -> float:
        """Seconds without a disturbance before the one of `instant`."""
        earlier = [it for it in self._changes if it < instant]
        return instant - earlier[-1] if earlier else instant

    def _disturbed(self) -> None:
        if self._changes[-1] != self._world.now:
            self._changes.append(self._world.now)
            del self._changes[:-CHANGES_KEPT]

    def schedule(self) -> None:
        """Put the whole plan into the world's heap."""
        for fault in self._plan:
            self._world.at(fault.at_s, self._begin, fault)

    def heal(self) -> None:
        """End the safety phase: what still waits does not happen, what is open ends now."""
        for it in list(self._open):
            self._end(it)
        self._healed = True

    def _begin(self, fault: Fault) -> None:
        if self._healed:
            return
        self._disturbed()
        it = _Open(fault)
        if fault.for_s or fault.kind not in FOR_EVER:
            self._open.append(it)
        self._acts[fault.kind](it)
        if fault.for_s:
            self._world.at(self._world.now + fault.for_s, self._end, it)

    def _end(self, it: _Open) -> None:
        if it.ended:
            return
        it.ended = True
        if it in self._open:
            self._open.remove(it)
        self._disturbed()
        while it.undo:
            it.undo.pop()()

    def _later(self, it: _Open, pause_s: float, act: Callable[[_Open], None]) -> None:
        """A further step of a fault, unless it has ended by then."""
        self._world.at(self._world.now + pause_s, self._step, it, act)

    def _step(self, it: _Open, act: Callable[[_Open], None]) -> None:
        if not it.ended:
            self._disturbed()
            act(it)

    def _hosts(self, it: _Open) -> list[Host]:
        return [self._world.hosts[index] for index in it.fault.nodes]

    # --- the network -----------------------------------------------------------------------------

    def _block(self, it: _Open, source: int, target: int) -> None:
        self._world.network.block(source, target)
        it.undo.append(partial(self._world.network.unblock, source, target))

    def _outside(self, inside: Iterable[int]) -> list[int]:
        return [at for at in range(len(self._world.hosts)) if at not in inside]

    def _isolate(self, it: _Open, nodes: tuple[int, ...]) -> None:
        for other in self._outside(nodes):
            for node in nodes:
                self._block(it, node, other)
                self._block(it, other, node)

    def _cut(self, it: _Open) -> None:
        self._isolate(it, it.fault.nodes)

    def _oneway(self, it: _Open) -> None:
        for node in it.fault.nodes:
            for other in self._outside(it.fault.nodes):
                self._block(it, node, other)

    def _clog(self, it: _Open) -> None:
        for node in it.fault.nodes:
            for other in it.fault.nodes:
                if node != other:
                    self._block(it, node, other)

    def _swizzle(self, it: _Open) -> None:
        """Each clog is a cut of its own, taken back by its own end."""
        nodes = list(it.fault.nodes)
        step_s = (it.fault.for_s or 10.0) / (2 * len(nodes) + 1)
        order = self._chance.sample(nodes, len(nodes))
        for at, node in enumerate(nodes):
            clog = _Open(Fault(self._world.now, "cut", (node,)))
            it.undo.append(partial(self._end, clog))
            self._later(clog, at * step_s, self._cut)
            release_s = (len(nodes) + order.index(node) + 1) * step_s
            self._world.at(self._world.now + release_s, self._end, clog)

    def _slow(self, it: _Open) -> None:
        network, more_s = self._world.network, it.fault.amount_s
        for node in it.fault.nodes:
            for other in self._outside(it.fault.nodes):
                for pair in ((node, other), (other, node)):
                    network.slow(*pair, more_s)
                    it.undo.append(partial(network.slow, *pair, -more_s))

    def _reset(self, it: _Open) -> None:
        for host in self._hosts(it):
            self._world.network.reset_links(host)

    def _storm(self, it: _Open) -> None:
        self._world.network.reset_links(self._chance.choice(self._hosts(it)))
        self._later(it, self._chance.expovariate(STORM_RATE), self._storm)

    def _flap(self, it: _Open) -> None:
        self._reset(it)
        away = _Open(Fault(self._world.now, "cut", it.fault.nodes))
        it.undo = [lambda: self._end(away)]
        self._later(away, FLAP_DOWN_S[0], self._cut)
        self._world.at(self._world.now + FLAP_DOWN_S[1], self._end, away)
        self._later(it, FLAP_S, self._flap)

    def _garble(self, it: _Open) -> None:
        for host in self._hosts(it):
            it.undo.append(partial(self._world.network.reset_links, host))
        self._garble_one(it)

    def _garble_one(self, it: _Open) -> None:
        self.garbler.strike(self._world, self._chance.choice(self._hosts(it)))
        self._later(it, self._chance.expovariate(GARBLE_RATE), self._garble_one)

    # --- hosts -----------------------------------------------------------------------------------

    def _start_at_the_end(self, it: _Open) -> None:
        for host in self._hosts(it):
            it.undo.append(partial(self._return, host))

    def _return(self, host: Host) -> None:
        """Start it now, or, if it is just about to leave, when it has left."""
        before = host.incarnation
        self._world.start(host)
        if host.incarnation == before:
            self._world.at(self._world.now + LEAVE_S, self._start_who_left, host, before)

    def _start_who_left(self, host: Host, incarnation: int) -> None:
        if host.run is Run.LEFT and host.incarnation == incarnation:
            self._world.start(host)

    def _kill(self, it: _Open) -> None:
        for host in self._hosts(it):
            self._world.kill(host)
        self._start_at_the_end(it)

    def _freeze(self, it: _Open) -> None:
        for host in self._hosts(it):
            self._world.freeze(host)
        self._start_at_the_end(it)

    def _wipe(self, it: _Open) -> None:
        for host in self._hosts(it):
            self._world.kill(host, wipe=True)
        self._start_at_the_end(it)

    def _leave(self, it: _Open) -> None:
        for host in self._hosts(it):
            self._world.leave(host)
        self._start_at_the_end(it)

    def _pause(self, it: _Open) -> None:
        for host in self._hosts(it):
            self._world.pause(host)
            it.undo.append(partial(self._world.resume, host))

    def _suspend(self, it: _Open) -> None:
        for host in self._hosts(it):
            self._world.pause(host, suspend=True)
            it.undo.append(partial(self._world.resume, host, suspend=True))
            self._isolate(it, (host.index,))

    def _crashloop(self, it: _Open) -> None:
        self._kill(it)
        self._later(it, RESTART_S, self._restart)

    def _restart(self, it: _Open) -> None:
        for host in self._hosts(it):
            self._world.start(host)
        it.undo = []
        self._later(it, CRASH_S - RESTART_S, self._crashloop)

    def _upgrade(self, it: _Open) -> None:
        self._start_at_the_end(it)
        step_s = (it.fault.for_s or 10.0) / len(it.fault.nodes)
        for at, host in enumerate(self._hosts(it)):
            self._later(it, at * step_s, partial(self._upgrade_one, host))

    def _upgrade_one(self, host: Host, it: _Open) -> None:
        self._world.leave(host)
        host.upgrades += 1
        self._later(it, UPGRADE_DOWN_S, lambda _it: self._world.start(host))

    # --- disks, clocks, clones -------------------------------------------------------------------

    def _slowdisk(self, it: _Open) -> None:
        for host in self._hosts(it):
            self._slow_down(it, host, it.fault.amount_s)

    def _slow_down(self, it: _Open, host: Host, more_s: float) -> None:
        def undo() -> None:
            host.disk.slow_s -= more_s

        host.disk.slow_s += more_s
        it.undo.append(undo)

    def _power(self, it: _Open) -> None:
        """If the end or the heal comes first, the power goes just then."""
        stuck = _Open(it.fault)
        self._open.append(stuck)
        for host in self._hosts(it):
            self._slow_down(stuck, host, STUCK_S)
        stuck.undo.insert(0, lambda: self._freeze(it))
        it.undo.append(lambda: self._end(stuck))
        self._world.at(self._world.now + it.fault.amount_s, self._end, stuck)

    def _restore(self, it: _Open) -> None:
        for host in self._hosts(it):
            backup = dict(host.disk.rows)
            it.undo.append(partial(self._put_back, host, backup))

    def _put_back(self, host: Host, backup: dict[tuple[str, bytes], bytes]) -> None:
        self._world.kill(host, wipe=True)
        host.disk.rows = backup
        self._world.start(host)

    def _clone(self, it: _Open) -> None:
        for host in self._hosts(it):
            spare = self._spare(host)
            spare.disk.rows = dict(host.disk.rows)
            self._world.start(spare)
            it.undo.append(partial(self._end_clone, host, spare))

    def _spare(self, host: Host) -> Host:
        unused = [it for it in self._world.hosts[self._world.options.nodes :] if not it.incarnation]
        return next(it for it in unused if it.role == host.index)

    def _end_clone(self, host: Host, spare: Host) -> None:
        self._world.kill(spare)
        self._world.kill(host)
        self._world.start(host)

    def _clock(self, it: _Open) -> None:
        for host in self._hosts(it):
            host.skew_s += it.fault.amount_s
