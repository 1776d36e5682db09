"""Durable messages at their origin: accepted when they are on the disk, kept until their end.

Here is decided what is accepted (bounds, and a disk that takes writes), what its callers are told
and when, and when a message has an end: the reply is here, its destination said by a sealed word
that it failed for good, or its time is over. Nothing that was accepted makes place for anything.
Bringing it there is `courier`'s, what became of it is kept by `sent`. A repeated idempotency key
is the same message again, also after a restart (docs/design/forwarding.md).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from tektonmesh.core.attempts import Past
from tektonmesh.core.commits import Commits, Row, refusal
from tektonmesh.core.courier import Courier
from tektonmesh.core.effects import AnswerChunk, BodyAct
from tektonmesh.core.ends import Ends, Span
from tektonmesh.core.events import SendMessage
from tektonmesh.core.graph import Graph
from tektonmesh.core.large import Large
from tektonmesh.core.machine import Env
from tektonmesh.core.meshtime import MeshTime
from tektonmesh.core.outcomes import Outcomes, Question
from tektonmesh.core.outgoing import (
    ACCEPTED,
    ANSWERED,
    EXPIRED,
    FAILED,
    ID_TIME_MAX,
    ID_TIME_SIZE,
    OVERHEAD,
    RECEIVED,
    Ended,
    Letter,
    Outgoing,
    history_of,
    letter_of,
    time_of,
    words_of_letter,
)
from tektonmesh.core.readers import Readers
from tektonmesh.core.repeated import check_same, is_durable, key_of, print_of
from tektonmesh.core.rows import drop_row, pack_row, read_rows
from tektonmesh.core.sent import KEEP_S, Sent
from tektonmesh.core.types import Saved, StackId
from tektonmesh.errors import DeliveryError, MeshError

ROUTE_GRACE_S = 2.0
"""A caller that waits is told so soon that nothing leads there; an accepted message waits."""
RETRY_FULL_S, RETRY_AWAY_S = 5.0, 60.0
"""What a refused caller is told: a queue that drains, one whose stack is away. Guesses."""

TABLE, NEWS = "outbox", "outnews"


class Outbox:
    """The durable messages of one node that have no end yet."""

    def __init__(
        self,
        env: Env,
        clock: MeshTime,
        graph: Graph,
        courier: Courier,
        commits: Commits,
        outcomes: Outcomes,
    ) -> None:
        self.env = env
        self.sent = Sent(env)
        self.readers, self.past = Readers(env), Past()
        self.confirm: Callable[[StackId, bytes], None] = lambda _stack, _msg_id: None
        """Tells the destination that its answer is safe here."""
        self.deliver_here: Callable[[Outgoing], None] = lambda _item: None
        """Takes a message to a CI of this stack."""
        self.permit: Callable[[bytes, Letter], None] = lambda _msg_id, _letter: None  # may raise
        self._clock = clock
        self._graph = graph
        self._courier = courier
        self._commits = commits
        self._outcomes = outcomes
        self._open: dict[bytes, Outgoing] = {}
        self._keys: dict[bytes, bytes] = {}
        self._counts: dict[StackId, int] = {}
        self._bytes = self._last_ms = 0
        self._ending: dict[bytes, None] = {}
        """Those whose end is not durable yet; after a crash they are open again."""
        self._unseen: dict[StackId, OrderedDict[bytes, None]] = {}
        """By stack, in the order of their ids, those of which no receipt came."""
        self._ends = Ends(env, clock, "outbox", self._span_of, self._expire)
        self._tickets: dict[int, Outgoing] = {}
        self._leaving = False

    def __len__(self) -> int:
        return len(self._open)

    @property
    def held_bytes(self) -> int:
        return self._bytes

    def find(self, msg_id: bytes) -> Outgoing | None:
        return self._open.get(msg_id)

    def large_bodies(self) -> Iterator[Large]:
        """Those that are still needed."""
        return (one.letter.large for one in self._open.values() if one.letter.large is not None)

    def of_ticket(self, ticket: int) -> Outgoing | None:
        """The message that this caller waits for."""
        return self._tickets.get(ticket)

    def is_ending(self, msg_id: bytes) -> bool:
        """Whether its end is known but could still be lost: then nobody may be told of it."""
        return msg_id in self._ending

    def history(self, msg_id: bytes) -> dict[str, Any] | None:
        """What became of a message so far; None if it is not known."""
        found = self._open.get(msg_id) or self.sent.get(msg_id)
        if found is None:
            return None
        address = self._outcomes.address(found.about.ci, found.about.stack)
        return {"id": msg_id.hex(), "to": address} | history_of(found)

    # --- beginning -------------------------------------------------------------------------------

    def load(self, saved: Saved) -> None:
        """Take back what the disk kept, oldest first, before the first turn."""
        self.sent.load(saved)
        self._last_ms = time_of(self.sent.newest())
        news = {key: words for key, words, _body in read_rows(self.env, saved, NEWS)}
        for msg_id, words, body in read_rows(self.env, saved, TABLE):
            letter = letter_of(words, body)
            if letter is None:
                drop_row(self.env, TABLE, msg_id)
                continue
            item = self._make(msg_id, letter, again=True)
            item.reload(news.pop(msg_id, []))
            self._insert(item)
        for msg_id in news:
            self.env.save(NEWS, msg_id, None)

    def start(self) -> None:
        """Carry on with what was accepted before."""
        for item in list(self._open.values()):
            if item.letter.live:
                self.readers.missed(item)
            self._carry(item)

    def accept(self, command: SendMessage, stack: StackId, ci: str, timeout_s: float) -> None:
        """Take a message over; its answer follows: that it is accepted once that is durable, or,
        without the option `durable`, its reply.

        Raises DeliveryError `busy`, `leaving` or of `permit`, StoreError, LocalError `conflict`.
        """
        if self._leaving:
            raise DeliveryError("This stack is leaving the mesh.", code="leaving")
        key = key_of(command, stack, ci)
        if key and self._follow(command, key, timeout_s):
            return
        self._check_room(stack, len(command.body))
        now_ms = self._clock.now_ms()
        lasts = is_durable(command)
        ttl_s = self._ttl_s(command.options.get("ttl_s")) if lasts else timeout_s
        letter = Letter(
            stack=stack,
            ci=ci,
            sender=command.sender,
            content_type=command.content_type,
            body=command.body,
            born_ms=now_ms,
            end_ms=now_ms + int(ttl_s * 1000),
            no_reply=bool(command.options.get("no_reply")),
            key=key,
            print=print_of(command) if key else b"",
            live=command.stream,
            large=command.options.get("large"),
        )
        self.permit(msg_id := self._new_id(now_ms), letter)
        item = self._make(msg_id, letter)
        self._insert(item)
        self._attach(item, command, timeout_s)
        row = (TABLE, msg_id, pack_row(self.env, words_of_letter(letter), letter.body))
        self._commits.save((row,), partial(self._committed, item), partial(self._refused, item))

    def _new_id(self, now_ms: int) -> bytes:
        """As `sealing` makes them, but never one that sorts before another of this outbox, also
        when the clock went back meanwhile: destinations rely on that (`low_ms`)."""
        self._last_ms = max(self._last_ms, now_ms & ID_TIME_MAX)
        return self._last_ms.to_bytes(ID_TIME_SIZE) + self.env.chance.randbytes(10)

    def _make(self, msg_id: bytes, letter: Letter, *, again: bool = False) -> Outgoing:
        ttl_s = (letter.end_ms - letter.born_ms) / 1000.0
        span = Span(self.env, letter.end_ms, ttl_s, again=again)
        return Outgoing(self, msg_id, letter, span, started=self.env.now)

    def _ttl_s(self, wanted: Any) -> float:
        ttl_s = float(wanted) if wanted else self.env.settings.durable_ttl_s
        return min(ttl_s, self.env.settings.durable_ttl_max_s)

    def _follow(self, command: SendMessage, key: bytes, timeout_s: float) -> bool:
        """Whether this repeats a message that is known; its caller then gets what became of it."""
        msg_id = self._keys.get(key) or self.sent.by_key(key)
        if msg_id is None:
            return False
        item, ended = self._open.get(msg_id), self.sent.get(msg_id)
        known = item.letter if item is not None else ended
        assert known is not None, "a key leads to a message"
        check_same(command, known.print)
        if item is not None:
            self._attach(item, command, timeout_s)
            if item.committed:
                self._tell_accepted(item)
        elif ended is not None:
            offset = command.options.get("offset", 0)
            durable = is_durable(command)
            self._tell_end(msg_id, ended, command.ticket, durable=durable, offset=offset)
        return True

    def _check_room(self, stack: StackId, size: int) -> None:
        """Raises DeliveryError (`busy`) or StoreError if it cannot be accepted now."""
        settings = self.env.settings
        self._commits.check()
        full = ""
        if self._counts.get(stack, 0) >= settings.outbox_per_stack:
            full = "Too many messages wait for this stack."
        elif len(self._open) >= settings.outbox_messages:
            full = "Too many messages wait here for other stacks."
        elif self._bytes + size + OVERHEAD > settings.outbox_bytes:
            full = "The messages that wait here have no room for this one."
        if full:
            away = not self._graph.reachable(stack) and stack != self.env.me
            data = {"retry_after_s": RETRY_AWAY_S if away else RETRY_FULL_S}
            raise DeliveryError(full, code="busy", data=data)

    def _insert(self, item: Outgoing) -> None:
        letter = item.letter
        self._open[item.msg_id] = item
        self._bytes += item.size
        self._counts[letter.stack] = self._counts.get(letter.stack, 0) + 1
        if letter.key:
            self._keys[letter.key] = item.msg_id
        self._last_ms = max(self._last_ms, time_of(item.msg_id))
        if not item.received:
            self._unseen.setdefault(letter.stack, OrderedDict())[item.msg_id] = None
        self._ends.add(item.msg_id, item.span, len(self._open))

    def _attach(self, item: Outgoing, command: SendMessage, timeout_s: float) -> None:
        ticket = command.ticket
        assert ticket not in self._tickets, "a ticket is used once"
        self._tickets[ticket] = item
        if is_durable(command):
            item.accepting.append(ticket)
            return
        if item.letter.live:
            self._make_place(item)
        item.waiters.append(ticket)
        late = partial(self._too_late, item, ticket)
        self.env.deadlines.set(("outbox", ticket), self.env.after(timeout_s), late)
        if item.stack != self.env.me:
            pathless = partial(self._no_way, item)
            self.env.deadlines.set(("no way", ticket), self.env.after(ROUTE_GRACE_S), pathless)
        if item.letter.live:  # last: all of it may be here, and then this is its end
            self.readers.open(item, ticket, command.options.get("offset", 0))

    def _make_place(self, item: Outgoing) -> None:
        """Another caller reads the reply as it comes, in the place of the one before it."""
        for before in list(item.waiters):
            self._settle_ticket(item, before)
            detail = "Another caller reads this stream now."
            self._outcomes.refused(before, DeliveryError(detail, code="conflict"))

    def _committed(self, item: Outgoing) -> None:
        if self._open.get(item.msg_id) is not item:
            return  # it ended while it was written
        item.committed = True
        item.transitions.append([ACCEPTED, item.letter.born_ms])
        self._tell_accepted(item)
        self._carry(item)

    def _refused(self, item: Outgoing) -> None:
        """The disk did not take it: it never was."""
        if self._open.get(item.msg_id) is item:
            self._remove(item)
            self._tell_failure(item, refusal())

    def _carry(self, item: Outgoing) -> None:
        if item.stack == self.env.me:
            self.deliver_here(item)
        elif not item.received:
            self._courier.carry(item, again=item.reloaded)

    # --- what callers are told -------------------------------------------------------------------

    def cancel(self, ticket: int) -> bool:
        """Nobody waits for `ticket` any more. What has a key goes its way: it may be repeated."""
        item = self._tickets.get(ticket)
        if item is None:
            return False
        waited = ticket in item.waiters
        error = DeliveryError("The wait was cancelled.", code="cancelled", outcome=item.outcome)
        self._settle_ticket(item, ticket)
        self._outcomes.refused(ticket, error)
        if waited and not (item.letter.key or item.waiters):
            self.readers.abandoned(item)
        return True

    def draining(self) -> None:
        """Accept no more."""
        self._leaving = True

    def leaving(self) -> None:
        """Take no more. What was accepted is on the disk; whoever waits has to ask again."""
        self._leaving = True
        for item in list(self._open.values()):
            error = DeliveryError(
                "This stack is leaving the mesh.", code="leaving", outcome="indeterminate"
            )
            self._tell_failure(item, error)

    def _tell_accepted(self, item: Outgoing) -> None:
        for ticket in list(item.accepting):
            self._settle_ticket(item, ticket)
            self._outcomes.taken(ticket, item.msg_id)

    def _tell_failure(self, item: Outgoing, error: MeshError) -> None:
        for ticket in [*item.accepting, *item.waiters]:
            self._settle_ticket(item, ticket)
            self._outcomes.refused(ticket, error)

    def _tell_end(
        self, msg_id: bytes, ended: Ended, ticket: int, *, durable: bool, offset: int = 0
    ) -> None:
        if durable:
            self._outcomes.taken(ticket, msg_id)
            return
        failure = ended.failure() if ended.error is not None else ended.lacking(offset)
        if failure is not None:
            self._outcomes.refused(ticket, failure)
            return
        if ended.live:
            rest, ended = ended.body[offset - ended.start :], ended._replace(body=b"")
            if rest:
                self.env.emit(AnswerChunk(ticket, rest))
        question = Question(
            ticket, msg_id, ended.stack, ended.ci, ended.sender, False, self.env.now
        )
        self._outcomes.replied(question, ended.body, ended.content_type, ended.trace, ended.ms)

    def _settle_ticket(self, item: Outgoing, ticket: int) -> None:
        del self._tickets[ticket]
        self.readers.close(item, ticket)
        if ticket in item.waiters:
            item.waiters.remove(ticket)
            self.env.deadlines.drop(("outbox", ticket))
            self.env.deadlines.drop(("no way", ticket))
        else:
            item.accepting.remove(ticket)

    def _too_late(self, item: Outgoing, ticket: int) -> None:
        """This caller waits no longer; the message may."""
        error = self._timeout(item)
        self._settle_ticket(item, ticket)
        self._outcomes.refused(ticket, error)

    def _no_way(self, item: Outgoing) -> None:
        """Nothing ever led there, and all that wait for it wanted an answer."""
        unsent = not (item.number or item.received or item.doubt)
        if unsent and item.committed and not self._graph.reachable(item.stack):
            self.fail(item, "unreachable", "No path leads to the stack.")

    def _timeout(self, item: Outgoing) -> DeliveryError:
        code, detail = item.code or "timeout", item.detail or "No answer came before the deadline."
        return DeliveryError(detail, code=code, outcome=item.outcome)

    # --- what comes back -------------------------------------------------------------------------

    def note(self, item: Outgoing, state: str) -> None:
        """Something happened to it. What is only told is written when something else is."""
        item.transitions.append([state, self._clock.now_ms()])

    def on_receipt(self, item: Outgoing) -> None:
        """The destination has it, by its own word, and durably."""
        if item.received:
            return
        item.received = True
        self._seen(item)
        self._courier.arrived(item)
        self.note(item, RECEIVED)
        self.env.save(NEWS, item.msg_id, pack_row(self.env, item.transitions[1:]))

    def on_answer(
        self, item: Outgoing, content_type: str, body: bytes, trace: bytes, start: int = 0
    ) -> None:
        """The whole reply is here; of one that was read as it came the end, from `start` on."""
        about = {"content_type": content_type, "body": body, "trace": trace, "start": start}
        self._end(item, ANSWERED, ms=int((self.env.now - item.started) * 1000.0), **about)

    def busy(self, item: Outgoing, code: str, detail: str) -> None:
        """The destination has no room for it now; it tries again."""
        item.code, item.detail = code, detail
        self._courier.postpone(item, 1.0)

    def fail(self, item: Outgoing, code: str, detail: str, outcome: str = "") -> None:
        """It failed for good; `outcome` is that of the destination if it said one."""
        error = DeliveryError(detail, code=code, outcome=outcome or item.outcome)
        self._end(
            item,
            EXPIRED if code == "expired" else FAILED,
            error=[code, error.detail, error.outcome],
        )

    def _end(self, item: Outgoing, state: str, **about: Any) -> None:
        self.note(item, state)
        letter, now_ms = item.letter, self._clock.now_ms()
        error = about.get("error")
        # A message that certainly was not delivered does not stand in the way of another try.
        again = error is not None and error[2] == "released"
        ended = Ended(
            stack=letter.stack,
            ci=letter.ci,
            sender=letter.sender,
            transitions=item.transitions,
            until_ms=now_ms + int(KEEP_S * 1000),
            key=b"" if again else letter.key,
            print=letter.print,
            live=letter.live,
            **about,
        )
        self._remove(item)
        item.attempts.trace = ended.trace or item.attempts.trace
        self.past.keep(item.msg_id, item.attempts)
        self._courier.drop(item)
        gone: list[Row] = [(TABLE, item.msg_id, None), (NEWS, item.msg_id, None)]
        rows = (*gone, *self.sent.add(item.msg_id, ended))
        self._ending[item.msg_id] = None
        self._commits.save(rows, partial(self._ended, item.stack, item.msg_id))
        for ticket in [*item.waiters, *item.accepting]:
            durable = ticket in item.accepting
            self._settle_ticket(item, ticket)
            end = ended.start + len(ended.body)
            self._tell_end(item.msg_id, ended, ticket, durable=durable, offset=end)
        question = Question(
            0, item.msg_id, letter.stack, letter.ci, letter.sender, False, item.started
        )
        self._outcomes.over(question, ok=error is None, trace=ended.trace)

    def _ended(self, stack: StackId, msg_id: bytes) -> None:
        """The end is durable: its destination may forget the answer."""
        del self._ending[msg_id]
        self.confirm(stack, msg_id)

    def _seen(self, item: Outgoing) -> None:
        """No further copy of it will be sent."""
        unseen = self._unseen.get(item.stack, OrderedDict())
        unseen.pop(item.msg_id, None)
        if not unseen:
            self._unseen.pop(item.stack, None)

    def _remove(self, item: Outgoing) -> None:
        assert self._open[item.msg_id] is item, "a message ends once"
        del self._open[item.msg_id]
        self._bytes -= item.size
        self._keys.pop(item.letter.key, None)
        if item.letter.large is not None:
            self.env.emit(BodyAct("drop", item.letter.large.name))
        self._seen(item)
        left = self._counts[item.letter.stack] - 1
        assert left >= 0 and self._bytes >= 0
        if left:
            self._counts[item.letter.stack] = left
        else:
            del self._counts[item.letter.stack]

    # --- time ------------------------------------------------------------------------------------

    def left_s(self, item: Outgoing) -> float:
        """How much time it has."""
        return item.span.left_s(self.env, self._clock)

    def low_ms(self, stack: StackId) -> int:
        """Every message to `stack` that was made before this instant has arrived, or has ended."""
        return time_of(next(iter(self._unseen[stack]))) if stack in self._unseen else self._last_ms

    def _span_of(self, msg_id: bytes) -> Span | None:
        item = self._open.get(msg_id)
        return item.span if item is not None else None

    def _expire(self, msg_id: bytes) -> None:
        item = self._open[msg_id]
        waited = bool(item.waiters)
        detail = item.detail or "Its time was over before it was answered."
        code = (item.code or "timeout") if waited else "expired"
        self.fail(item, code, detail)
