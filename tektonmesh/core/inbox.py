"""Durable messages at their destination: taken once, kept until answered, the answer until known.

A message is opened first; then its row and its mark are written in one transaction under
(authenticated origin, msg_id), and only then its origin gets a receipt and its CI the message. A
repeat gets the receipt or the answer again, never a second delivery. Marks go when they cannot be
needed: every message names an instant before which its origin sends no copies any more, and what is
older than the latest such instant and is not here has ended (docs/design/forwarding.md). Lending to
CIs is `turns`', bringing answers back `courier`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from tektonmesh.core.commits import Commits, Row
from tektonmesh.core.courier import Courier
from tektonmesh.core.effects import BodyAct, Save
from tektonmesh.core.ends import Ends, Span
from tektonmesh.core.handouts import Parcel
from tektonmesh.core.incoming import (
    OVERHEAD,
    PIECE_SIZE,
    Answer,
    AnswerFreight,
    Incoming,
    Key,
    Note,
    Stage,
    Voice,
    of_rows,
    words_of_note,
)
from tektonmesh.core.knowncis import KnownCis
from tektonmesh.core.large import Large
from tektonmesh.core.machine import Env
from tektonmesh.core.meshtime import MeshTime
from tektonmesh.core.outgoing import time_of
from tektonmesh.core.pulls import Pulls
from tektonmesh.core.repliers import outcome_of
from tektonmesh.core.rows import drop_row, pack_row, read_rows
from tektonmesh.core.saying import Saying, Sayings
from tektonmesh.core.turns import TABLE as LEASES
from tektonmesh.core.turns import Turns
from tektonmesh.core.types import Saved, StackId
from tektonmesh.errors import DeliveryError, MeshError

TABLE, MARKS, LOWS = "inbox", "taken", "low"

Words = list[Any]

FOR_GOOD = ("not_found", "refused", "too_large", "protocol")
"""Why a message is never taken."""

CANCELLED_DETAIL = "Nobody waits for its answer any more."
LATE_DETAIL = "Its time was over before its CI answered."
ENDED_DETAIL = "It was here before, and its answer is not kept any more."


class Inbox:
    """The durable messages for the CIs of one node."""

    def __init__(
        self,
        env: Env,
        clock: MeshTime,
        known: KnownCis,
        courier: Courier,
        commits: Commits,
        voice: Voice,
    ) -> None:
        self.env = env
        self.turns: Turns
        self.pulls: Pulls
        self.label: Callable[[StackId], str] = lambda stack: stack.hex()
        self.permit: Callable[[Key, Note], None] = lambda _key, _note: None
        """Raises DeliveryError if the policy does not let that stack speak to that CI."""
        self.dead_letters = 0
        self._clock = clock
        self.sayings = Sayings(env, commits)
        self._known = known
        self._courier = courier
        self._commits = commits
        self._voice = voice
        self._items: dict[bytes, Incoming] = {}
        self._marks: dict[StackId, dict[bytes, Incoming]] = {}
        """By origin, those of which only the mark is left, oldest first."""
        self._known_of: dict[StackId, int] = {}
        self._lows: dict[StackId, int] = {}
        self._open = 0
        self._unconfirmed = 0
        self._bytes = 0
        self._ends = Ends(env, clock, "inbox", self._span_of, self._expire)

    def __len__(self) -> int:
        """How many wait for their CI's answer."""
        return self._open

    @property
    def marks(self) -> int:
        return len(self._items)

    @property
    def unconfirmed(self) -> int:
        """Answers of which their origins do not know, as far as is known here."""
        return self._unconfirmed

    @property
    def held_bytes(self) -> int:
        return self._bytes

    def knows(self, key: Key) -> bool:
        """Whether a message is known here durably: taken, refused for good, or ended."""
        item = self._items.get(b"".join(key))
        if item is not None:
            return item.stage is not Stage.WRITING
        return time_of(key[1]) < self._lows.get(key[0], 0)

    def with_id(self, msg_id: bytes) -> list[Incoming]:
        """For people: the messages of this id, whoever sent them. Looks at every mark."""
        return [item for item in self._items.values() if item.key[1] == msg_id]

    # --- beginning -------------------------------------------------------------------------------

    def load(self, saved: Saved) -> None:
        """Take back what the disk kept."""
        lows = read_rows(self.env, saved, LOWS)
        self._lows = {source: words[0] for source, words, _body in lows if _are_numbers(words, 1)}
        notes = {key: (words, body) for key, words, body in read_rows(self.env, saved, TABLE)}
        leases = {key: words for key, words, _body in read_rows(self.env, saved, LEASES)}
        for row_key, words, body in read_rows(self.env, saved, MARKS):
            item = of_rows(self.env, row_key, (words, body), notes.pop(row_key, None))
            if item is None:
                drop_row(self.env, MARKS, row_key)
                continue
            lease = leases.pop(row_key, [])
            if _are_numbers(lease, 2):
                item.attempt, item.losses = lease
            self._insert(item)
            if item.note is not None and item.note.live:
                item.saying = self._new_saying(item, 0)
        self._restore_sayings(saved)
        for table, left in ((TABLE, notes), (LEASES, leases)):
            for row_key in left:
                drop_row(self.env, table, row_key)

    def _restore_sayings(self, saved: Saved) -> None:
        for row_key, pieces in self.sayings.load(saved).items():
            item = self._items.get(row_key)
            if item is not None and item.stage is not Stage.DONE:
                item.saying = item.saying or self._new_saying(item, 0)
                item.saying.restore(pieces)
            else:
                self.sayings.drop(row_key, pieces)

    def _new_saying(self, item: Incoming, credit: int) -> Saying:
        return Saying(self.sayings, item.row_key, partial(self._voice.piece, item.key), credit)

    def start(self) -> None:
        """Go on with what was taken before."""
        for item in list(self._items.values()):
            if item.stage is Stage.WAITING:
                self.turns.add(item)
            elif item.stage is Stage.ANSWERED:
                self._carry(item, again=True)

    # --- taking ----------------------------------------------------------------------------------

    def take(self, key: Key, note: Note, left_s: float, low_ms: int, trace: bytes) -> None:
        """A message, or a repeat of it; `low_ms` is what its origin says of all it sent."""
        item = self._items.get(b"".join(key))
        if item is not None:
            item.trace = trace
            self._repeat(item)
        elif time_of(key[1]) < self._lows.get(key[0], 0):
            self._voice.nack(key, "ci_failed", ENDED_DETAIL, "indeterminate")
        else:
            try:
                self._check(key, note)
                if self._is_lacking(key, note, left_s, (low_ms, trace)):
                    return
            except MeshError as error:
                code = error.code.name
                if code in FOR_GOOD:
                    self._refuse(key, error, left_s, trace)
                else:
                    self._voice.nack(key, "busy", error.detail, "released")
                return
            self._take(key, note, left_s, low_ms, trace)

    def _is_lacking(self, key: Key, note: Note, left_s: float, about: tuple[int, bytes]) -> bool:
        """Whether its large body has to be brought first; it is taken when that is here. Raises
        DeliveryError if there is no room for it."""
        if note.large is None or key[0] == self.env.me or self.pulls.is_whole(note.large):
            return False
        until = self.env.after(left_s)

        def again() -> None:
            self.take(key, note, max(until - self.env.now, 0.001), *about)

        def failed(code: str, detail: str) -> None:
            if code in FOR_GOOD:
                self._refuse(key, DeliveryError(detail, code=code), left_s, about[1])
            else:
                self._voice.nack(key, "busy", detail, "released")

        self.pulls.bring(key, note.large, left_s, again, failed)
        return True

    def _check(self, key: Key, note: Note) -> None:
        """Raises MeshError if it cannot be taken: `not_found` or `refused`, for good; else for
        now."""
        settings, source = self.env.settings, key[0]
        self.permit(key, note)
        if (note.ci, source != self.env.me) not in self._known:
            raise DeliveryError(f"There is no CI '{note.ci}' on this stack.", code="not_found")
        self._commits.check()
        full = (
            self._open >= settings.inbox_messages
            or self._bytes + len(note.body) + OVERHEAD > settings.inbox_bytes
            or self.turns.waiting(note.ci) >= settings.inbox_per_ci
        )
        known = self._known_of.get(source, 0) >= settings.marks_per_stack
        if full or known or len(self._items) >= settings.marks_max:
            raise DeliveryError("Too many messages wait on this stack.", code="busy")

    def _take(self, key: Key, note: Note, left_s: float, low_ms: int, trace: bytes) -> None:
        item = self._new(key, left_s, trace)
        item.note = note
        item.saying = self._new_saying(item, note.credit) if note.live else None
        self._insert(item)
        row: Row = (TABLE, item.row_key, pack_row(self.env, words_of_note(note), note.body))
        # Not with the rows that a disk that refuses makes undone: marks that went are gone.
        lows = self._raise_low(key[0], low_ms)
        if lows:
            self.env.emit(Save(lows, None))
        rows = (row, self._mark(item, Stage.WAITING))
        self._commits.save(rows, partial(self._taken, item), partial(self._not_taken, item))

    def _new(self, key: Key, left_s: float, trace: bytes) -> Incoming:
        ttl_ms = int(left_s * 1000.0)
        span = Span(self.env, self._clock.now_ms() + ttl_ms, left_s)
        return Incoming(key, span, ttl_ms=ttl_ms, trace=trace)

    def _taken(self, item: Incoming) -> None:
        """It is safe here."""
        if self._items.get(item.row_key) is not item or item.stage is not Stage.WRITING:
            return
        if item.over:  # its time was so short that writing it took longer
            self._answer(item, Answer(LATE_DETAIL.encode(), "", "expired", "released"))
            return
        self._voice.receipt(item.key, item.trace)
        self.turns.add(item)

    def _not_taken(self, item: Incoming) -> None:
        """The disk refused: its origin keeps it."""
        if self._items.get(item.row_key) is item:
            self._forget(item)

    def _refuse(self, key: Key, error: MeshError, left_s: float, trace: bytes) -> None:
        """Say no, and no to every late copy as well."""
        settings = self.env.settings
        full = self._known_of.get(key[0], 0) >= settings.marks_per_stack
        if full or len(self._items) >= settings.marks_max or self._commits.refusing:
            return  # its origin asks again
        item = self._new(key, left_s, trace)
        self._insert(item)
        self._answer(item, Answer(error.detail.encode(), "", error.code.name, "released"))

    def _repeat(self, item: Incoming) -> None:
        if item.stage in (Stage.WAITING, Stage.LEASED):
            self._voice.receipt(item.key, item.trace)
        elif item.carried is not None:
            self._courier.now(item.carried)
        elif item.stage is Stage.DONE:
            self._voice.nack(item.key, "ci_failed", ENDED_DETAIL, "indeterminate")

    # --- its CI ----------------------------------------------------------------------------------

    def left_s(self, item: Incoming) -> float:
        return item.span.left_s(self.env, self._clock)

    def parcel(self, item: Incoming, left_s: float) -> Parcel:
        assert item.note is not None, "a message that is handed out is whole"
        note, label = item.note, self.label(item.key[0])
        return Parcel(
            msg_id=item.key[1],
            sender=f"{note.sender}@{label}" if note.sender else label,
            body=note.body,
            content_type=note.content_type,
            left_s=left_s,
            attempt=item.attempt,
            large=note.large,
            reply_from=item.saying.end if item.saying is not None else None,
        )

    def answered(self, item: Incoming, body: bytes, content_type: str) -> None:
        assert item.note is not None
        if item.saying is not None:
            assert not body, "a stream is said before it is answered"
            self._answer(item, Answer(b"", content_type, start=item.saying.end))
        else:
            self._answer(item, Answer(b"" if item.note.no_reply else body, content_type))

    def failed(self, item: Incoming, code: str, detail: str) -> None:
        self._answer(item, Answer(detail.encode(), "", code, outcome_of(code)))

    def dead(self, item: Incoming, detail: str) -> None:
        """A dead letter: its CI never survived it."""
        assert item.note is not None
        self.dead_letters += 1
        sender = self.label(item.key[0])
        self.env.notice(
            "dead_letter", id=item.key[1].hex(), ci=item.note.ci, sender=sender, detail=detail
        )
        said = f"It was given to the CI {item.losses} times and lost each time: {detail}"
        self._answer(item, Answer(said.encode(), "", "ci_failed", "indeterminate"))

    # --- the answer ------------------------------------------------------------------------------

    def _answer(self, item: Incoming, answer: Answer) -> None:
        """Its end here; the origin hears of it once that is durable."""
        self._count(item, -1)
        self._drop_body(item)
        item.stage, item.note, item.answer = Stage.ANSWERED, None, answer
        self._count(item, 1)
        gone: tuple[Row, ...] = ((TABLE, item.row_key, None), (LEASES, item.row_key, None))
        rows = (*gone, self._mark(item, Stage.ANSWERED))
        self._commits.save(rows, partial(self._carry, item))

    def _carry(self, item: Incoming, *, again: bool = False) -> None:
        if item.stage is not Stage.ANSWERED or self._items.get(item.row_key) is not item:
            return
        answer = item.answer
        assert answer is not None, "an answer is kept until it is confirmed"
        if item.key[0] == self.env.me:
            self._voice.answer_here(item.key, answer)
            return
        answer_id = self._clock.now_ms().to_bytes(6) + self.env.chance.randbytes(10)
        item.carried = AnswerFreight(self, item, answer_id)
        self._courier.carry(item.carried, again=again)

    def send_ahead(self, freight: AnswerFreight) -> int:
        """Send the first pieces of an answer that is too long for one; where the rest begins."""
        answer = freight.item.answer
        assert answer is not None
        at = 0
        while len(answer.body) - at > PIECE_SIZE:
            self._voice.piece(freight.item.key, at, answer.body[at : at + PIECE_SIZE])
            at += PIECE_SIZE
        return at

    def unsayable(self, item: Incoming, code: str, detail: str) -> None:
        """The answer cannot be packed, or never gets through."""
        if item.answer is not None and not item.answer.code:
            self._answer(item, Answer(detail.encode(), "", code, "indeterminate"))
        else:
            self.confirmed(item.key)

    def grant(self, key: Key, credit: int, have: int, again_from: int | None) -> None:
        """The origin says how far the reader of a stream is, and what it lacks."""
        item = self._items.get(b"".join(key))
        if item is None:
            return
        if item.saying is not None and not item.saying.grant(credit, have, again_from):
            detail = "That part of the reply is not kept any more."
            self._voice.nack(key, "ci_failed", detail, "indeterminate")
        elif item.stage is Stage.ANSWERED and again_from is not None:
            if item.carried is not None:
                self._courier.now(item.carried)
            elif key[0] == self.env.me:
                self._carry(item)

    def cancel(self, key: Key) -> None:
        """Its origin does not want the answer any more."""
        item = self._items.get(b"".join(key))
        if item is not None and item.stage in (Stage.WAITING, Stage.LEASED):
            self.turns.drop(item)
            self._answer(item, Answer(CANCELLED_DETAIL.encode(), "", "cancelled", "indeterminate"))

    def confirmed(self, key: Key) -> None:
        """The origin has the answer durably: all that is needed here is the mark."""
        item = self._items.get(b"".join(key))
        if item is None or item.stage is not Stage.ANSWERED:
            return
        if item.carried is not None:
            self._courier.arrived(item.carried)
        self._count(item, -1)
        self._silence(item)
        item.stage, item.answer, item.carried = Stage.DONE, None, None
        self._count(item, 1)
        if self._lows.get(key[0], 0) > time_of(key[1]):
            self._forget(item)
            self.env.save(MARKS, item.row_key, None)
        else:
            self._marks.setdefault(key[0], {})[item.row_key] = item
            self.env.save(*self._mark(item, Stage.DONE))

    # --- marks -----------------------------------------------------------------------------------

    def _mark(self, item: Incoming, stage: Stage) -> Row:
        answer = item.answer if item.answer is not None else Answer(b"", "")
        about = [answer.content_type, answer.code, answer.outcome]
        words = [int(stage), item.span.end_ms, item.ttl_ms, *about, item.trace]
        words += [answer.start] if answer.start else []
        return MARKS, item.row_key, pack_row(self.env, words, answer.body)

    def _raise_low(self, source: StackId, low_ms: int) -> tuple[Row, ...]:
        """The rows by which marks go that no copy can need any more."""
        if low_ms <= self._lows.get(source, 0):
            return ()
        self._lows[source] = low_ms
        rows: list[Row] = [(LOWS, source, pack_row(self.env, [low_ms]))]
        marks = self._marks.get(source, {})
        for row_key, item in list(marks.items()):
            if time_of(item.key[1]) >= low_ms:
                break
            self._forget(item)
            rows.append((MARKS, row_key, None))
        return tuple(rows)

    def _insert(self, item: Incoming) -> None:
        assert item.row_key not in self._items, "a message is taken once"
        self._items[item.row_key] = item
        self._known_of[item.key[0]] = self._known_of.get(item.key[0], 0) + 1
        self._count(item, 1)
        if item.stage is Stage.DONE:
            self._marks.setdefault(item.key[0], {})[item.row_key] = item
        self._ends.add(item.row_key, item.span, len(self._items))

    def _silence(self, item: Incoming) -> None:
        """What it said is not needed any more."""
        if item.saying is not None:
            item.saying.drop()
            item.saying = None

    def _forget(self, item: Incoming) -> None:
        self._silence(item)
        del self._items[item.row_key]
        self._count(item, -1)
        self._known_of[item.key[0]] -= 1
        if not self._known_of[item.key[0]]:
            del self._known_of[item.key[0]]
        marks = self._marks.get(item.key[0], {})
        marks.pop(item.row_key, None)
        if not marks:
            self._marks.pop(item.key[0], None)

    def _drop_body(self, item: Incoming) -> None:
        """Its large body is not needed any more; that of a message from here is its origin's."""
        if item.note is not None and item.note.large is not None and item.key[0] != self.env.me:
            self.env.emit(BodyAct("drop", item.note.large.name))

    def large_bodies(self) -> Iterator[tuple[StackId, Large]]:
        """Those that wait for their CIs, with where they came from."""
        notes = ((item.key[0], item.note) for item in self._items.values())
        return ((at, note.large) for at, note in notes if note is not None and note.large)

    def _count(self, item: Incoming, by: int) -> None:
        self._open += by * (item.note is not None)
        self._unconfirmed += by * (item.stage is Stage.ANSWERED)
        self._bytes += by * item.size
        assert self._open >= 0 and self._bytes >= 0 and self._unconfirmed >= 0

    # --- time ------------------------------------------------------------------------------------

    def _span_of(self, row_key: bytes) -> Span | None:
        item = self._items.get(row_key)
        return item.span if item is not None else None

    def answer_left_s(self, item: Incoming) -> float:
        """How long an answer is worth carrying: its origin waits a little longer than its CI may
        take, since the message was on its way first."""
        return self.left_s(item) + self.env.settings.receipt_wait_s

    def _expire(self, row_key: bytes) -> None:
        """Its time is over; an hour later it is not even known any more."""
        item = self._items[row_key]
        if item.over:
            if item.carried is not None:
                self._courier.drop(item.carried)
            self._forget(item)
            self.env.save(MARKS, row_key, None)
            return
        keep_s = self.env.settings.dedup_keep_s
        item.over = True
        item.span = Span(self.env, item.span.end_ms + int(keep_s * 1000.0), keep_s)
        self._ends.add(row_key, item.span, len(self._items))
        if item.stage in (Stage.WAITING, Stage.LEASED):
            certain = item.stage is Stage.WAITING and not item.attempt
            self.turns.drop(item)
            outcome = "released" if certain else "indeterminate"
            self._answer(item, Answer(LATE_DETAIL.encode(), "", "expired", outcome))


def _are_numbers(words: Words, count: int) -> bool:
    return len(words) == count and all(isinstance(word, int) for word in words)
