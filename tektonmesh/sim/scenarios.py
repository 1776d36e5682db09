"""Named worlds as data: what each is for, and its options.

Section 8 of the registry's design lists what must be among them. Most have a variant `NAME+liars`
with hostile hosts, drawn from the seed, where the honest ones stay joined without them. Those that
take many virtual hours are `long`: the tests leave them out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random

from tektonmesh.sim.durable_worlds import DURABLE
from tektonmesh.sim.faults import FOR_EVER, Fault
from tektonmesh.sim.hostile import HOSTILE
from tektonmesh.sim.options import Options, draw_liars
from tektonmesh.sim.plans import churn, day, pauses, quick_churn

WRITER = Options(
    nodes=5, topology="random", duration_s=30.0, idle_s=120.0, writes=0.5, writers=1, cis_per_host=0
)
"""One writer and no faults: what `tektonmesh sim` runs when no scenario is named."""

WALLS = Options(seeds_only=True, walls=True, duration_s=30.0, writes=0.3, messages=1.0)
"""Sites behind firewalls: links exist between seed peers only."""
OPEN = replace(WALLS, seeds_only=False, walls=False)
"""Everybody can dial everybody."""

Plan = Callable[[Random, Options], tuple[Fault, ...]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A named world. `nodes` of the options can be changed by the caller; faults on hosts that
    a smaller world lacks are then left out. A `plan` draws the faults, `liars` are drawn too."""

    name: str
    about: str
    options: Options
    plan: Plan | None = None
    liars: int = 0
    long: bool = False

    def world(
        self, rng_seed: int, nodes: int | None = None, duration_s: float | None = None
    ) -> Options:
        """The options of this scenario with another seed, size and duration."""
        count = nodes or self.options.nodes
        options = replace(
            self.options,
            rng_seed=rng_seed,
            nodes=count,
            duration_s=duration_s or self.options.duration_s,
            faults=tuple(it for it in self.options.faults if all(at < count for at in it.nodes)),
            hostile=tuple(pair for pair in self.options.hostile if pair[0] < count),
            records=tuple(pair for pair in self.options.records if pair[0] < count),
        )
        chance = Random(f"scenario {self.name} {rng_seed}")
        if self.plan is not None:
            options = replace(options, faults=self.plan(chance, options))
        if self.liars:
            options = replace(options, hostile=self._draw_liars(chance, options))
        return options

    def _draw_liars(self, chance: Random, options: Options) -> tuple[tuple[int, str], ...]:
        gone = [
            index
            for fault in options.faults
            if fault.kind in FOR_EVER and not fault.for_s
            for index in fault.nodes
        ]
        return draw_liars(chance, options, tuple(gone), self.liars)


def _walled(name: str, about: str, **changes: object) -> Scenario:
    return Scenario(name, about, replace(WALLS, **changes))  # type: ignore[arg-type]


def _open(name: str, about: str, **changes: object) -> Scenario:
    return Scenario(name, about, replace(OPEN, **changes))  # type: ignore[arg-type]


def _network() -> Iterator[Scenario]:
    """Shapes, writers, loss, cuts and other trouble on the way."""
    yield Scenario("writer", "one writer and no faults", WRITER)
    yield _walled(
        "burst",
        "all write at once, as fast as they may",
        nodes=6,
        topology="random",
        writes=40.0,
        messages=0.0,
        duration_s=15.0,
    )
    yield _walled("chain", "five in a row, ends share no link, messages both ways")
    yield _walled("star", "eight round a hub", nodes=8, topology="star")
    yield _walled(
        "ring",
        "six in a ring, one dies in silence",
        nodes=6,
        topology="ring",
        faults=(Fault(12.0, "freeze", (2,)),),
    )
    yield _walled(
        "bridge",
        "two stars with one bridge, which restarts",
        nodes=8,
        topology="two_stars",
        faults=(Fault(10.0, "kill", (0,), 4.0),),
    )
    yield _open("loss-1", "a hundredth of all packets is lost", nodes=6, loss=0.01)
    yield _open("loss-10", "a tenth of all packets is lost", nodes=6, loss=0.1, settle_s=60.0)
    yield _walled("loss", "a quarter of all packets is lost", loss=0.25, settle_s=60.0)
    for name, cut_s, rate in (
        ("partition-10s", 10.0, 1.0),
        ("partition-10min", 600.0, 0.05),
        ("partition-3h", 10_800.0, 0.01),
    ):
        yield _open(
            name,
            f"two halves apart for {cut_s:.0f} s, both write",
            nodes=6,
            topology="random",
            duration_s=cut_s + 25.0,
            writes=rate,
            messages=rate,
            faults=(Fault(12.0, "cut", (0, 1, 2), cut_s),),
        )


