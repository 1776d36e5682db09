"""Mesh time: the one clock by which heads are fresh or not. It never orders anything.

Mesh time is the monotonic clock plus an offset. The offset is voted: the median of this machine's
wall clock and of what the linked peers say. It may step until this stack has published; after that
it slews, so that nothing expires because one clock jumped, and leans from the vote a little towards
the wall clock. It steps again only where time has passed for certain: by as much as the machine
slept, and forward to what our own wall clock and two peers agree on. Which head may be kept is
decided here; what becomes of the others, in `core/replica`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from tektonmesh.core.head import EPOCH_MAX, LEASE_MAX_S
from tektonmesh.core.machine import Env
from tektonmesh.core.types import LinkId, Saved, StackId
from tektonmesh.errors import RemoteError

SLACK_MS = 30_000
"""How far a head may lie in the future, and how long it is kept beyond its lease."""
SLEW_PART = 0.1
"""Seconds that the offset may move per second."""
ALARM_MS = 60_000
"""Above this distance between our time and the vote, nobody is expired; and one peer alone moves
nobody so far from its own wall clock."""
ALARM_PAUSE_S = 60.0
"""How long to wait before asking again whether an owner may end while there is an alarm."""
ALONE_S = 10.0
"""For so long after a start nobody is expired before a peer has told its time; a guess."""
ANCHOR_MS = 1_000
"""How far after its first head a stack goes back from the vote towards its own wall clock. What all
share no vote can mend: a few clocks that are ahead where somebody has few links would move the
whole mesh, bit by bit, and nothing would bring it back. A guess; an honest clock that is wrong
stays as far from the others at most."""
SAME_MS = 5_000
"""One peer that agrees with our wall clock so far is enough to begin with; a guess, well within
the slack of a head."""
MEMORY_AHEAD_MS = 86_400_000
"""A time signed before this start that lies further ahead of the wall clock was a mistake."""


class MeshTime:
    """The voted clock of one node. `watch` callbacks run when a link has its first vote,
    `watch_steps` callbacks after a step by which heads of before are not fresh any more."""

    def __init__(self, env: Env, saved: Saved, wall_s: float) -> None:
        self.env = env
        self._wall = self._offset_of(wall_s * 1000.0)
        self._offset = self._target = self._voted = self._wall
        self._slewed_at = env.now
        self._highest = _saved_hlc(env, saved, wall_s * 1000.0)
        self._signed = False
        self._waiting = True
        self._alone_until = env.after(ALONE_S)
        self._alarmed = False
        self._peers: dict[LinkId, StackId] = {}
        self._votes: dict[LinkId, float] = {}
        self._watchers: list[Callable[[], None]] = []
        self._step_watchers: list[Callable[[], None]] = []

    def watch(self, callback: Callable[[], None]) -> None:
        self._watchers.append(callback)

    def watch_steps(self, callback: Callable[[], None]) -> None:
        self._step_watchers.append(callback)

    # --- reading ---------------------------------------------------------------------------------

    def now_ms(self) -> int:
        """Mesh time in ms since 1970; never below the highest that this stack has signed."""
        self._slew()
        return min(EPOCH_MAX, max(int(self.env.now * 1000.0 + self._offset), self._highest))

    def fresh(self, hlc_ms: int, lease_s: int) -> bool:
        """Whether a head signed at `hlc_ms` may be kept. Bounded on both sides: nothing that was
        signed in a wrong future can be saved up for later."""
        now = self.now_ms()
        return self.end_ms(hlc_ms, lease_s) >= now and hlc_ms <= now + SLACK_MS

    @property
    def confirmed(self) -> bool:
        """Whether two peers have voted, or one that agrees with our wall clock: a single other
        clock that is wrong must not set ours."""
        near = any(abs(vote - self._wall) <= SAME_MS for vote in self._votes.values())
        voters = dict.fromkeys([self._peers[link] for link in self._votes])
        return near or len(voters) > 1

    @property
    def disputed(self) -> bool:
        """Whether only one peer has voted so far, and not for our wall clock."""
        return bool(self._votes) and not self.confirmed

    @staticmethod
    def end_ms(hlc_ms: int, lease_s: int) -> int:
        """The last ms of mesh time at which such a head is fresh."""
        return hlc_ms + min(lease_s, LEASE_MAX_S) * 1000 + SLACK_MS

    @property
    def doubt_s(self) -> float:
        """For how long from now nobody may be expired by this clock; 0.0 when it can be trusted.
        Our own wall clock alone is not, right after a start."""
        if self.alarm:
            return ALARM_PAUSE_S
        return 0.0 if self.confirmed else max(0.0, self._alone_until - self.env.now)

    @property
    def alarm(self) -> bool:
        """True while our time is over a minute away from the vote. Nobody is expired then."""
        return abs(self.env.now * 1000.0 + self._voted - self.now_ms()) > ALARM_MS

    # --- what moves it ---------------------------------------------------------------------------

    def on_wall(self, wall_s: float) -> None:
        """A reading of this machine's wall clock, in seconds since 1970."""
        self._wall = self._offset_of(wall_s * 1000.0)
        self._vote()

    def suspended(self, seconds: float) -> None:
        """The machine slept for so long, and the monotonic clock with it: everything that was
        measured against that clock is so much behind. This is known, not believed, so it needs no
        vote."""
        assert seconds > 0.0
        self._slew()
        slept_ms = seconds * 1000.0
        self._wall += slept_ms
        self._target += slept_ms
        self._voted += slept_ms
        for link in self._votes:
            self._votes[link] += slept_ms
        self._step(slept_ms)

    def link_up(self, link: LinkId, stack_id: StackId) -> None:
        """From now on this link may vote, for this peer."""
        self._peers[link] = stack_id

    def on_peer(self, link: LinkId, mesh_ms: int, rtt_s: float) -> None:
        """A peer's mesh time, half a round trip ago. Links that were not announced do not vote,
        and neither does a peer whose clock cannot be right."""
        if link not in self._peers or not 0 <= mesh_ms <= EPOCH_MAX:
            return
        first = link not in self._votes
        self._votes[link] = self._offset_of(mesh_ms + rtt_s * 500.0)
        self._vote()
        if first:
            for callback in self._watchers:
                callback()

    def drop_link(self, link: LinkId) -> None:
        """The link is gone, and its vote with it."""
        self._peers.pop(link, None)
        if self._votes.pop(link, None) is not None:
            self._vote()

    def stop_waiting(self) -> None:
        """No more peers are waited for: those that have voted decide."""
        self._waiting = False
        self._vote()

    def note_signed(self, hlc_ms: int) -> None:
        """This stack signed a head at `hlc_ms`; from the first one on, the clock only slews."""
        self._signed, self._waiting = True, False
        self._highest = max(self._highest, hlc_ms)
        self.env.save("meta", b"hlc", self.env.codec.pack(self._highest))

    # --- the vote --------------------------------------------------------------------------------

    def _offset_of(self, mesh_ms: float) -> float:
        return mesh_ms - self.env.now * 1000.0

    def _vote(self) -> None:
        """The median; of two middle ones, that of the smaller id, so that two stacks agree. Far
        from our wall clock it only moves us if two peers say so. While we wait for more of them,
        a single one that differs does not move us at all: what we told others then would make its
        one lie look like the word of many."""
        peers = {self._peers[link]: offset for link, offset in self._votes.items()}
        by_id = {self.env.me: self._wall} | peers
        ranked = sorted((offset, voter) for voter, offset in by_id.items())
        middle = ranked[(len(ranked) - 1) // 2 : len(ranked) // 2 + 1]
        self._slew()
        self._voted = min(middle, key=lambda vote: vote[1])[0]
        far = abs(self._voted - self._wall) > ALARM_MS
        apart = sorted(abs(offset - self._voted) for offset in peers.values())
        second = apart[1] if len(apart) > 1 else inf
        alone = self._waiting and not self.confirmed
        kept = alone or (far and second > ALARM_MS)
        self._target = self._wall if kept else self._voted + self._back_ms(far)
        behind_ms = self._target - self._offset
        if not self._signed:
            self._offset = self._target
        elif behind_ms > SLACK_MS and second <= SLACK_MS and not far:
            # A machine that was stopped from outside knows nothing of it. One that is less behind
            # than this still takes the heads of the others, and may slew.
            self._step(behind_ms)
        alarm = self.alarm
        if alarm and not self._alarmed:
            off = self._voted - self._offset
            self.env.notice("clock_alarm", disagreement_s=round(off / 1000.0, 1))
        elif self._alarmed and not alarm:
            self.env.notice("clock_agrees")
        self._alarmed = alarm

    def _back_ms(self, far: bool) -> float:
        """From the vote towards our wall clock, which far from it is no anchor."""
        if far or not self._signed:
            return 0.0
        return max(-ANCHOR_MS, min(ANCHOR_MS, self._wall - self._voted))

    def _step(self, by_ms: float) -> None:
        self._offset += by_ms
        if by_ms > SLACK_MS:
            for callback in self._step_watchers:
                callback()

    def _slew(self) -> None:
        if self._slewed_at == self.env.now:
            return
        most = (self.env.now - self._slewed_at) * 1000.0 * SLEW_PART
        self._slewed_at = self.env.now
        gap = self._target - self._offset
        self._offset += max(-most, min(most, gap))


def _saved_hlc(env: Env, saved: Saved, wall_ms: float) -> int:
    """The highest time signed before this start. A damaged row counts as none, and so does one
    that would make our heads useless for days: the epoch, which is kept apart from it, still
    keeps versions from going back."""
    try:
        value = env.codec.unpack(saved.get(("meta", b"hlc"), b"\x00"))
    except RemoteError:
        return 0
    if type(value) is not int or not 0 <= value <= EPOCH_MAX:
        return 0
    if value > wall_ms + MEMORY_AHEAD_MS:
        env.notice("clock_memory_discarded", ahead_s=round((value - wall_ms) / 1000.0))
        return 0
    return value
