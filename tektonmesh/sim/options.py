"""Everything that makes one world, as one value; and how a random world is drawn from its seed.

Swarm testing (Groce et al., ISSTA 2012): each world switches whole features off, so that rare
combinations are reached that a uniform mix would bury.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log10
from random import Random
from typing import Any

from tektonmesh.core.types import NodeSettings
from tektonmesh.sim.faults import Fault
from tektonmesh.sim.plans import draw_faults

SPARSE_TOPOLOGIES = ("chain", "star", "ring", "random", "two_stars")
TOPOLOGIES = (*SPARSE_TOPOLOGIES, "full")
SIZES = (3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6, 7, 7, 8, 8, 10, 12)
"""Small worlds find most; a few larger ones have the longer ways."""
PARKS = (("park_bytes", 4 << 20),)
"""Stacks keep messages for one another."""
FAST_LEASES = (("refresh_min_s", 6.0), ("refresh_max_s", 8.0))
"""Leases of 18 s, so that some run out within a world."""
LIARS = (
    *("alterer", "forger", "equivocator", "postdater", "replayer", "minter", "dropper", "delayer"),
    *("corrupter", "digest-liar", "flooder", "churner", "keeper", "clock-liar"),
)
CALM_LIARS = (
    *("equivocator", "replayer", "dropper", "delayer", "digest-liar", "keeper", "clock-liar"),
)
"""The others cost a large world too much: each link that they lose is news for everybody."""
LARGE = 10
LIARS_PART = 0.2
"""Of the random worlds that have room for one."""
DISK_LOSSES = ("wipe", "restore", "power", "clone")
REGULAR_TRIES = 30
"""So often a ring or pairs are drawn that double no link; then some nodes get a link less."""
CHRONICLES_MAX = 100
"""Nodes of a world that keep a chronicle each; with more it would fill the memory."""


@dataclass(frozen=True, slots=True)
class Options:
    """One world. Times are virtual seconds, rates are per virtual second and world."""

    rng_seed: int = 1
    nodes: int = 5
    topology: str = "chain"
    """Who has whom as seed peer."""
    seeds_only: bool = False
    walls: bool = False
    """Only seed peers can be dialled at all, as between sites behind firewalls."""
    start_spread_s: float = 1.0
    warm: bool = False
    """All run and are linked from the start (`sim/warm.py`); nothing is written to disks."""
    measure_from_s: float = 0.0
    """Figures of news count from here on: a tree has to grow first."""

    duration_s: float = 30.0
    """The safety phase: writes, messages, faults."""
    settle_s: float = 30.0
    """The liveness phase may take this long: two repair periods and a redial."""
    idle_s: float = 0.0
    """How long to watch that a healed and settled world is quiet; 0 does not watch."""

    delay_s: float = 0.01
    jitter_s: float = 0.002
    regional: bool = False
    """Delays between regions of the globe (`sim/regions.py`) in the place of `delay_s`."""
    loss: float = 0.0
    disk_s: float = 0.005
    skew_s: float = 0.0
    """Each host's wall clock is wrong by at most this."""

    writes: float = 0.0
    """Registrations and deregistrations of CIs."""
    writers: int = 0
    """How many hosts write; 0 is all."""
    cis_per_host: int = 1
    records: tuple[tuple[int, int], ...] = ()
    """Hosts that have many more CIs, and how many."""
    chorus: tuple[float, ...] = ()
    """Instants at which every host registers a CI at once."""
    messages: float = 0.0
    letters: float = 0.0
    """Durable messages."""
    large: float = 0.0
    """Which part of them fits into no envelope."""
    parked: float = 0.0
    """Which part of them other stacks may keep while their destination is away."""
    readings: float = 0.0
    """Long replies that somebody reads as they come, and goes on where a try ended."""
    faults: tuple[Fault, ...] = ()
    hostile: tuple[tuple[int, str], ...] = ()
    """Which hosts run a hostile node, and which class of `sim/hostile.py`."""
    settings: tuple[tuple[str, Any], ...] = ()
    """Settings of the nodes that differ from the product's."""
    real_codec: bool = False
    """Pack and unpack every message on its way, and count bytes."""
    deep_trace: bool = False
    """Hash the values of all events and effects, not their kinds only."""

    def node_settings(self, **own: Any) -> NodeSettings:
        """The settings of one node of this world."""
        settings: dict[str, Any] = {} if self.nodes <= CHRONICLES_MAX else {"chronicle_max": 0}
        return NodeSettings(seeds_only=self.seeds_only, **settings | dict(self.settings) | own)