def _partitions() -> Iterator[Scenario]:
    yield _open(
        "one-against-all",
        "one is cut off for 20 s",
        nodes=6,
        topology="full",
        duration_s=40.0,
        faults=(Fault(8.0, "cut", (4,), 20.0),),
    )
    yield _open(
        "oneway",
        "one can hear and not speak for 15 s",
        topology="full",
        faults=(Fault(8.0, "oneway", (1,), 15.0),),
    )
    yield _open(
        "swizzle",
        "links stop host by host and come back in another order",
        nodes=8,
        topology="random",
        faults=(Fault(8.0, "swizzle", (1, 3, 4, 6), 12.0),),
    )
    yield _open(
        "slow",
        "for a while packets of some take a second longer",
        nodes=6,
        topology="random",
        faults=(Fault(8.0, "slow", (1, 4), 12.0, 1.0),),
    )
    yield _open(
        "storm",
        "links are reset again and again",
        nodes=6,
        topology="random",
        faults=(Fault(8.0, "storm", (0, 1, 2, 3, 4, 5), 10.0),),
    )
    yield _walled(
        "flap",
        "one link of a ring goes and comes back every second",
        nodes=5,
        topology="ring",
        faults=(Fault(8.0, "flap", (2,), 10.0),),
    )
    yield _open(
        "garble",
        "bytes that no honest node sends arrive on links",
        nodes=6,
        topology="random",
        faults=(Fault(6.0, "garble", (0, 1, 2, 3, 4, 5), 20.0),),
    )


def _hosts() -> Iterator[Scenario]:
    """Hosts that die, stand still, come back and forget."""
    yield _open(
        "kill",
        "a full mesh loses one host with notice",
        nodes=6,
        topology="full",
        faults=(Fault(12.0, "kill", (3,)),),
    )
    yield _open(
        "freeze",
        "a full mesh loses one host in silence",
        nodes=6,
        topology="full",
        faults=(Fault(12.0, "freeze", (3,)),),
    )
    yield _walled(
        "failover",
        "relays die and come back while many messages pass",
        nodes=6,
        topology="ring",
        messages=25.0,
        duration_s=25.0,
        faults=(Fault(8.0, "kill", (2,), 4.0), Fault(15.0, "freeze", (4,), 4.0)),
    )
    yield _walled(
        "leave",
        "one leaves, and comes back",
        topology="ring",
        faults=(Fault(10.0, "leave", (2,), 12.0),),
    )
    yield _walled(
        "restart-all",
        "every host restarts at once",
        topology="ring",
        faults=(Fault(12.0, "kill", (0, 1, 2, 3, 4), 2.0),),
    )
    yield _walled(
        "crashloop",
        "one dies and starts again every second",
        topology="ring",
        faults=(Fault(8.0, "crashloop", (1,), 12.0),),
    )
    yield _walled(
        "upgrade",
        "each host in turn restarts as the next version",
        topology="ring",
        duration_s=40.0,
        faults=(Fault(8.0, "upgrade", (0, 1, 2, 3, 4), 25.0),),
    )


