"""Deltas in any order, doubled, lost and repaired give the same store (the registry's invariants 1,
2, 3, 7 and 12)."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tektonmesh.core.messages import Delta
from tektonmesh.core.types import Version
from tests.support import Author, Member, join, talk

CALM = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


def store(member: Member) -> Any:
    return {
        owner: (held.signed, dict(held.records)) for owner, held in member.replica.owners.items()
    }


def history(steps: list[int]) -> list[Delta]:
    """Snapshots of one owner, two heads of one version among them."""
    said = []
    author = Author()
    for step in steps:
        twin = Author()
        twin.records, twin.ver, twin.content_ver = author.records, author.ver, author.content_ver
        said.append(author.delta({f"ci/{step % 5}": {"v": step}}, full=True))
        if step % 3 == 0:
            said.append(twin.delta({"ci/twin": {"v": step}}, full=True))
    return said


@CALM
@given(
    steps=st.lists(st.integers(0, 20), min_size=1, max_size=6),
    orders=st.lists(st.randoms(use_true_random=False), min_size=2, max_size=3),
)
def test_snapshots_in_any_order_and_doubled_give_the_same_store(
    steps: list[int], orders: list[Any]
) -> None:
    said = history(steps)
    results = []
    for order in orders:
        member = Member("z")
        heard = [*said, *order.choices(said, k=3)]
        order.shuffle(heard)
        for delta in heard:
            member.replica.apply(delta, 1)
        results.append(store(member))
    assert all(result == results[0] for result in results)


class Mesh(RuleBasedStateMachine):
    """Four stacks in a ring whose links lose, double, delay and reorder messages and break; some
    stacks restart. Whatever happened, they agree once the links work again."""

    names = "abcd"
    ring = ((0, 1), (1, 2), (2, 3), (3, 0))

    def __init__(self) -> None:
        super().__init__()
        self.members = [Member(name).start() for name in self.names]
        self.flying: dict[tuple[int, int], list[Any]] = {}
        self.up: dict[tuple[int, int], int] = {}
        self.next_link = 1
        self.said: dict[tuple[bytes, Version], dict[str, bytes]] = {}
        self.seen: dict[tuple[int, bytes], Version] = {}

    @initialize()
    def link_all(self) -> None:
        for pair in self.ring:
            self._link(pair)
        self.calm()

    @rule()
    def calm(self) -> None:
        """For a while the links that are up work well."""
        for pair, link in self.up.items():
            for end, other in (pair, pair[::-1]):
                for message in self.flying.pop((link, end), []):
                    self.members[other].receive(link, message)
        talk(*self._links(), rounds=200)

    def _links(self) -> list[tuple[Member, int, Member, int]]:
        return [
            (self.members[one], link, self.members[two], link)
            for (one, two), link in self.up.items()
        ]

    def _link(self, pair: tuple[int, int]) -> None:
        """Both ends use the same number for a link, never the same again."""
        link, self.next_link = self.next_link, self.next_link + 1
        self.up[pair] = link
        one, two = self.members[pair[0]], self.members[pair[1]]
        join(one, link, two, link)

    def _collect(self) -> None:
        for pair, link in self.up.items():
            for end in pair:
                self.flying.setdefault((link, end), []).extend(self.members[end].taken(link))

    @rule(at=st.integers(0, 3), key=st.integers(0, 5), value=st.integers(0, 3))
    def put(self, at: int, key: int, value: int) -> None:
        self.members[at].owner.put(f"ci/{key}", {"v": value})

    @rule(at=st.integers(0, 3), key=st.integers(0, 5))
    def delete(self, at: int, key: int) -> None:
        self.members[at].owner.delete(f"ci/{key}", urgent=True)

    @rule(seconds=st.sampled_from([0.01, 0.06, 1.0, 30.0]))
    def wait(self, seconds: float) -> None:
        for member in self.members:
            member.wait(seconds)

    @rule(
        pair=st.sampled_from(ring),
        back=st.booleans(),
        count=st.integers(1, 6),
        how=st.sampled_from(["deliver", "deliver", "lose", "double", "reorder"]),
    )
    def carry(self, pair: tuple[int, int], back: bool, count: int, how: str) -> None:
        self._collect()
        if pair not in self.up:
            return
        link = self.up[pair]
        end, other = pair[::-1] if back else pair
        queue = self.flying.setdefault((link, end), [])
        batch, queue[:] = queue[:count], queue[count:]
        if how == "lose":
            return
        batch = {"double": batch * 2, "reorder": batch[::-1]}.get(how, batch)
        for message in batch:
            self.members[other].receive(link, message)

    @precondition(lambda self: self.up)
    @rule(pair=st.sampled_from(ring))
    def cut(self, pair: tuple[int, int]) -> None:
        link = self.up.pop(pair, None)
        if link is not None:
            for end in pair:
                self.members[end].unlink(link)

    @rule(pair=st.sampled_from(ring))
    def mend(self, pair: tuple[int, int]) -> None:
        if pair not in self.up:
            self._link(pair)

    @rule(at=st.integers(0, 3))
    def restart(self, at: int) -> None:
        for pair in [pair for pair in self.up if at in pair]:
            self.cut(pair)
        old = self.members[at]
        now = old.env.now + 2.0
        for member in self.members:
            member.wait(now - member.env.now)
        new = Member(
            self.names[at],
            saved=old.disk,
            now=now,
            wall_s=old.clock.now_ms() / 1000.0,
            instance=bytes([self.next_link % 256]),
        )
        for key, value in old.owner._wanted.items():
            if key.startswith("ci/"):
                new.owner.put(key, new.env.codec.unpack(value))
        self.members[at] = new.start()

    @invariant()
    def everybody_shows_what_the_owner_said(self) -> None:
        for member in self.members:
            own = member.replica.owners[member.id]
            self.said.setdefault((member.id, own.version), dict(own.records))
        for member in self.members:
            for owner, held in member.replica.owners.items():
                if not held.expired and (owner, held.version) in self.said:
                    assert dict(held.records) == self.said[owner, held.version]

    @invariant()
    def versions_never_go_back(self) -> None:
        for at, member in enumerate(self.members):
            for owner, held in member.replica.owners.items():
                assert held.version >= self.seen.get((at, owner), held.version)
                self.seen[at, owner] = held.version

    def teardown(self) -> None:
        self._collect()
        for pair in list(self.up):
            self.cut(pair)
        for member in self.members:
            member.wait(30.0)
            member.sent.clear()
        for pair in self.ring:
            self._link(pair)
        for _ in range(4):
            talk(*self._links(), rounds=200)
            for member in self.members:
                member.wait(3.0)
        assert len({member.replica.fingerprint() for member in self.members}) == 1
        contents = [
            {owner: dict(held.records) for owner, held in member.replica.owners.items()}
            for member in self.members
        ]
        assert all(content == contents[0] for content in contents)


TestMesh = Mesh.TestCase
TestMesh.settings = CALM
