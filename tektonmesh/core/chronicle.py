"""What happened of late to each owner, and on what evidence: for people, never for a decision.

Every change of the replica but a refresh leaves one entry: what changed, under which version,
which link brought it and how long after its signing. Words that a link is in doubt or gone are kept
apart, since they are about another stack than the one that says them. All of it is bounded, and a
stack with many changes pushes out its own past before that of others.
"""

from __future__ import annotations

from collections import deque

from tektonmesh.core.frozen import frozen
from tektonmesh.core.graph import read_claim
from tektonmesh.core.machine import Env
from tektonmesh.core.neighbours import Neighbours
from tektonmesh.core.ownlinks import SUSPECT, UP, link_key
from tektonmesh.core.replica import Change, Replica
from tektonmesh.core.types import ContentVersion, LinkId, StackId, Version

ENTRIES_PER_OWNER = 32
KEYS_PER_ENTRY = 16
"""The rest of the keys of a change is a number."""
LOSSES_PART = 4
"""There is one place for a loss to four for entries: a crash of a stack with ten links is ten."""
WITHDRAWN = "withdrawn"
ENDS_MAX = 256
END_SIZE_MAX = 200
"""The end of a link may be explained in the words of the peer."""


@frozen
class Entry:
    """One change. `at` is the instant it was applied and `mesh_ms` the mesh time then; `keys` are
    the first of `keys_total` records; `source` is the peer whose link brought it, None for what
    this stack made or found out itself; `late_ms` is how long before that it was signed."""

    at: float
    mesh_ms: int
    kind: str
    keys: tuple[str, ...]
    keys_total: int
    version: Version
    content_version: ContentVersion
    head_hash: bytes
    source: StackId | None
    late_ms: int | None


@frozen
class Loss:
    """The newest word of a stack on one of its links that is not up: "suspect" or "withdrawn",
    and the instant at which it came."""

    state: str
    at: float


@frozen
class End:
    """Why, in a sentence, and at which instant the last link to a stack ended."""

    why: str
    at: float


class _Page:
    """The part of one owner: its entries, oldest first, and how many refreshes came meanwhile."""

    __slots__ = ("entries", "refreshes")

    def __init__(self) -> None:
        self.entries: deque[Entry] = deque()
        self.refreshes = 0


class Chronicle:
    """The entries of all owners and the losses of their links. `chronicle_max` of the settings
    bounds them; with 0 nothing is kept."""

    def __init__(self, env: Env, replica: Replica, neighbours: Neighbours) -> None:
        self._env = env
        self._replica = replica
        self._neighbours = neighbours
        self._pages: dict[StackId, _Page] = {}
        """By the last change: the owner that was quiet for longest stands first."""
        self._size = 0
        self._losses: dict[str, dict[StackId, Loss]] = {}
        """By the key that link records to a stack have, then by who says it."""
        self._losses_size = 0
        self._links: dict[LinkId, StackId] = {}
        self._ends: dict[StackId, End] = {}

    # --- reading ---------------------------------------------------------------------------------

    def entries(self, owner: StackId) -> list[Entry]:
        """What is remembered of an owner, the newest first."""
        page = self._pages.get(owner)
        return [] if page is None else list(reversed(page.entries))

    def refreshes(self, owner: StackId) -> int:
        """How many heads that only refreshed came since the first entry of an owner."""
        page = self._pages.get(owner)
        return 0 if page is None else page.refreshes

    def losses(self, stack_id: StackId) -> dict[StackId, Loss]:
        """Who said last that its link to this stack is suspect or gone. Not to be changed."""
        return self._losses.get(link_key(stack_id), {})

    def end(self, stack_id: StackId) -> End | None:
        """How the last link of this node to a stack ended; None while there is one, or if there
        never was."""
        return None if stack_id in self._links.values() else self._ends.get(stack_id)

    # --- writing ---------------------------------------------------------------------------------

    def on_change(self, change: Change) -> None:
        """Note a change after it was made."""
        most = self._env.settings.chronicle_max
        if not most:
            return
        if change.kind == "refresh":
            page = self._pages.get(change.owner)
            if page is not None:
                page.refreshes += 1
            return
        for key in change.keys:
            if key.startswith("link/"):
                self._note_link(key, change.owner)
        if change.kind == "forgotten":
            self._size -= len(self._pages.pop(change.owner, _Page()).entries)
        else:
            self._write(change, most)

    def _write(self, change: Change, most: int) -> None:
        page = self._pages.pop(change.owner, None) or _Page()
        self._pages[change.owner] = page
        if len(page.entries) == ENTRIES_PER_OWNER:
            page.entries.popleft()
        else:
            self._size += 1
        page.entries.append(self._entry(change))
        if self._size > most:
            self._forget_one()

    def _forget_one(self) -> None:
        """The oldest entry of the owner that was quiet for longest."""
        quiet, page = next(iter(self._pages.items()))
        assert page.entries, "an owner without entries has no page"
        page.entries.popleft()
        self._size -= 1
        if not page.entries:
            del self._pages[quiet]

    def _entry(self, change: Change) -> Entry:
        held = self._replica.owners[change.owner]
        link = None if change.link is None else self._neighbours.links.get(change.link)
        mesh_ms = self._replica.clock.now_ms()
        return Entry(
            at=self._env.now,
            mesh_ms=mesh_ms,
            kind=change.kind,
            keys=change.keys[:KEYS_PER_ENTRY],
            keys_total=len(change.keys),
            version=held.version,
            content_version=held.content_version,
            head_hash=held.head_hash,
            source=None if link is None else link.stack_id,
            late_ms=None if change.link is None else max(0, mesh_ms - held.head.hlc),
        )

    # --- links of this node ----------------------------------------------------------------------

    def link_up(self, link: LinkId, stack_id: StackId) -> None:
        self._links[link] = stack_id

    def link_down(self, link: LinkId, why: str) -> None:
        stack_id = self._links.pop(link, None)
        if stack_id is not None:
            self._ends.pop(stack_id, None)
            self._ends[stack_id] = End(why[:END_SIZE_MAX], self._env.now)
            if len(self._ends) > ENDS_MAX:
                del self._ends[next(iter(self._ends))]

    # --- links of all ----------------------------------------------------------------------------

    def _note_link(self, key: str, owner: StackId) -> None:
        """`owner` says something new of the link whose record this is."""
        held = self._replica.owners.get(owner)
        found = None if held is None else read_claim(key, held.value(key))
        state = WITHDRAWN if found is None else found[1][1]
        group = self._losses.pop(key, {})
        self._losses_size -= len(group)
        group.pop(owner, None)
        if state != UP:
            assert state in (SUSPECT, WITHDRAWN)
            group[owner] = Loss(state, self._env.now)
        if group:
            self._losses[key] = group
            self._losses_size += len(group)
        assert self._losses_size >= 0, "each loss is counted once"
        while self._losses_size > self._env.settings.chronicle_max // LOSSES_PART:
            self._losses_size -= len(self._losses.pop(next(iter(self._losses))))