def _clocks() -> Iterator[Scenario]:
    yield Scenario(
        "pauses",
        "one to ten percent of the processes stand still for 1-30 s",
        replace(OPEN, nodes=12, topology="random", duration_s=40.0, messages=0.5),
        plan=pauses,
    )
    for name, slept_s in (("suspend", 1200.0), ("suspend-8h", 28_800.0)):
        yield _open(
            name,
            f"a machine sleeps for {slept_s:.0f} s, and so does its clock",
            nodes=4,
            duration_s=slept_s + 30.0,
            settle_s=90.0,
            writes=0.01,
            messages=0.05,
            faults=(Fault(12.0, "suspend", (2,), slept_s),),
        )
    yield _walled(
        "leases",
        "short leases; a stack dies and is forgotten",
        nodes=4,
        topology="ring",
        duration_s=80.0,
        settings=(("refresh_min_s", 4.0), ("refresh_max_s", 5.0)),
        faults=(Fault(8.0, "freeze", (2,)),),
    )
    steady = replace(OPEN, topology="random", messages=0.2, writes=0.1, loss=0.005)
    yield Scenario(
        "churn",
        "hosts come and go, one every six seconds",
        replace(steady, nodes=12, duration_s=60.0),
        plan=quick_churn,
    )
    yield Scenario(
        "churn-6h",
        "one percent of the hosts a minute come and go for six hours",
        replace(steady, nodes=32, duration_s=21_600.0, writes=0.02, messages=0.02),
        plan=churn,
    )
    yield Scenario(
        "day",
        "24 hours of churn, loss, pauses and partitions, with liars",
        replace(steady, nodes=32, duration_s=86_400.0, writes=0.01, messages=0.02),
        plan=day,
        liars=3,
    )


def _state() -> Iterator[Scenario]:
    """Disks, clocks, clones, and much to say."""
    yield _walled(
        "wipe",
        "a disk is lost, the key is kept",
        nodes=4,
        topology="ring",
        faults=(Fault(10.0, "wipe", (1,), 3.0),),
    )
    yield _walled(
        "restore",
        "a disk is put back as it was 8 s ago",
        nodes=4,
        topology="ring",
        faults=(Fault(10.0, "restore", (1,), 8.0),),
    )
    yield _walled(
        "slow-disk",
        "writes take two seconds, restarts included",
        nodes=4,
        topology="ring",
        faults=(Fault(6.0, "slowdisk", (1, 2), 18.0, 2.0), Fault(10.0, "kill", (1,), 2.0)),
    )
    yield _walled(
        "power",
        "the last 4 s of writes are lost with the power",
        topology="ring",
        writes=1.0,
        faults=(Fault(8.0, "power", (1,), 9.0, 4.0), Fault(14.0, "power", (3,), 9.0, 4.0)),
    )
    yield _open(
        "clone",
        "a copy of a machine runs beside it for a while",
        duration_s=45.0,
        faults=(Fault(10.0, "clone", (1,), 25.0),),
    )
    yield _walled(
        "clocks",
        "wall clocks are wrong by up to an hour, and jump",
        topology="ring",
        skew_s=20.0,
        faults=(
            Fault(8.0, "clock", (1,), amount_s=3600.0),
            Fault(14.0, "clock", (2,), amount_s=-3600.0),
            Fault(18.0, "kill", (1,), 2.0),
        ),
    )


def _durable() -> Iterator[Scenario]:
    """Durable messages through all that does not lose a disk."""
    for world in DURABLE:
        options = replace(WALLS, **world.changes)
        yield Scenario(world.name, world.about, options, plan=world.plan)


def _joins() -> Iterator[Scenario]:
    yield _walled(
        "forgotten",
        "a stack left and is forgotten at once; a member remembers its old heads",
        topology="ring",
        duration_s=60.0,
        settings=(("left_keep_s", 8.0),),
        hostile=((2, "replayer"),),
        faults=(Fault(10.0, "leave", (4,)),),
    )
    yield _walled(
        "relic",
        "a disk is lost long after a stack died, and a member has kept that one's heads",
        topology="ring",
        duration_s=100.0,
        settings=(("refresh_min_s", 4.0), ("refresh_max_s", 5.0)),
        hostile=((2, "replayer"),),
        faults=(Fault(8.0, "freeze", (1,)), Fault(70.0, "wipe", (3,), 2.0)),
    )
    yield _open(
        "large-owner",
        "an owner with as many records as it may have",
        topology="random",
        records=((0, 3800),),
        writes=0.1,
    )
    yield _open(
        "cold-join",
        "a host with an empty disk joins where owners have many records",
        nodes=6,
        topology="random",
        records=tuple((at, 300) for at in range(6)),
        writes=0.0,
        messages=0.0,
        faults=(Fault(15.0, "wipe", (5,), 2.0),),
    )
    yield _open(
        "republish",
        "every owner has news at the same instant, again and again",
        nodes=10,
        topology="random",
        chorus=tuple(6.0 + 2.0 * at for at in range(8)),
        writes=0.0,
    )
    yield _open(
        "joins",
        "all join within two seconds (`--nodes 10000` for the storm)",
        nodes=24,
        topology="random",
        start_spread_s=2.0,
        duration_s=20.0,
        writes=0.0,
        messages=0.0,
    )
    yield _walled("codec", "every message goes through the real codec", real_codec=True)


