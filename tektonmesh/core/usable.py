"""What each other stack may use of the CIs here, so that it learns of nothing else.

While every stack that is known may use everything, catalogues are gossiped: their hashes are in
records that all members read. As soon as one may not (it has terms or a role, was evicted, or is
of another organisation), none is in a record any more. Then each stack is told for itself, sealed,
which CIs it may speak to and, by a digest, that there is something it may use of them
(`core/sharing`), and asks the owner for that part of the catalogue (`mcp/serving`). Who may do what
is for `rights`.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any, NamedTuple

from tektonmesh.core.ci import Ci, Offered
from tektonmesh.core.cis import Cis
from tektonmesh.core.machine import Env
from tektonmesh.core.policy import NAMED_VERBS, Act
from tektonmesh.core.replica import Change, Replica
from tektonmesh.core.rights import Rights
from tektonmesh.core.types import StackId

DIGEST_SIZE = 16
USES_CIS_MAX = 1000
"""Of each kind, told to one stack: with names of 64 characters what fits into one envelope. The
rest is left out, and people are told."""
REVIEW = ("usable", "review")
GONE = ("expired", "forgotten", "left")


class Uses(NamedTuple):
    """What one stack may use of another: the keys of the CIs that it may speak to, and of those
    with an MCP server that offer it something, each with a digest of what that is."""

    say: tuple[str, ...] = ()
    lists: dict[str, bytes] = {}  # noqa: RUF012  (nobody changes it)

    def as_body(self) -> dict[str, Any]:
        return {"say": list(self.say), "lists": dict(self.lists)}


def uses_of(value: Any) -> Uses | None:
    """What a partner wrote; None if it wrote nothing of the kind."""
    if not isinstance(value, dict):
        return None
    say, lists = value.get("say"), value.get("lists")
    if not isinstance(say, list) or not isinstance(lists, dict):
        return None
    named = tuple(ci for ci in say[:USES_CIS_MAX] if isinstance(ci, str))
    offered = {
        ci: digest
        for ci, digest in list(lists.items())[:USES_CIS_MAX]
        if isinstance(ci, str) and isinstance(digest, bytes) and len(digest) == DIGEST_SIZE
    }
    return Uses(named, offered)


class Usable:
    """Decides whether catalogues are gossiped, and what is said to each stack if not."""

    def __init__(self, env: Env, replica: Replica, cis: Cis, rights: Rights) -> None:
        self.env = env
        self._replica = replica
        self._cis = cis
        self._rights = rights
        self._narrowed: dict[StackId, None] | None = None
        """Stacks that may not use everything; None while nobody has asked, which costs nothing
        where no CI has an MCP server."""
        self._gossiped = True
        self._watchers: list[Callable[[], None]] = []
        cis.gossips = self.gossiped
        rights.watch(self._reviewed)

    def watch(self, callback: Callable[[], None]) -> None:
        """`callback` runs when catalogues begin or cease to be gossiped."""
        self._watchers.append(callback)

    # --- by everybody, or each for itself --------------------------------------------------------

    def gossiped(self) -> bool:
        """Whether all members may read what the CIs here offer. In a mesh without a secret the
        next to join is of another organisation, so that it is never so there."""
        if not self.env.settings.mesh_keys:
            return False
        if self._narrowed is None:
            self._narrowed = {}
            for stack_id in [*self._replica.owners, *self._named()]:
                self._judge(stack_id)
            self._gossiped = not self._narrowed
        return not self._narrowed

    def on_change(self, change: Change) -> None:
        """A stack came, changed what it proves, or went."""
        if change.kind in ("new", "content", *GONE):
            self._reviewed(change.owner)

    def _reviewed(self, stack_id: StackId) -> None:
        if self._narrowed is None:
            return
        self._judge(stack_id)
        if self._gossiped == bool(self._narrowed):
            # At the end of this turn: the replica is in the middle of telling everybody.
            self.env.deadlines.set_earlier(REVIEW, self.env.now, self._turn)

    def _judge(self, stack_id: StackId) -> None:
        """Also one that is away: it reads what was gossiped meanwhile when it comes back; and one
        that was evicted: it reads it at members that admit it still."""
        assert self._narrowed is not None
        known = stack_id in self._replica.owners or stack_id in self._named()
        if stack_id != self.env.me and known and not self._rights.holds_all(stack_id):
            self._narrowed[stack_id] = None
        else:
            self._narrowed.pop(stack_id, None)

    def _named(self) -> list[StackId]:
        """The stacks that somebody here decided on."""
        return [*self._rights.partners(), *self._rights.evicted()]

    def _turn(self) -> None:
        if self._gossiped == bool(self._narrowed):
            self._gossiped = not self._narrowed
            self._cis.republish()
            for callback in self._watchers:
                callback()

    # --- one stack -------------------------------------------------------------------------------

    def uses(self, stack_id: StackId) -> Uses | None:
        """What a stack is to be told; None if it knows it without: all of one's own stacks may use
        everything, those of others nothing."""
        own = self._rights.is_own(stack_id)
        everything = own and self._rights.holds_all(stack_id)
        if everything and (self._narrowed is None or self.gossiped()):
            return None
        say: list[str] = []
        lists: dict[str, bytes] = {}
        for ci in self._cis.all():
            if not self._rights.check(stack_id, Act("discover", ci.key)).allowed:
                continue
            if ci.mcp is None:
                if self._rights.check(stack_id, Act("message", ci.key, listing=True)).allowed:
                    say.append(ci.key)
            elif digest := self.digest(stack_id, ci):
                lists[ci.key] = digest
        self._bound(say, lists)
        return Uses(tuple(say), lists) if own or say or lists else None

    def _bound(self, say: list[str], lists: dict[str, bytes]) -> None:
        left_out = [*say[USES_CIS_MAX:], *list(lists)[USES_CIS_MAX:]]
        del say[USES_CIS_MAX:]
        for ci in left_out:
            lists.pop(ci, None)
        assert len(say) <= USES_CIS_MAX and len(lists) <= USES_CIS_MAX
        if left_out:
            self.env.notice("ci_not_published", ci=left_out[0], detail="Too much for one partner.")

    def audience(self) -> list[StackId]:
        """The stacks that have to be told besides those with terms or grants."""
        if self._narrowed is None or self.gossiped():
            return []
        return [one for one in self._replica.owners if one != self.env.me]

    def digest(self, stack_id: StackId, ci: Ci) -> bytes:
        """Stands for what a stack may use of a CI's catalogue; empty if that is nothing."""
        if ci.catalogue is None:
            return b""
        whole = self._whole(stack_id, ci)
        told = [one for one in ci.offered if whole or self.allows(stack_id, ci.key, one)]
        if not told:
            return b""
        assert len(told) <= len(ci.offered), "a part is no more than the whole"
        words = [[one.verb, one.digest] for one in told]
        if len(told) == len(ci.offered):
            words.append(["", ci.catalogue["hash"]])
        return blake2b(self.env.codec.pack(words), digest_size=DIGEST_SIZE).digest()

    def allows(self, stack_id: StackId, ci: str, one: Offered) -> bool:
        """Whether a stack may use one item of a CI in any way."""
        act = Act(one.verb, ci, tool_hash=one.tool_hash, effects=one.effects, listing=True)
        return self._rights.check(stack_id, act).allowed

    def _whole(self, stack_id: StackId, ci: Ci) -> bool:
        """Whether it may use everything of a CI, by its terms or by default: these do not look at
        the names of items."""
        verdicts = [
            self._rights.check(stack_id, Act(f"{kind}:*", ci.key, listing=True))
            for kind in NAMED_VERBS
        ]
        return all(verdict.allowed and not verdict.grant for verdict in verdicts)
