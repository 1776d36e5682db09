"""How much a peer may send and how often an owner may change: token buckets before all else.

Each peer has four: for control messages, for repair (by the owners that a message names), for news
by their number and by their bytes. The bursts allow a join and the rates what an honest stack of
the largest mesh needs, many times over. A peer over the first two floods: its link closes with
`busy`, and that is a strike. News over the last two are dropped, which costs nothing but time,
since repair finds what was real; each counts as a control message, so that this ends as well.
The buckets belong to the peer and not to the link, or dialling again would fill them.

Each owner has one, for what was taken of it. A head that comes while it is empty is not even
looked at. Instead the links that brought some are asked for the newest as soon as there is a
token: so an owner that changes too fast is heard ten times a second, late and never lost, and what
it costs here does not grow with its rate. Only what was stored is charged, or one peer could
silence an owner by forgeries, or by its true heads over a base that nobody has.

The buckets are kept as one instant each (the generic cell rate algorithm, ITU-T I.371, annex A).
Forwarding bounds its own messages (`core/lanes`, `core/copies`).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

from tektonmesh.core import messages as msg
from tektonmesh.core.effects import Send
from tektonmesh.core.fingerprints import BUCKETS
from tektonmesh.core.intake import OWNERS_MAX
from tektonmesh.core.machine import Env
from tektonmesh.core.record import size_of
from tektonmesh.core.replica import Change, Replica
from tektonmesh.core.types import LinkId, StackId
from tektonmesh.errors import RemoteError

CONTROL_PER_S, CONTROL_BURST = 50.0, 1000.0
"""An honest stack pings at most a few times a second; after a pause of ours all of it comes at
once. A guess."""
REPAIR_PER_S, REPAIR_BURST = 2000.0, 8.0 * OWNERS_MAX
"""In owners: a join names each two or three times, and so does every repair; those are seconds to
minutes apart."""
NEWS_PER_S, NEWS_BURST = 1000.0, 2.0 * OWNERS_MAX
"""10,000 stacks refresh 100 heads a second; a join brings each owner once."""
BYTES_PER_S, BYTES_BURST = float(8 << 20), float(256 << 20)
"""A join of 16,384 owners with 16 KiB each fits into the burst."""
OWNER_PER_S, OWNER_BURST = 10.0, 50.0
"""An honest owner paces itself below this (`core/pace`); its links may change a few times in one
moment."""

ASKED_MAX = 2
"""Links that are asked for one owner: one of them may hold it back."""
HEAD_BYTES = 512
ROUNDING = 0.001
"""Sums of floats may miss a whole token by a little."""


class Buckets:
    """Token buckets by key, all of one rate and size. A bucket is the instant at which it is full
    again; what is full is not remembered."""

    def __init__(self, per_s: float, burst: float) -> None:
        assert per_s > 0.0 and burst >= 1.0
        self._per_s = per_s
        self._burst = burst
        self._full_at: dict[StackId, float] = {}

    def __len__(self) -> int:
        return len(self._full_at)

    def tokens(self, key: StackId, now: float) -> float:
        """What is left now; below 0 after `charge` has overdrawn it."""
        return self._burst - max(0.0, self._full_at.get(key, now) - now) * self._per_s

    def take(self, key: StackId, weight: float, now: float) -> bool:
        """Take so many tokens, all that there are if it is more than a whole bucket; False, with
        nothing taken, if there are fewer."""
        weight = min(weight, self._burst)
        if self.tokens(key, now) < weight - ROUNDING:
            return False
        self.charge(key, weight, now)
        return True

    def charge(self, key: StackId, weight: float, now: float) -> None:
        """Take so many tokens, whether there are as many or not."""
        full_at = max(self._full_at.pop(key, now), now) + weight / self._per_s
        self._full_at[key] = full_at
        # The longest untouched come first: those before the first that is not full go.
        for other in list(islice(self._full_at, 2)):
            if self._full_at[other] <= now:
                del self._full_at[other]

    def ready_in(self, key: StackId, now: float) -> float:
        """Seconds until there is a token."""
        return max(0.0, (1.0 - self.tokens(key, now)) / self._per_s)


class Quotas:
    """The buckets of all peers and owners."""

    def __init__(self, env: Env, replica: Replica) -> None:
        self._env = env
        self._replica = replica
        self._peers: dict[LinkId, StackId] = {}
        self._control = Buckets(CONTROL_PER_S, CONTROL_BURST)
        self._repair = Buckets(REPAIR_PER_S, REPAIR_BURST)
        self._news = Buckets(NEWS_PER_S, NEWS_BURST)
        self._bytes = Buckets(BYTES_PER_S, BYTES_BURST)
        self._owners = Buckets(OWNER_PER_S, OWNER_BURST)
        self._late: dict[StackId, dict[LinkId, None]] = {}

    def link_up(self, link: LinkId, stack_id: StackId) -> None:
        self._peers[link] = stack_id

    def link_down(self, link: LinkId) -> None:
        self._peers.pop(link, None)

    def admits(self, link: LinkId, message: msg.Message) -> bool:
        """Whether a message may be dealt with; False if it is dropped. Raises RemoteError with code
        `busy` if its peer floods us, and as `Replica.read_head` does."""
        charge, peer = _CHARGES.get(type(message)), self._peers.get(link)
        if charge is None or peer is None:
            return True
        return charge(self, link, peer, message)

    def on_change(self, change: Change) -> None:
        """Something of an owner passed all checks: that is what it pays for."""
        if change.owner != self._env.me and change.kind in ("new", "content", "refresh", "left"):
            self._owners.charge(change.owner, 1.0, self._env.now)

    # --- what is charged -------------------------------------------------------------------------

    def _charge_control(self, _link: LinkId, peer: StackId, _message: Any) -> bool:
        if not self._control.take(peer, 1.0, self._env.now):
            raise RemoteError("A peer floods this stack with messages.", code="busy")
        return True

    def _charge_repair(self, _link: LinkId, peer: StackId, message: Any) -> bool:
        if not self._repair.take(peer, _owners_named(message), self._env.now):
            raise RemoteError("A peer floods this stack with comparisons.", code="busy")
        return True

    def _charge_proof(self, link: LinkId, peer: StackId, message: msg.Proof) -> bool:
        fits = self._news.take(peer, 1.0, self._env.now)
        return fits or self._drop(link, peer)

    def _charge_delta(self, link: LinkId, peer: StackId, delta: msg.Delta) -> bool:
        now = self._env.now
        size = HEAD_BYTES + sum(len(key) for _, key in delta.deletes)
        size += sum(size_of(key, value) for _, key, value in delta.puts)
        if not (self._news.take(peer, 1.0, now) and self._bytes.take(peer, size, now)):
            return self._drop(link, peer)
        owner = self._replica.read_head(delta.head).stack_id
        if self._owners.tokens(owner, now) >= 1.0 - ROUNDING:
            return True
        self._ask_later(link, owner)
        return False

    def _charge_outlines(
        self, link: LinkId, peer: StackId, message: msg.Outlines | msg.RelayOutlines
    ) -> bool:
        now, count = self._env.now, len(message.outlines)
        size = HEAD_BYTES * count + sum(
            size_of(key, value) for outline in message.outlines for _, key, value in outline.puts
        )
        fits = self._news.take(peer, max(1.0, count), now) and self._bytes.take(peer, size, now)
        return fits or self._drop(link, peer)

    def _drop(self, link: LinkId, peer: StackId) -> bool:
        self._charge_control(link, peer, None)
        return False

    # --- owners that change too fast -------------------------------------------------------------

    def _ask_later(self, link: LinkId, owner: StackId) -> None:
        """Of one owner at most one question is open, to those who brought its last heads."""
        asked = self._late.setdefault(owner, {})
        asked.pop(link, None)
        asked[link] = None
        if len(asked) > ASKED_MAX:
            del asked[next(iter(asked))]
        instant = self._env.after(self._owners.ready_in(owner, self._env.now))
        self._env.deadlines.set_earlier(("late", owner), instant, lambda: self._ask(owner))

    def _ask(self, owner: StackId) -> None:
        asked, held = self._late.pop(owner), self._replica.owners.get(owner)
        if held is None:
            return
        for link in asked:
            if link in self._peers:
                self._env.emit(Send(link, (msg.Want(((owner, held.base),)),)))


def _owners_named(message: Any) -> float:
    if type(message) is msg.Buckets:
        return float(BUCKETS)
    if type(message) is msg.Vector:
        return 1.0 + len(message.entries)
    return 1.0 + len(message.news if type(message) is msg.Ihave else message.owners)


_CHARGES: dict[type, Callable[[Quotas, LinkId, StackId, Any], bool]] = {
    msg.Ping: Quotas._charge_control,
    msg.Pong: Quotas._charge_control,
    msg.Probe: Quotas._charge_control,
    msg.ProbeAnswer: Quotas._charge_control,
    msg.Bye: Quotas._charge_control,
    msg.Vouch: Quotas._charge_control,
    msg.Want: Quotas._charge_repair,
    msg.WantOutlines: Quotas._charge_repair,
    msg.Outlines: Quotas._charge_outlines,
    msg.RelayOutlines: Quotas._charge_outlines,
    msg.Vector: Quotas._charge_repair,
    msg.Buckets: Quotas._charge_repair,
    msg.Refuses: Quotas._charge_repair,
    msg.Ihave: Quotas._charge_repair,
    msg.Graft: Quotas._charge_repair,
    msg.Prune: Quotas._charge_control,
    msg.Delta: Quotas._charge_delta,
    msg.Proof: Quotas._charge_proof,
}
UNCHARGED = (
    *(msg.Forward, msg.HopAck, msg.LinkCredit, msg.Settled, msg.Released, msg.Spread),
    *(msg.Fetch, msg.Piece, msg.Lacking),
)