WARM = Options(
    nodes=100,
    warm=True,
    regional=True,
    jitter_s=0.0005,
    duration_s=22.0,
    settle_s=30.0,
    writes=1.0,
    writers=1,
    cis_per_host=0,
    measure_from_s=10.0,
)
"""Worlds for thousands of nodes: one writer, after whose first writes the tree has grown."""


def _scale() -> Iterator[Scenario]:
    yield Scenario("scale", "one writer among `--nodes` spread over the globe", WARM)
    yield Scenario("scale-loss", "the same with 2 % of packets lost", replace(WARM, loss=0.02))
    yield Scenario(
        "scale-crash",
        "the same; a tenth of all hosts dies at once",
        WARM,
        plan=lambda chance, it: (
            Fault(9.5, "kill", tuple(chance.sample(range(1, it.nodes), it.nodes // 10))),
        ),
    )
    yield Scenario(
        "scale-deaths",
        "one host is killed, and later one freezes",
        replace(WARM, duration_s=24.0),
        plan=lambda _chance, it: (
            Fault(8.0, "kill", (it.nodes // 2,)),
            Fault(14.0, "freeze", (it.nodes // 3,)),
        ),
    )
    yield Scenario(
        "scale-idle",
        "nobody writes: what it costs that all are there",
        replace(WARM, duration_s=40.0, writes=0.0, idle_s=10.0),
    )


ABOUT_LIARS = {
    "alterer": "a member alters what it passes on",
    "forger": "a member signs heads of others with its own key",
    "equivocator": "a member signs two heads at one version",
    "replayer": "a member sends old heads again, also of who left",
    "postdater": "a member signs its heads two minutes ahead",
    "minter": "a member makes up members, with the names of others",
    "dropper": "a member passes nothing on",
    "delayer": "a member keeps everything back for a while",
    "corrupter": "a member changes bytes of what it passes on",
    "digest-liar": "a member lies about what it holds",
    "flooder": "a member sends as much as it can",
    "churner": "a member changes without end",
    "keeper": "a member says that the links of the dead are up",
    "clock-liar": "a member says that it is later than it is",
}


def _liars() -> Iterator[Scenario]:
    """One hostile member of each kind. One neighbour of it leaves, the other dies for a while."""
    for kind in HOSTILE:
        yield _walled(
            kind,
            ABOUT_LIARS[kind],
            nodes=6,
            topology="ring",
            hostile=((2, kind),),
            faults=(Fault(10.0, "leave", (3,)), Fault(16.0, "freeze", (1,), 8.0)),
        )


LONG = ("partition-3h", "suspend-8h", "churn-6h", "day")
PURE = (
    "writer",
    "codec",
    "cold-join",
    "day",
    "forgotten",
    "relic",
    *HOSTILE,
    *(it.name for it in _scale()),
)
"""Without a variant: what they measure would be gone, or liars are in them anyway."""


def _all() -> Iterator[Scenario]:
    groups = _network, _partitions, _hosts, _clocks, _state, _durable, _joins, _scale, _liars
    for group in (make() for make in groups):
        for plain in group:
            scenario = replace(plain, long=plain.name in LONG)
            yield scenario
            if scenario.name not in PURE:
                about = f"{scenario.about}; with liars"
                yield replace(scenario, name=f"{scenario.name}+liars", about=about, liars=1)


SCENARIOS: dict[str, Scenario] = {it.name: it for it in _all()}
"""Every named world, by name."""
