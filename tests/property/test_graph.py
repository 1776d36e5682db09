"""The graph changes by what changed: it must be what a reading of everything would make of it,
alone and over a base, and tell what comparing all states would tell."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tektonmesh.core.effects import Notice
from tektonmesh.core.graph import read_claim
from tektonmesh.core.ids import show_id
from tektonmesh.core.ownlinks import UP
from tektonmesh.core.replica import Replica
from tektonmesh.core.types import StackId, StackState, Status
from tests.liveness import Rig, id_of

NAMES = "bcdef"
CALM = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
KINDS = {
    StackState.UP: "stack_up",
    StackState.UNREACHABLE: "stack_unreachable",
    StackState.DEREGISTERED: "stack_deregistered",
    StackState.LEFT: "stack_left",
}
CLAIMS = st.dictionaries(
    st.sampled_from("a" + NAMES),
    st.tuples(st.integers(1, 9), st.sampled_from(["up", "up", "suspect"])),
    max_size=4,
)
DEEDS = st.one_of(
    st.tuples(st.just("publish"), st.sampled_from(NAMES), CLAIMS),
    st.tuples(st.just("publish"), st.sampled_from(NAMES), CLAIMS),
    st.tuples(st.just("leave"), st.sampled_from(NAMES), st.just({})),
    st.tuples(st.just("forget"), st.sampled_from(NAMES), st.just({})),
    st.tuples(st.just("up"), st.sampled_from(NAMES), st.just({})),
    st.tuples(st.just("down"), st.sampled_from(NAMES), st.just({})),
    st.tuples(st.just("wait"), st.sampled_from(["1", "170", "340"]), st.just({})),
    st.tuples(st.just("ask"), st.just(""), st.just({})),
)
Edges = dict[StackId, dict[StackId, int | None]]


def joined(rig: Rig, replica: Replica) -> Edges:
    """All edges, read from all records: cost in ms, None where one end suspects the other."""
    claims = {}
    for owner, held in replica.owners.items():
        read = [read_claim(key, held.value(key)) for key in held.keys("link")]
        live = replica.live(owner) and owner != rig.me
        claims[owner] = dict(entry for entry in read if entry) if live else {}
    edges: Edges = {}
    for owner, said in claims.items():
        for peer, claim in said.items():
            back = claims.get(peer, {}).get(owner)
            if back is not None:
                cost = max(claim[0], back[0]) if claim[1] == back[1] == UP else None
                edges.setdefault(owner, {})[peer] = cost
        own = rig.neighbours.edge(owner)
        if own is not None and replica.live(owner):
            cost = max(own[0], said.get(rig.me, own)[0]) if own[1] == UP else None
            edges.setdefault(owner, {})[rig.me] = edges.setdefault(rig.me, {})[owner] = cost
    return edges


def states(rig: Rig, edges: Edges) -> dict[StackId, StackState]:
    """The states of all owners, by a search of everything."""
    reached = [rig.me]
    for here in reached:
        reached += [peer for peer in edges.get(here, {}) if peer not in reached]
    found = {}
    for owner, held in rig.replica.owners.items():
        if owner != rig.me:
            present = StackState.UP if owner in reached else StackState.UNREACHABLE
            ended = StackState.DEREGISTERED if held.expired else present
            found[owner] = StackState.LEFT if held.left else ended
    return found


def told(
    before: dict[StackId, StackState], after: dict[StackId, StackState]
) -> list[tuple[str, str]]:
    """What is to be told between two looks at all states, in order."""
    gone = {owner: StackState.DEREGISTERED for owner in before if owner not in after}
    return [
        (KINDS[state], show_id(owner))
        for owner, state in (after | gone).items()
        if before.get(owner) is not state
        and (state is StackState.UP or before.get(owner) in (StackState.UP, StackState.UNREACHABLE))
    ]


class World:
    """A rig, and what a graph that reads everything anew would say."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.links: dict[str, int] = {}
        self.states: dict[StackId, StackState] = {}
        self.due: list[tuple[str, str]] = []
        self.heard: list[tuple[str, str]] = []
        rig.graph.watch(self.look)

    def look(self) -> None:
        """States are told now: those of everything against those of the last time."""
        after = states(self.rig, joined(self.rig, self.rig.replica))
        self.due += told(self.states, after)
        self.states = after

    def do(self, deed: tuple[str, str, dict[str, tuple[int, str]]]) -> None:
        rig, (kind, name, links) = self.rig, deed
        if kind == "publish":
            rig.publish(name, {peer: claim for peer, claim in links.items() if peer != name})
        elif kind == "leave":
            rig.publish(name, status=Status.LEFT)
        elif kind == "forget":
            rig.replica.drop(id_of(name))
        elif kind == "up" and name not in self.links:
            self.links[name] = rig.link_up(name)
        elif kind == "down" and name in self.links:
            rig.link_down(self.links.pop(name))
        elif kind == "wait":
            self.hear(rig.advance(float(name)))
        elif kind == "ask":
            generation = rig.graph.generation
            if generation != self.asked:
                self.look()
        self.asked = rig.graph._generation

    asked = 0

    def hear(self, effects: list[object]) -> None:
        self.heard += [
            (effect.kind, effect.data["id"])
            for effect in effects
            if isinstance(effect, Notice) and effect.kind in KINDS.values()
        ]

    def check(self) -> None:
        rig = self.rig
        generation = rig.graph.generation
        if generation != self.asked:
            self.look()
            self.asked = generation
        edges = joined(rig, rig.replica)
        for name in "a" + NAMES:
            mine = edges.get(id_of(name), {})
            routed = {peer: cost for peer, cost in mine.items() if cost is not None}
            assert rig.graph.edges(id_of(name)) == routed
            others = sorted(peer for peer in mine if peer != rig.me)
            assert sorted(rig.graph.witnesses(id_of(name))) == others
        for name in NAMES:
            state = self.states.get(id_of(name), StackState.DEREGISTERED)
            assert rig.graph.state(id_of(name)) is state
        self.hear(rig.take())
        assert self.heard == self.due


@CALM
@given(deeds=st.lists(DEEDS, max_size=30))
def test_the_graph_is_what_reading_everything_would_make_of_it(
    deeds: list[tuple[str, str, dict[str, tuple[int, str]]]],
) -> None:
    world = World(Rig())
    for deed in deeds:
        world.do(deed)
    world.check()
    for name in NAMES:
        world.do(("up", name, {}))
    world.check()


@CALM
@given(
    before=st.lists(
        DEEDS.filter(lambda deed: deed[0] in ("publish", "leave", "wait")), max_size=12
    ),
    own=CLAIMS,
    deeds=st.lists(DEEDS, max_size=20),
)
def test_a_graph_over_a_base_is_as_one_that_read_everything_itself(
    before: list[tuple[str, str, dict[str, tuple[int, str]]]],
    own: dict[str, tuple[int, str]],
    deeds: list[tuple[str, str, dict[str, tuple[int, str]]]],
) -> None:
    base = Rig("z")
    base.publish("a", {peer: claim for peer, claim in own.items() if peer != "a"})
    held = World(base)
    for deed in before:
        held.do(deed)
    rig = Rig(base=base)
    seen = {name: dict(base.graph.edges(id_of(name))) for name in NAMES}
    world = World(rig)
    for deed in deeds:
        world.do(deed)
    world.check()
    assert {name: dict(base.graph.edges(id_of(name))) for name in NAMES} == seen
