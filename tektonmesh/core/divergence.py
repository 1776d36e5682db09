"""By how much the replicas of two linked stacks differ, as far as their last comparison tells.

Prints say that two replicas differ, not in what. What is known beyond that is in the vectors which
a peer sends: which owners it holds, in which version. This module counts where that is not what we
hold; nothing is decided by it. What a peer got from us since is not known before the prints agree,
so the number may be too large for some seconds, and it never says that all is well.
"""

from __future__ import annotations

from tektonmesh.core.antientropy import AntiEntropy
from tektonmesh.core.frozen import frozen
from tektonmesh.core.intake import OWNERS_MAX
from tektonmesh.core.machine import Env
from tektonmesh.core.messages import Refuses, Vector, VectorEntry
from tektonmesh.core.replica import Replica
from tektonmesh.core.types import ContentVersion, LinkId, StackId

NOTED_MAX = 256
"""Owners in which one peer differs that are looked at again when somebody asks; more are counted
when they are seen and are a number from then on."""
NAMED_MAX = 2 * OWNERS_MAX
"""Owners of one vector that are remembered until its last chunk."""


@frozen
class Gap:
    """How a peer differs: in how many `owners` (None while only the prints are known), and since
    which instant."""

    owners: int | None
    since: float


class _Link:
    """`since` is the instant of the first print that differed, or of the link. `differing` has what
    the peer said of owners in which it differs (None: it has nothing); `beyond` is how many more
    there were. `named` gathers the owners of a vector that comes in chunks, by bucket."""

    def __init__(self, stack_id: StackId, since: float | None) -> None:
        self.stack_id = stack_id
        self.since = since
        self.differing: dict[StackId, VectorEntry | None] = {}
        self.beyond = 0
        self.named: dict[int, dict[StackId, None]] = {}
        self.named_size = 0
        self.refused: dict[StackId, None] = {}


class Divergence:
    """The last comparison with each link."""

    def __init__(self, env: Env, replica: Replica, antientropy: AntiEntropy) -> None:
        self._env = env
        self._replica = replica
        self._antientropy = antientropy
        self._noted_max = min(NOTED_MAX, env.settings.chronicle_max)
        self._links: dict[LinkId, _Link] = {}

    def link_up(self, link: LinkId, stack_id: StackId) -> None:
        self._links[link] = _Link(stack_id, self._env.now)

    def link_down(self, link: LinkId) -> None:
        self._links.pop(link, None)

    # --- reading ---------------------------------------------------------------------------------

    def gaps(self) -> dict[StackId, Gap]:
        """The peers whose replica differs from ours (`AntiEntropy.converged`), and by how much."""
        return {peer: self._gap(peer) for peer in self._antientropy.converged()[1]}

    def _gap(self, peer: StackId) -> Gap:
        """Of two links to one peer, what the one says that knows of more."""
        assert peer != self._env.me, "no stack differs from itself"
        states = [state for state in self._links.values() if state.stack_id == peer]
        owners = max((self._count(state) for state in states), default=0)
        since = [state.since for state in states if state.since is not None]
        return Gap(owners or None, min(since, default=self._env.now))

    def _count(self, state: _Link) -> int:
        differing = state.differing.items()
        return state.beyond + sum(self._differs(owner, told) for owner, told in differing)

    def _differs(self, owner: StackId, told: VectorEntry | None) -> bool:
        """By what counts in a print: a head that only refreshes makes no difference."""
        held = self._replica.owners.get(owner)
        if held is None or not held.whole:
            return told is not None
        if told is None:
            return True
        content = ContentVersion(*told.version[:2], told.content_ver)
        contradicts = told.version == held.version and told.head_hash != held.head_hash
        same = (content, told.status) == (held.content_version, int(held.head.status))
        return contradicts or not same

    # --- what the peer says ----------------------------------------------------------------------

    def on_print(self, link: LinkId, theirs: bytes) -> None:
        """A print of the peer's replica came."""
        state = self._links.get(link)
        if state is None:
            return
        barred = (*self._antientropy.leaving_out(), *state.refused)
        if theirs == self._replica.fingerprint(barred):
            agreed = self._links[link] = _Link(state.stack_id, None)
            agreed.refused = state.refused
        elif state.since is None:
            state.since = self._env.now

    def on_refuses(self, link: LinkId, message: Refuses) -> None:
        """The peer evicted these: they do not count on this link."""
        state = self._links.get(link)
        if state is not None:
            state.refused = dict.fromkeys(message.owners)
            for owner in message.owners:
                state.differing.pop(owner, None)

    def on_vector(self, link: LinkId, message: Vector) -> None:
        """The peer says what it holds. A bucket of which it names an owner, it names whole; that
        it names none says nothing (`AntiEntropy`)."""
        state = self._links.get(link)
        if state is None:
            return
        if not state.named_size:
            state.beyond = 0
        for entry in message.entries:
            state.named.setdefault(entry.owner[0], {})[entry.owner] = None
            self._note(state, entry.owner, entry)
        state.named_size += len(message.entries)
        if not message.more or state.named_size > NAMED_MAX:
            self._note_lacking(state)

    def _note_lacking(self, state: _Link) -> None:
        """What we hold of the buckets that were named, and the peer does not."""
        named, state.named, state.named_size = state.named, {}, 0
        for bucket, theirs in named.items():
            for mine in self._replica.entries((bucket,)):
                if mine.owner not in theirs:
                    self._note(state, mine.owner, None)

    def _note(self, state: _Link, owner: StackId, told: VectorEntry | None) -> None:
        left_out = owner in state.refused or self._antientropy.leaves_out(owner)
        state.differing.pop(owner, None)
        if left_out or not self._differs(owner, told):
            return
        if len(state.differing) < self._noted_max:
            state.differing[owner] = told
        else:
            state.beyond += 1
