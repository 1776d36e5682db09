"""Links between hosts, with the manners of TCP: in order, and a loss shows as delay or reset.

A cut leaves links standing: what was sent waits, as in the kernel's queue, and is delivered some
while after the heal unless an end gave the link up. Duplicates and reordering happen across links
and by what nodes send again, never within a link. Who is admitted is asked of both nodes.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tektonmesh.core.effects import Dial
from tektonmesh.core.events import DialFailed, LinkDown, LinkUp, PeerRefused, Received
from tektonmesh.core.messages import Bye, Message
from tektonmesh.core.types import LinkId
from tektonmesh.sim.host import Host, Run
from tektonmesh.sim.options import edges_of
from tektonmesh.sim.regions import one_way_s

if TYPE_CHECKING:
    from tektonmesh.sim.world import World

RTO_S = 0.2
"""The first retransmission of a lost segment; Linux's minimum."""
QUEUE_MAX = 20_000
"""Messages that may wait in one direction; stands for the shell's 32 MiB. Overflow closes."""

Item = tuple[Message, ...] | LinkUp | None
"""What travels to an end: messages, the welcome of a new link, or (None) the end of the stream."""


@dataclass(slots=True, eq=False)
class End:
    """One end of a link, with all that travels towards it."""

    host: Host
    link: LinkId
    incarnation: int
    open: bool = True
    number: int = 0
    """Of the dial that made the link, at the end that dialled."""
    last: float = 0.0
    """The arrival of the newest item: nothing that is sent later arrives earlier."""
    scheduled: bool = False
    ended: bool = False
    queue: deque[tuple[float, Item]] = field(default_factory=deque)
    peer: End = field(init=False)


