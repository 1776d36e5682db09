"""Named worlds as data: what each is for, and its options."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tektonmesh.sim.faults import Fault
from tektonmesh.sim.options import Options

WRITER = Options(
    nodes=5, topology="random", duration_s=30.0, idle_s=120.0, writes=0.5, writers=1, cis_per_host=0
)
"""One writer and no faults: what `tektonmesh sim` runs when no scenario is named."""

QUIET_WALLS = Options(seeds_only=True, walls=True, duration_s=30.0, writes=0.3, messages=1.0)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A named world. `nodes` of the options can be changed by the caller; faults on hosts that
    a smaller world lacks are then left out."""

    name: str
    about: str
    options: Options

    def world(self, rng_seed: int, nodes: int | None) -> Options:
        """The options of this scenario with another seed and size."""
        count = nodes or self.options.nodes
        faults = tuple(
            fault for fault in self.options.faults if all(index < count for index in fault.nodes)
        )
        hostile = tuple(pair for pair in self.options.hostile if pair[0] < count)
        return replace(self.options, rng_seed=rng_seed, nodes=count, faults=faults, hostile=hostile)


def _scenario(name: str, about: str, base: Options = QUIET_WALLS, **changes: object) -> Scenario:
    return Scenario(name, about, replace(base, **changes))  # type: ignore[arg-type]


SCENARIOS: dict[str, Scenario] = {
    it.name: it
    for it in (
        Scenario("writer", "one writer and no faults", WRITER),
        _scenario("chain", "five in a row, ends share no link, messages both ways"),
        _scenario("star", "eight round a hub", nodes=8, topology="star"),
        _scenario(
            "ring",
            "six in a ring, one dies in silence",
            nodes=6,
            topology="ring",
            faults=(Fault(12.0, "freeze", (2,)),),
        ),
        _scenario(
            "bridge",
            "two stars with one bridge, which restarts",
            nodes=8,
            topology="two_stars",
            faults=(Fault(10.0, "kill", (0,), 4.0),),
        ),
        _scenario(
            "burst",
            "all write at once, as fast as they may",
            nodes=6,
            topology="random",
            writes=40.0,
            messages=0.0,
            duration_s=15.0,
        ),
        _scenario("loss", "a quarter of all packets is lost", loss=0.25, settle_s=60.0),
        _scenario(
            "kill",
            "a full mesh loses one host with notice",
            nodes=6,
            topology="full",
            walls=False,
            seeds_only=False,
            faults=(Fault(12.0, "kill", (3,)),),
        ),
        _scenario(
            "freeze",
            "a full mesh loses one host in silence",
            nodes=6,
            topology="full",
            walls=False,
            seeds_only=False,
            faults=(Fault(12.0, "freeze", (3,)),),
        ),
        _scenario(
            "failover",
            "relays die and come back while many messages pass",
            nodes=6,
            topology="ring",
            messages=25.0,
            duration_s=25.0,
            faults=(Fault(8.0, "kill", (2,), 4.0), Fault(15.0, "freeze", (4,), 4.0)),
        ),
        _scenario(
            "leave",
            "one leaves, and comes back",
            nodes=5,
            topology="ring",
            faults=(Fault(10.0, "leave", (2,), 12.0),),
        ),
        _scenario(
            "restart-all",
            "every host restarts at once",
            nodes=5,
            topology="ring",
            faults=(Fault(12.0, "kill", (0, 1, 2, 3, 4), 2.0),),
        ),
        _scenario(
            "wipe",
            "a disk is lost, the key is kept",
            nodes=4,
            topology="ring",
            faults=(Fault(10.0, "wipe", (1,), 3.0),),
        ),
        _scenario(
            "partition",
            "two halves apart for 60 s, both write",
            nodes=6,
            topology="random",
            walls=False,
            seeds_only=False,
            duration_s=80.0,
            writes=1.0,
            faults=(Fault(10.0, "cut", (0, 1, 2), 60.0),),
        ),
        _scenario(
            "one-against-all",
            "one is cut off for 20 s",
            nodes=6,
            topology="full",
            walls=False,
            seeds_only=False,
            duration_s=40.0,
            faults=(Fault(8.0, "cut", (4,), 20.0),),
        ),
        _scenario(
            "oneway",
            "one can hear and not speak for 15 s",
            nodes=5,
            topology="full",
            walls=False,
            seeds_only=False,
            faults=(Fault(8.0, "oneway", (1,), 15.0),),
        ),
        _scenario(
            "pauses",
            "processes stand still for a while",
            nodes=6,
            topology="random",
            faults=tuple(Fault(6.0 + 4.0 * at, "pause", (at,), 1.5 + at) for at in range(5)),
        ),
        _scenario(
            "clocks",
            "wall clocks are wrong and jump",
            nodes=5,
            topology="ring",
            skew_s=20.0,
            faults=(
                Fault(8.0, "clock", (1,), amount_s=3600.0),
                Fault(14.0, "clock", (2,), amount_s=-3600.0),
            ),
        ),
        _scenario(
            "leases",
            "short leases; a stack dies and is forgotten",
            nodes=4,
            topology="ring",
            duration_s=80.0,
            settings=(("refresh_min_s", 4.0), ("refresh_max_s", 5.0)),
            faults=(Fault(8.0, "freeze", (2,)),),
        ),
        _scenario(
            "alterer",
            "a member alters what it passes on",
            nodes=5,
            topology="ring",
            hostile=((2, "alterer"),),
        ),
        _scenario(
            "forger",
            "a member signs heads of others with its own key",
            nodes=5,
            topology="ring",
            hostile=((2, "forger"),),
        ),
        _scenario(
            "replayer",
            "a member sends old heads again, also of who left",
            nodes=5,
            topology="ring",
            hostile=((2, "replayer"),),
            faults=(Fault(10.0, "leave", (4,)),),
        ),
        _scenario(
            "equivocator",
            "a member signs two heads at one version",
            nodes=5,
            topology="ring",
            hostile=((2, "equivocator"),),
        ),
        _scenario("codec", "every message goes through the real codec", real_codec=True),
    )
}
"""Every named world, by name."""
