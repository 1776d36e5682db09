"""Who answers: the links of this node, judged by their silence, and the own `link/*` records.

This module alone decides whether a link is up, suspect or gone, which of two links to one stack
stays, and what this stack signs about its links. It judges its own links only: what follows for
the mesh is `graph`'s to derive, and getting a lost link back is `dialling`'s
(docs/design/liveness.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import inf

from tektonmesh.core.antientropy import AntiEntropy
from tektonmesh.core.effects import CloseLink, Send
from tektonmesh.core.events import LinkDown, LinkUp
from tektonmesh.core.ids import show_id
from tektonmesh.core.linkcost import CostNews, LinkCost, cost_ms
from tektonmesh.core.machine import Env
from tektonmesh.core.meshtime import MeshTime
from tektonmesh.core.messages import Bye, Message, Ping, Pong, Probe, ProbeAnswer
from tektonmesh.core.owner import Owner
from tektonmesh.core.ownlinks import SUSPECT, UP, OwnLinks
from tektonmesh.core.topology import NoTopology, Topology
from tektonmesh.core.types import LinkId, StackId

RTT_INTERVAL_S = 10.0
"""A busy link is pinged as well, or its round trip, clock and fingerprint would never be known."""

TOGETHER_S = 5.0
"""Two links to one stack that came up within this time were dialled by both ends at once. A later
second link means that the dialler has lost faith in the first one."""

LINKS_PER_STACK, WITNESSES_MAX, PINGS_MAX = 2, 3, 8
DOUBT_PAUSE_S = 0.25
"""Others can make us ping a neighbour by doubting it, but not more often than this."""

LATE_S = 0.25
"""A deadline that runs later than this was held up by our own pause: nobody is accused by it."""

GONE_ON_PURPOSE = ("leaving", "excess")
"""Codes of a `Bye` after which nobody waits for the link to come back."""

HEALTH_DECAY_S = 30.0
"""Local health returns from 1 to 0 in this time (a guess; memberlist decays by successes)."""


@dataclass(slots=True, eq=False)
class Neighbour:
    """One link and what is known of it. `heard`, `since`, `ping_at` are instants, `silent_since`
    is that of the first ping that nothing followed, None while the link is alive; `pings` are those
    without a pong."""

    link: LinkId
    stack_id: StackId
    name: str
    address: str
    addresses: tuple[str, ...]
    instance: bytes
    outbound: bool
    since: float
    heard: float
    idle_s: float
    state: str = UP
    cost: LinkCost = field(default_factory=LinkCost)
    pings: dict[int, float] = field(default_factory=dict)
    ping_at: float = -inf
    silent_since: float | None = None
    down_at: float = inf
    vouched: bool = False
    due: float = inf

    @property
    def rtt_s(self) -> float:
        """The smoothed round trip in seconds; 0.0 before the first Pong."""
        return self.cost.srtt_s


class Neighbours:
    """The links of one node.

    `links` holds what may be used, suspects included. A link that this node has closed is no
    longer in it, though its `LinkDown` is still to come.
    """

    def __init__(self, env: Env, owner: Owner, clock: MeshTime, antientropy: AntiEntropy) -> None:
        self._env = env
        self._clock = clock
        self._antientropy = antientropy
        self.links: dict[LinkId, Neighbour] = {}
        self.topology: Topology = NoTopology()
        self._of_stack: dict[StackId, list[Neighbour]] = {}
        self._closing: dict[LinkId, Neighbour] = {}
        self._lost: dict[StackId, float] = {}
        self._own = OwnLinks(owner, lambda stack_id: self.topology.connected(stack_id))
        self._nonce = 0
        self._cost_news = CostNews(env, lambda: list(self._of_stack), self._publish)
        self._health = 0.0
        self._health_at = env.now
        antientropy.watch_prints(self._ping_now)

    # --- reads -----------------------------------------------------------------------------------

    def link_to(self, stack_id: StackId) -> Neighbour | None:
        """The link to use towards a neighbour; None when none is up."""
        for neighbour in self._of_stack.get(stack_id, ()):
            if neighbour.state == UP:
                return neighbour
        return None

    def rtt_s(self, link: LinkId) -> float:
        """The smoothed round trip of a link in seconds; 0.0 while it is not known."""
        neighbour = self.links.get(link)
        return 0.0 if neighbour is None else neighbour.rtt_s

    def edge(self, stack_id: StackId) -> tuple[int, str] | None:
        """The own edge to a stack as it is this instant: (cost in ms, "up" or "suspect"). It is
        suspect as well within the grace for a restart."""
        return self._own.get(stack_id)

    @property
    def local_health(self) -> float:
        """0.0 (well) to 1.0: how far this process itself was held up of late (Lifeguard)."""
        return max(0.0, self._health - (self._env.now - self._health_at) / HEALTH_DECAY_S)

    def watch(self, callback: Callable[[StackId], None]) -> None:
        """Call `callback(stack_id)` whenever the own edge to a stack changes in any way."""
        self._own.watch(callback)

    # --- links come and go -----------------------------------------------------------------------

    def link_up(self, event: LinkUp) -> bool:
        """Take a new link into use; False when it was closed instead."""
        env = self._env
        new = self._neighbour(event)
        refusal = self._refusal(new)
        if refusal is not None:
            env.emit(CloseLink(new.link, *refusal))
            return False
        self._insert(new)
        # The first ping goes out at the end of this turn, when every machine knows the link.
        self._schedule(new, env.now)
        self._tell("link_up", new, address=new.address, outbound=new.outbound)
        self._publish(new.stack_id)
        return True

    def resume_link(self, event: LinkUp, rtt_s: float) -> None:
        """A link that has been up for a while, with its round trip in seconds. Its pings begin at
        some moment of their interval."""
        env = self._env
        new = self._neighbour(event)
        new.cost.sample(rtt_s, env.now)
        new.ping_at = env.now - RTT_INTERVAL_S * env.chance.random()
        new.heard = env.now - new.idle_s * env.chance.random()
        self._insert(new)
        self._schedule(new, max(env.now, self._next(new)))
        self._publish(new.stack_id)

    def _neighbour(self, event: LinkUp) -> Neighbour:
        return Neighbour(
            link=event.link,
            stack_id=event.stack_id,
            name=event.name,
            address=event.address,
            addresses=event.addresses,
            instance=event.instance,
            outbound=event.outbound,
            since=self._env.now,
            heard=self._env.now,
            idle_s=self._env.jitter(self._env.settings.ping_interval_s),
        )

    def link_down(self, event: LinkDown) -> bool:
        """A link ended; False if it never was in use. The stack keeps a `suspect` edge for the
        grace of a restart, so that nobody calls it unreachable over that."""
        if self._closing.pop(event.link, None) is not None:
            return True
        neighbour = self.links.get(event.link)
        if neighbour is None:
            return False
        self._remove(neighbour)
        self._tell("link_down", neighbour, reason=event.reason)
        self._after_loss(neighbour.stack_id)
        return True

    def close(self, stack_id: StackId, code: str, detail: str) -> None:
        """Close every link to a stack and withdraw the edge to it at once."""
        for neighbour in list(self._of_stack.get(stack_id, ())):
            self._dismiss(neighbour, code, detail)
        self._forget(stack_id)

    def _refusal(self, new: Neighbour) -> tuple[str, str] | None:
        """Why a new link is closed, as (code, detail); None when it stays. Closes the links that
        it replaces."""
        if new.stack_id == self._env.me:
            return "self", "This is a link to ourselves."
        if self._own.key_taken(new.stack_id):
            return "refused", "Another neighbour has the same short id."
        known = self._of_stack.get(new.stack_id)
        if known is None:
            full = len(self.links) >= self._env.settings.links_accept_max
            return ("busy", "Too many links.") if full and not new.outbound else None
        for old in list(known):
            if old.instance != new.instance:
                self._dismiss(old, "replaced", "The stack has started anew.")
            elif self._env.me < new.stack_id or len(known) >= LINKS_PER_STACK:
                # One end decides, or both might close a different one of the two.
                if not self._better(new, old):
                    return "duplicate", "Another link to this stack stays."
                self._dismiss(old, "duplicate", "Another link to this stack stays.")
        return None

    def _better(self, new: Neighbour, old: Neighbour) -> bool:
        """Of two links to one run of a stack: the smaller id's dial when both dialled at once,
        the older when one end dialled twice, the newer when the older has lost its faith."""
        if old.state != UP or new.since - old.since > TOGETHER_S:
            return True
        return new.outbound != old.outbound and new.outbound == (self._env.me < new.stack_id)

    def _insert(self, new: Neighbour) -> None:
        assert new.link not in self.links, "a link comes up once"
        self.links[new.link] = new
        known = self._of_stack.setdefault(new.stack_id, [])
        first = not known or self._better(new, known[0])
        known.insert(0 if first else len(known), new)
        self._lost.pop(new.stack_id, None)
        self._env.deadlines.drop(("neighbour-lost", new.stack_id))

    def _remove(self, neighbour: Neighbour) -> None:
        del self.links[neighbour.link]
        known = self._of_stack[neighbour.stack_id]
        known.remove(neighbour)
        if not known:
            del self._of_stack[neighbour.stack_id]
        self._env.deadlines.drop(("neighbour", neighbour.link))

    def _dismiss(self, neighbour: Neighbour, code: str, detail: str) -> None:
        """Close a link ourselves. What still arrives on it is ignored."""
        self._remove(neighbour)
        self._closing[neighbour.link] = neighbour
        self._env.emit(CloseLink(neighbour.link, code, detail))
        self._tell("link_down", neighbour, reason=detail)

    def _after_loss(self, stack_id: StackId) -> None:
        """One link less that we did not close: the last one of a stack opens its grace."""
        if stack_id not in self._of_stack:
            self._open_grace(stack_id)
        self._publish(stack_id)

    def _open_grace(self, stack_id: StackId) -> None:
        due = self._env.after(self._env.settings.restart_grace_s)
        self._lost[stack_id] = due
        act = partial(self._grace_over, stack_id)
        self._env.deadlines.set(("neighbour-lost", stack_id), due, act)

    def _grace_over(self, stack_id: StackId) -> None:
        late = self._env.now - self._lost[stack_id]
        if late > LATE_S:
            self.stalled(late)
        else:
            self._forget(stack_id)

    def _forget(self, stack_id: StackId) -> None:
        self._lost.pop(stack_id, None)
        self._env.deadlines.drop(("neighbour-lost", stack_id))
        self._publish(stack_id)

    # --- signs of life ---------------------------------------------------------------------------
    # One read may bring more after a Bye; what comes for a link not in use any more is ignored.

    def heard(self, link: LinkId) -> bool:
        """Something arrived on a link; False if the link is not in use."""
        neighbour = self.links.get(link)
        if neighbour is None:
            return False
        neighbour.heard = self._env.now
        neighbour.silent_since = None
        if neighbour.state != UP:
            neighbour.state = UP
            neighbour.down_at = inf
            self._tell("link_recovered", neighbour)
            self._publish(neighbour.stack_id)
        return True

    def on_ping(self, link: LinkId, message: Ping) -> None:
        neighbour = self.links.get(link)
        if neighbour is None:
            return
        self._send(neighbour, Pong(message.nonce, self._clock.now_ms()))
        if neighbour.cost.measured:
            self._clock.on_peer(link, message.mesh_ms, neighbour.rtt_s)
        if message.fingerprint:
            self._antientropy.on_fingerprint(link, message.fingerprint)

    def on_pong(self, link: LinkId, message: Pong) -> None:
        neighbour = self.links.get(link)
        if neighbour is None or message.nonce not in neighbour.pings:
            return
        rtt_s = self._env.now - neighbour.pings.pop(message.nonce)
        self._clock.on_peer(link, message.mesh_ms, rtt_s)
        first = not neighbour.cost.measured
        if neighbour.cost.sample(rtt_s, self._env.now):
            self._publish(neighbour.stack_id) if first else self._cost_news.changed()

    def on_probe(self, link: LinkId, message: Probe) -> None:
        """Somebody doubts a stack: say when we last heard it, and make sure ourselves."""
        asker = self.links.get(link)
        if asker is None:
            return
        known = self._of_stack.get(message.target)
        heard_ms = -1
        if known:
            heard = max(neighbour.heard for neighbour in known)
            heard_ms = int((self._env.now - heard) * 1000.0)
        self._send(asker, ProbeAnswer(message.nonce, message.target, heard_ms))
        self.doubt(message.target)

    def on_probe_answer(self, _link: LinkId, message: ProbeAnswer) -> None:
        """A witness heard the suspect after our ping went unanswered: wait once more as long.
        Once only, since a witness may lie."""
        for neighbour in self._of_stack.get(message.target, ()):
            silent_since = neighbour.silent_since
            if neighbour.state == UP or neighbour.vouched or silent_since is None:
                continue
            age_s = message.heard_ms / 1000.0
            if 0.0 <= age_s < self._env.now - silent_since:
                neighbour.vouched = True
                neighbour.down_at += self._env.settings.down_after_s

    def on_bye(self, link: LinkId, message: Bye) -> None:
        """The peer closes on purpose; one that leaves, or has links enough, is not waited for."""
        neighbour = self.links.get(link)
        if neighbour is None:
            return
        self._dismiss(neighbour, "bye", f"The peer closed the link: {message.detail}")
        if message.code in GONE_ON_PURPOSE and neighbour.stack_id not in self._of_stack:
            self._forget(neighbour.stack_id)
        else:
            self._after_loss(neighbour.stack_id)

    def doubt(self, stack_id: StackId) -> None:
        """Another stack suspects this one: if it is our neighbour, ping it at once."""
        for neighbour in self._of_stack.get(stack_id, ()):
            fresh = self._env.now - neighbour.ping_at < DOUBT_PAUSE_S
            if neighbour.silent_since is None and not fresh:
                self._ping(neighbour)
                self._schedule(neighbour, self._next(neighbour))

    def _ping_now(self, link: LinkId) -> None:
        """Our print changed: it should not wait for the next ping of this link."""
        neighbour = self.links.get(link)
        if neighbour is not None and neighbour.state == UP:
            self._ping(neighbour)
            self._schedule(neighbour, self._next(neighbour))

    def stalled(self, seconds: float) -> None:
        """This process did not run for `seconds`: what was silent meanwhile is asked anew, and
        for a while everybody gets more time."""
        self._health = min(1.0, self.local_health + seconds)
        self._health_at = self._env.now
        for it in self.links.values():
            if it.silent_since is not None:
                it.silent_since = self._env.now
                if it.state == SUSPECT:
                    it.down_at = self._env.after(self._window(it) + self._down_s(it))
                self._ping(it)
                self._schedule(it, self._next(it))
        for stack_id in list(self._lost):
            self._open_grace(stack_id)

    # --- the probe timer of one link -------------------------------------------------------------

    def _schedule(self, neighbour: Neighbour, instant: float) -> None:
        neighbour.due = instant
        act = partial(self._run_due, neighbour)
        self._env.deadlines.set(("neighbour", neighbour.link), instant, act)

    def _run_due(self, neighbour: Neighbour) -> None:
        late = self._env.now - neighbour.due
        assert late >= 0.0, "no deadline runs early"
        if late > LATE_S:
            self.stalled(late)
        if self._env.now >= self._next(neighbour):
            self._step(neighbour)
        if neighbour.link in self.links:
            self._schedule(neighbour, self._next(neighbour))

    def _next(self, neighbour: Neighbour) -> float:
        """The instant at which something is to be done about this link."""
        if neighbour.silent_since is None:
            return min(neighbour.heard + neighbour.idle_s, neighbour.ping_at + RTT_INTERVAL_S)
        again = neighbour.ping_at + self._env.settings.ping_busy_interval_s
        if neighbour.state == UP:
            return min(neighbour.silent_since + self._window(neighbour), again)
        return min(neighbour.down_at, again)

    def _step(self, neighbour: Neighbour) -> None:
        now, silent_since = self._env.now, neighbour.silent_since
        if silent_since is None:
            self._ping(neighbour)
        elif neighbour.state == UP and now >= silent_since + self._window(neighbour):
            self._suspect(neighbour)
        elif now >= neighbour.down_at:
            self._dismiss(neighbour, "silent", "The peer does not answer.")
            self._publish(neighbour.stack_id)
        else:
            self._ping(neighbour)

    def _window(self, neighbour: Neighbour) -> float:
        return max(neighbour.cost.patience_s, self._env.settings.suspect_min_s)

    def _down_s(self, it: Neighbour) -> float:
        return max(self._env.settings.down_after_s, it.cost.patience_s) * (1.0 + self.local_health)

    def _ping(self, neighbour: Neighbour) -> None:
        self._nonce += 1
        neighbour.ping_at = neighbour.pings[self._nonce] = self._env.now
        if len(neighbour.pings) > PINGS_MAX:
            del neighbour.pings[next(iter(neighbour.pings))]
        neighbour.idle_s = self._env.jitter(self._env.settings.ping_interval_s)
        if neighbour.silent_since is None:
            neighbour.silent_since = self._env.now
        print_ = self._antientropy.fingerprint_for_ping(neighbour.link)
        self._send(neighbour, Ping(self._nonce, self._clock.now_ms(), print_))

    def _suspect(self, neighbour: Neighbour) -> None:
        assert neighbour.silent_since is not None, "nobody is accused without an open question"
        neighbour.state = SUSPECT
        neighbour.vouched = False
        neighbour.down_at = self._env.after(self._down_s(neighbour))
        self._tell("link_suspect", neighbour)
        self._publish(neighbour.stack_id)
        self._ask_witnesses(neighbour.stack_id)

    def _ask_witnesses(self, stack_id: StackId) -> None:
        links = [self.link_to(witness) for witness in self.topology.witnesses(stack_id)]
        usable = [link for link in links if link is not None]
        for _ in range(min(WITNESSES_MAX, len(usable))):
            witness = usable.pop(self._env.chance.randrange(len(usable)))
            self._nonce += 1
            self._send(witness, Probe(self._nonce, stack_id))

    # --- what is published -----------------------------------------------------------------------

    def _publish(self, stack_id: StackId) -> None:
        """Bring the own link record of a stack in line with its links; tell who watches."""
        self._own.set(stack_id, self._record(stack_id))

    def _record(self, stack_id: StackId) -> tuple[int, str] | None:
        """(cost, state) that the record of this stack should show; None for no record."""
        known = self._of_stack.get(stack_id, ())
        if not known and stack_id not in self._lost:
            return None
        up = [neighbour.cost for neighbour in known if neighbour.state == UP]
        measured = [cost.ms for cost in up if cost.measured]
        held = self._own.get(stack_id)
        before = cost_ms(0.0) if held is None else held[0]
        return min(measured, default=before), UP if up else SUSPECT

    def _send(self, neighbour: Neighbour, message: Message) -> None:
        self._env.emit(Send(neighbour.link, (message,)))

    def _tell(self, kind: str, it: Neighbour, **data: object) -> None:
        self._env.notice(kind, link=it.link, id=show_id(it.stack_id), name=it.name, **data)