def edges_of(options: Options) -> tuple[tuple[int, int], ...]:
    """(dialler, seed peer) pairs. Every topology is connected."""
    count = options.nodes
    if options.topology == "chain":
        return tuple((at, at - 1) for at in range(1, count))
    if options.topology == "ring":
        return tuple((at, (at + 1) % count) for at in range(count))
    if options.topology == "star":
        return tuple((at, 0) for at in range(1, count))
    if options.topology == "full":
        return tuple((at, other) for at in range(count) for other in range(at))
    if options.topology == "regular":
        return _regular_edges(count, links_each(count), options.rng_seed)
    if options.topology == "two_stars":
        return ((1, 0), *((at, at % 2) for at in range(2, count)))
    assert options.topology == "random", options.topology
    chance = Random(f"edges {options.rng_seed}")
    edges = [(at, chance.randrange(at)) for at in range(1, count)]
    for _ in range(count // 2):
        pair = chance.randrange(count), chance.randrange(count)
        if pair[0] != pair[1] and pair not in edges and pair[::-1] not in edges:
            edges.append(pair)
    return tuple(edges)


def links_each(nodes: int) -> int:
    """How many links a node of the registry's overlay has: D(N) of docs/design/registry.md."""
    return max(3, min(10, round(2.5 * log10(nodes + 1))))


def _regular_edges(count: int, degree: int, rng_seed: int) -> tuple[tuple[int, int], ...]:
    """A random overlay in which everybody has `degree` links, or fewer where so many cannot be: a
    union of random rings, and of pairs for an odd degree (Law and Siu, 2003)."""
    chance = Random(f"regular {rng_seed}")
    edges: dict[tuple[int, int], None] = {}
    for at in range(-(-degree // 2)):
        pairs_only = degree % 2 == 1 and at == degree // 2
        best: list[tuple[int, int]] = []
        for _ in range(REGULAR_TRIES):
            order = chance.sample(range(count), count)
            ends = (order[::2], order[1::2]) if pairs_only else (order, order[1:] + order[:1])
            drawn = [(min(pair), max(pair)) for pair in zip(*ends, strict=False)]
            new = [pair for pair in dict.fromkeys(drawn) if pair not in edges]
            best = max(best, new, key=len)
            if len(new) == len(drawn):
                break
        edges |= dict.fromkeys(best)
    return tuple(edges)


def connected(count: int, edges: tuple[tuple[int, int], ...], without: tuple[int, ...]) -> bool:
    """Whether the hosts that are not in `without` form one component."""
    rest = [at for at in range(count) if at not in without]
    if not rest:
        return False
    seen = {rest[0]: None}
    queue = [rest[0]]
    while queue:
        at = queue.pop()
        for pair in edges:
            for other in pair if at in pair else ():
                if other not in without and other not in seen:
                    seen[other] = None
                    queue.append(other)
    return len(seen) == len(rest)


HEAVY_LOSS, HEAVY_SETTLE_S = 0.25, 90.0
"""With a quarter of all packets lost TCP is silent for seconds: links come and go for ever, and a
moment in which all agree is longer to wait for."""


def draw(rng_seed: int, nodes: int | None = None) -> Options:
    """The random world that belongs to `rng_seed`: 3-12 nodes unless told otherwise."""
    chance = Random(f"world {rng_seed}")
    count = nodes or chance.choice(SIZES)
    # Full meshes of many links and leases of seconds cost more than they can show.
    small = count <= 6
    options = Options(
        rng_seed=rng_seed,
        nodes=count,
        topology=chance.choice(TOPOLOGIES if small else SPARSE_TOPOLOGIES),
        seeds_only=chance.random() < 0.4,
        walls=chance.random() < 0.3,
        start_spread_s=chance.choice((0.0, 0.5, 3.0)),
        duration_s=chance.uniform(10.0, 26.0),
        idle_s=8.0 if chance.random() < 0.15 else 0.0,
        delay_s=chance.choice((0.0002, 0.005, 0.02, 0.06)),
        jitter_s=chance.choice((0.0, 0.001, 0.01)),
        loss=chance.choice((0.0, 0.0, 0.01, 0.05, HEAVY_LOSS)),
        disk_s=chance.choice((0.0005, 0.01, 0.1)),
        skew_s=chance.choice((0.0, 0.0, 2.0, 8.0)),
        writes=chance.choice((0.0, 0.1, 0.3, 1.0)),
        writers=chance.choice((0, 1, 2)),
        cis_per_host=chance.choice((0, 1, 1, 3)),
        messages=chance.choice((0.0, 0.5, 1.5, 4.0)),
        settings=chance.choice(((), FAST_LEASES)) if small else (),
        real_codec=chance.random() < 0.05,
    )
    gone = _draw_gone(chance, options)
    if options.loss >= HEAVY_LOSS:
        options = replace(options, settle_s=HEAVY_SETTLE_S)
    options = replace(options, faults=draw_faults(chance, options, gone))
    options = _draw_durable(rng_seed, options, gone)
    if count < 4 or chance.random() >= LIARS_PART:
        return options
    return replace(options, hostile=draw_liars(chance, options, gone, 1))


def _draw_durable(rng_seed: int, options: Options, gone: tuple[int, ...]) -> Options:
    """Durable messages and streams where no promise can be lost with a disk, or with a host that
    never comes back, and where none waits for a CI that was deregistered. Drawn apart, so that
    worlds without them stay what they were."""
    chance, later = (Random(f"{what} of world {rng_seed}") for what in ("letters", "streams"))
    heavy = options.loss >= HEAVY_LOSS  # what is repeated every ten seconds may outlast the world
    if (
        gone
        or heavy
        or options.writes
        or any(fault.kind in DISK_LOSSES for fault in options.faults)
    ):
        return options
    parks = later.random() < 0.4
    return replace(
        options,
        letters=chance.choice((0.0, 0.0, 1.0, 4.0)),
        readings=later.choice((0.0, 0.0, 0.3, 1.0)),
        parked=0.5 if parks else 0.0,
        settings=(*options.settings, *PARKS) if parks else options.settings,
    )


def draw_liars(
    chance: Random, options: Options, gone: tuple[int, ...], most: int
) -> tuple[tuple[int, str], ...]:
    """Up to `most` hosts that lie, so that the others are connected without them and without
    those in `gone`."""
    kinds = LIARS if options.nodes <= LARGE else CALM_LIARS
    liars: list[tuple[int, str]] = []
    without = gone
    for index in chance.sample(range(options.nodes), options.nodes):
        fits = index not in gone and connected(options.nodes, edges_of(options), (*without, index))
        if len(liars) < most and fits:
            without = (*without, index)
            liars.append((index, chance.choice(kinds)))
    return tuple(sorted(liars))


def _draw_gone(chance: Random, options: Options) -> tuple[int, ...]:
    """Hosts that die or leave for good; the others stay connected without them."""
    if options.nodes < 4 or chance.random() < 0.6:
        return ()
    gone = (chance.randrange(options.nodes),)
    return gone if connected(options.nodes, edges_of(options), gone) else ()