class Network:
    """All links of a world, who cannot reach whom, and what passed."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._chance = world.chance
        self._blocked: dict[tuple[int, int], int] = {}
        self._slowed: dict[tuple[int, int], float] = {}
        self._stuck: list[End] = []
        self._edges = dict.fromkeys(() if world.options.warm else edges_of(world.options))
        self._dials = 0
        self._greeting: dict[int, End] = {}
        self.longest_queue = 0

    # --- who can reach whom ----------------------------------------------------------------------

    def block(self, source: int, target: int) -> None:
        """No packet passes from `source` to `target` until as many `unblock`s."""
        self._world.shifts += 1
        self._blocked[(source, target)] = self._blocked.get((source, target), 0) + 1

    def unblock(self, source: int, target: int) -> None:
        self._world.shifts += 1
        self._blocked[(source, target)] -= 1
        if self._blocked[(source, target)]:
            return
        del self._blocked[(source, target)]
        stuck, self._stuck = self._stuck, []
        for end in stuck:
            if self.passes(end.peer.host.index, end.host.index):
                self._schedule(end, self._world.now + self._chance.uniform(0.02, 2 * RTO_S))
            else:
                self._stuck.append(end)

    def slow(self, source: int, target: int, more_s: float) -> None:
        """From now on packets from `source` to `target` take so much longer."""
        self._slowed[(source, target)] = self._slowed.get((source, target), 0.0) + more_s

    def passes(self, source: int, target: int) -> bool:
        """Whether packets pass from one host to the other now."""
        return (source, target) not in self._blocked

    def dialable(self, source: int, target: int) -> bool:
        """Whether one of the two may ever open a link to the other, by their roles."""
        if not self._world.options.walls:
            return True
        return (source, target) in self._edges or (target, source) in self._edges

    def may_join(self, one: Host, other: Host) -> bool:
        """Whether a link between two running hosts can be made now, as far as it hangs on who
        knows whom and on the cuts."""
        if not (self.passes(one.index, other.index) and self.passes(other.index, one.index)):
            return False
        options = self._world.options
        if not (options.walls or options.seeds_only):
            return True
        pair = (one.role, other.role)
        return pair in self._edges or pair[::-1] in self._edges

    @property
    def open_to_all(self) -> bool:
        """Whether every running host can reach every other directly now."""
        options = self._world.options
        return not (self._blocked or options.walls or options.seeds_only)

    # --- opening a link --------------------------------------------------------------------------

    def dial(self, host: Host, dial: Dial) -> None:
        """Connect, TLS and HELLO take two round trips; the last half of them is the WELCOME."""
        self._dials += 1
        number = self._dials
        host.dials[number] = dial
        world = self._world
        limit = world.options.node_settings().dial_timeout_s
        world.at(world.now + limit, self._fail, host, number, "unreachable")
        target = world.host_at(dial.address)
        if target is host:
            self._fail_soon(host, number, "self")
        elif target is None or target.run in (Run.OFF, Run.LEFT):
            self._fail_soon(host, number, "unreachable")
        elif self.dialable(host.role, target.role):
            lag = sum(self._lag(host.index, target.index) for _ in range(3))
            lag += 3 * self._slowness(host, target)
            world.at(world.now + lag, self._hello, host, number, target)

    def _fail_soon(self, host: Host, number: int, code: str) -> None:
        lag = 2 * self._lag(host.index, host.index + 1)
        self._world.at(self._world.now + lag, self._fail, host, number, code)

    def _fail(self, host: Host, number: int, code: str) -> None:
        """A dial ends without a link; one that waits for its WELCOME is broken off."""
        dial = host.dials.pop(number, None)
        if dial is None:
            return
        near = self._greeting.pop(number, None)
        if near is not None:
            near.open = False
            self._end_stream(near.peer)
        self._world.inject(host, DialFailed(dial.address, dial.expect, code, code))

    def _hello(self, host: Host, number: int, target: Host) -> None:
        """The listener has the dialler's HELLO: both judge, and the link is made or refused."""
        dial = host.dials.get(number)
        if dial is None or not target.alive or host.node is None or target.node is None:
            return
        if not (self.passes(host.index, target.index) and self.passes(target.index, host.index)):
            return
        if dial.expect is not None and dial.expect != target.stack_id:
            self._fail_soon(host, number, "wrong_identity")
            return
        admitted = self._admits(target, host, outbound=False)
        if admitted and self._admits(host, target, outbound=True):
            self._connect(host, number, target)
        else:
            refused = PeerRefused(target.stack_id, target.name, dial.address, True, "refused")
            self._world.inject(host, refused)
            self._fail(host, number, "refused")

    def _admits(self, judge: Host, other: Host, *, outbound: bool) -> bool:
        """Ask one end; a listener that refuses lists the peer."""
        assert judge.node is not None and other.node is not None
        keydoc = other.node.trust.own_keydoc()
        verdict = judge.node.judge(other.stack_id, other.name, keydoc, True)
        if not (verdict.admitted or outbound):
            refused = PeerRefused(other.stack_id, other.name, other.address, False, verdict.reason)
            self._world.inject(judge, refused)
        return verdict.admitted

    def _connect(self, host: Host, number: int, target: Host) -> None:
        near = End(host, host.new_link(), host.incarnation)
        far = End(target, target.new_link(), target.incarnation)
        near.peer, far.peer = far, near
        near.number = number
        self._greeting[number] = near
        self._push(near, _link_up(near, host.dials[number].address, outbound=True))
        target.links[far.link] = far
        self._world.inject(target, _link_up(far, f"dialler-{number}:1", outbound=False))

    # --- an open link ----------------------------------------------------------------------------

    def send(self, host: Host, link: LinkId, messages: tuple[Message, ...]) -> None:
        """Queue messages towards the other end; a link that is gone swallows them."""
        end = host.links.get(link)
        if end is None:
            return
        if not end.peer.open:
            self._end_stream(end)
            return
        if len(end.peer.queue) >= QUEUE_MAX:
            self.close(host, link, "overflow", "The queue is full.")
            return
        self._push(end.peer, messages)

    def close(self, host: Host, link: LinkId, code: str, detail: str) -> None:
        """This end closes in good order: the peer is told why, then reads the end."""
        end = host.links.pop(link, None)
        if end is None:
            return
        end.open = False
        if end.peer.open:
            self._push(end.peer, (Bye(code, detail),))
        self._end_stream(end.peer)
        self._world.soon(host, LinkDown(link, f"closed: {code}"))

    def reset_links(self, host: Host) -> None:
        """Something between resets every link of a host; both ends notice after a lag."""
        for near in list(host.links.values()):
            for end in (near, near.peer):
                self._lose(end)
                self._end_stream(end)

    def drop_all(self, host: Host, *, silent: bool) -> None:
        """The process on `host` is gone. Unless `silent`, its kernel tells the peers; data that
        is under way may be lost with it."""
        for end in list(host.links.values()):
            end.open = False
            end.queue.clear()
            if not silent:
                if self._chance.random() < 0.5:
                    self._lose(end.peer)
                self._end_stream(end.peer)
        for number in host.dials:
            near = self._greeting.pop(number, None)
            if near is not None:
                near.open = False
                self._end_stream(near.peer)
        host.links.clear()
        host.dials.clear()

    def _lose(self, end: End) -> None:
        """What is under way is lost; but not the end of the stream, which is no data."""
        if not end.ended:
            end.queue.clear()

    def _end_stream(self, end: End) -> None:
        if end.open and not end.ended:
            end.ended = True
            self._push(end, None)

    def one_way(self, source: int, target: int) -> float:
        """Seconds that one packet which is not lost takes from one host to another."""
        options = self._world.options
        far_s = one_way_s(source, target) if options.regional else options.delay_s
        return far_s + options.jitter_s * self._chance.random()

    def _lag(self, source: int, target: int) -> float:
        """One way of one packet, with the retransmissions it needs."""
        options = self._world.options
        lag = self.one_way(source, target)
        pause = RTO_S
        while options.loss and self._chance.random() < options.loss and pause < 4.0:
            lag += pause
            pause *= 2
        return lag

    def _slowness(self, source: Host, target: Host) -> float:
        return max(0.0, self._slowed.get((source.index, target.index), 0.0))

    def _push(self, end: End, item: Item) -> None:
        lag = self._lag(end.peer.host.index, end.host.index)
        lag += self._slowness(end.peer.host, end.host)
        end.last = max(end.last, self._world.now + lag)
        end.queue.append((end.last, item))
        self.longest_queue = max(self.longest_queue, len(end.queue))
        self._schedule(end, end.last)

    def _schedule(self, end: End, instant: float) -> None:
        if not end.scheduled:
            end.scheduled = True
            self._world.at(instant, self._arrive, end)

    def _arrive(self, end: End) -> None:
        """Hand over all that is due, as one read would."""
        end.scheduled = False
        if not end.open:
            end.queue.clear()
            return
        if not self.passes(end.peer.host.index, end.host.index):
            self._stuck.append(end)
            return
        messages: list[Message] = []
        ended = False
        while end.queue and end.queue[0][0] <= self._world.now:
            _instant, item = end.queue.popleft()
            if isinstance(item, LinkUp):
                self._welcome(end, item)
            elif item is None:
                ended = True
            else:
                messages.extend(item)
        if messages:
            self._world.inject(end.host, Received(end.link, tuple(messages)))
        if ended:
            self._ended(end)
        elif end.queue:
            self._schedule(end, max(end.queue[0][0], self._world.now))

    def _welcome(self, end: End, event: LinkUp) -> None:
        del end.host.dials[end.number]
        del self._greeting[end.number]
        end.host.links[end.link] = end
        self._world.inject(end.host, event)

    def _ended(self, end: End) -> None:
        end.open = False
        if end.host.links.pop(end.link, None) is not None:
            self._world.inject(end.host, LinkDown(end.link, "the peer closed"))


def _link_up(own: End, address: str, *, outbound: bool) -> LinkUp:
    """What one end is told of a link that was just made."""
    peer = own.peer.host
    assert peer.node is not None
    return LinkUp(
        link=own.link,
        stack_id=peer.stack_id,
        name=peer.name,
        keydoc=peer.node.trust.own_keydoc(),
        instance=peer.node.env.identity.instance,
        addresses=(peer.address,),
        address=address,
        outbound=outbound,
    )
