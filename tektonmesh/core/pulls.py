"""Large bodies at their destination: asked for part by part, checked, and whole in a file.

A body is pulled from when its message is known here until it is whole: first its sums, which must
have the hash that the message names, then each chunk, which must have its own. A part that does
not come is asked for again, over whatever way there is, and what lies in the file from before (also
from before a restart) is checked and kept. Only when the file is durable does the message go on
(`inbox`). The origin's word that there is no such body any more ends it, and so does time. How fast
is `pullrate`'s to say; what one other stack may have here is decided here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tektonmesh.core.effects import BodyAct
from tektonmesh.core.envelope import Envelope, Kind
from tektonmesh.core.events import BodyDone
from tektonmesh.core.forwarding import Forwarding
from tektonmesh.core.large import (
    CHUNK_SIZE,
    SIZE_MAX,
    SUM_SIZE,
    Large,
    chunks_of,
    part_size,
    root_of,
    sum_of,
    sums_size,
)
from tektonmesh.core.machine import Env
from tektonmesh.core.offers import PARTS_MAX
from tektonmesh.core.pullrate import UNIT, PullRate
from tektonmesh.core.sealing import Sealer, bytes_of, number_of
from tektonmesh.core.types import StackId
from tektonmesh.errors import DeliveryError, LocalError, RemoteError

PULLS_MAX = 64
PULLS_PER_STACK = 16
SHARE = 4
"""One origin gets so much less than all: a quarter of the room for bodies."""

SILENCE_MIN_S = 0.3
SILENCE_MAX_S = 10.0
"""After this, and ever longer, all that was asked for is asked for again. Guesses."""

IDLE_S = 600.0
"""A body of which nothing comes for so long gives up its place; its message may come again."""

BAD_PARTS_MAX = 8
"""Parts in a row that do not have their hash before the origin's word counts for nothing."""

PULL_WITHIN_S = 10.0

AGAIN = -1.0
"""Which question a part answers is not known then, and so not how long it took (Karn, 1987)."""

Key = tuple[StackId, bytes]

Part = tuple[int, int]
"""Offset, and as how large a part it is asked for."""


class Pull:
    """One body on its way here. `asked` says of each part on its way (by offset) as how large a one
    it was asked for and when (`AGAIN` if it was asked for before), `left` are the parts that are to
    be asked for, last first, `pieces` those of chunks that are not whole yet."""

    __slots__ = (
        *(
            "again",
            "asked",
            "bad",
            "failed",
            "heard_at",
            "key",
            "large",
            "left",
            "pause_s",
            "pieces",
            "rate",
        ),
        *("state", "sums", "until", "writing"),
    )

    def __init__(self, key: Key, large: Large, until: float, now: float) -> None:
        self.key = key
        self.large = large
        self.until = until
        self.state = "sums"
        self.heard_at = now
        self.sums = b""
        self.left: list[Part] = []
        self.asked: dict[int, tuple[int, float]] = {}
        self.pieces: dict[int, dict[int, bytes]] = {}
        self.writing: dict[int, None] = {}
        self.rate = PullRate(now)
        self.pause_s = SILENCE_MIN_S
        self.bad = 0
        self.again: Callable[[], None] = lambda: None
        self.failed: Callable[[str, str], None] = lambda _code, _detail: None

    @property
    def lacking_bytes(self) -> int:
        """Before the file is open, when what lies there is not known: all."""
        if self.state not in ("body", "sync"):
            return self.large.size
        asked = sum(part for part, _at in self.asked.values())
        # The last part of a body is asked for in full and may be shorter.
        lacking = asked + sum(part for _at, part in self.left) + CHUNK_SIZE * len(self.writing)
        return min(lacking, self.large.size)


class Pulls:
    """The bodies that one node is getting."""

    def __init__(self, env: Env, sealer: Sealer, forwarding: Forwarding) -> None:
        self.env = env
        self.held_by: Callable[[StackId], int] = lambda _stack: 0
        """Bytes of large bodies of that stack that are here already."""
        self._sealer = sealer
        self._forwarding = forwarding
        self._pulls: dict[str, Pull] = {}
        self._whole: dict[str, None] = {}
        forwarding.receive(Kind.PART, self._on_part)

    def __len__(self) -> int:
        return len(self._pulls)

    @property
    def lacking_bytes(self) -> int:
        """Bytes of the bodies on their way that are not in their files yet."""
        return sum(pull.lacking_bytes for pull in self._pulls.values())

    @property
    def names(self) -> list[str]:
        """The files that are being filled."""
        return list(self._pulls)

    def is_whole(self, large: Large) -> bool:
        """Whether it has just become whole."""
        return large.name in self._whole

    # --- beginning and end -----------------------------------------------------------------------

    def bring(
        self,
        key: Key,
        large: Large,
        left_s: float,
        again: Callable[[], None],
        failed: Callable[[str, str], None],
    ) -> None:
        """Get a body for a message that is here; `again` is called when it is whole, `failed` with
        a code and its reason if it never will be. Asked once more, the origin lives: what is late
        is asked for at once.

        Raises DeliveryError `busy` or `too_large`.
        """
        pull = self._pulls.get(large.name)
        if pull is not None:
            if pull.pause_s > SILENCE_MIN_S:
                self._ask_again(pull)
            return
        self._check_room(key[0], large)
        pull = Pull(key, large, self.env.after(left_s), self.env.now)
        pull.again, pull.failed = again, failed
        self._pulls[large.name] = pull
        sums = range(large.size, large.size + sums_size(large.size), CHUNK_SIZE)
        pull.left = [(offset, CHUNK_SIZE) for offset in reversed(sums)]
        self._ask(pull)

    def cancel(self, key: Key) -> None:
        """Nobody wants that body any more."""
        pull = self._find(key)
        if pull is not None:
            self._drop(pull)

    def _check_room(self, stack: StackId, large: Large) -> None:
        settings = self.env.settings
        if not 0 < large.size <= min(settings.large_body_max, SIZE_MAX):
            limit = settings.large_body_max
            raise DeliveryError(f"A body has at most {limit} bytes here.", code="too_large")
        theirs = [pull.large.size for pull in self._pulls.values() if pull.key[0] == stack]
        held = sum(theirs) + self.held_by(stack) + large.size
        over = held > max(settings.large_bodies_bytes // SHARE, settings.large_body_max)
        if over or len(theirs) >= PULLS_PER_STACK or len(self._pulls) >= PULLS_MAX:
            raise DeliveryError("Too many large bodies wait on this stack.", code="busy")

    def _drop(self, pull: Pull, *, keep: bool = False) -> None:
        del self._pulls[pull.large.name]
        self.env.deadlines.drop(("pull", pull.large.name))
        if not keep:
            self.env.emit(BodyAct("drop", pull.large.name))

    def _fail(self, pull: Pull, code: str, detail: str) -> None:
        self._drop(pull)
        pull.failed(code, detail)

    # --- asking ----------------------------------------------------------------------------------

    def _ask(self, pull: Pull) -> None:
        """Ask for what may be on its way now."""
        now, wanted = self.env.now, []
        on_way = sum(part for part, _at in pull.asked.values()) + CHUNK_SIZE * len(pull.writing)
        while pull.left and (on_way + pull.rate.part <= pull.rate.window or not on_way):
            offset, part = pull.left.pop()
            if part > pull.rate.part and offset < pull.large.size:
                end = min(offset + part, pull.large.size)
                smaller = range(offset, end, pull.rate.part)
                pull.left += [(at, pull.rate.part) for at in reversed(smaller)]
                continue
            pull.asked[offset] = (part, now)
            wanted.append((offset, part))
            on_way += part
        self._say(pull, wanted)
        self._watch(pull)

    def _say(self, pull: Pull, wanted: list[Part]) -> None:
        for size in (UNIT, CHUNK_SIZE):
            offsets = [offset for offset, part in wanted if part == size]
            if not offsets:
                continue
            body = {"at": offsets[:PARTS_MAX], "n": size}
            stack, msg_id = pull.key
            try:
                envelope = self._sealer.seal(
                    Kind.PULL, stack, body, reply_to=msg_id, ttl_s=PULL_WITHIN_S
                )
            except DeliveryError:
                return
            self._forwarding.send(envelope)

    def _watch(self, pull: Pull) -> None:
        """Look again if nothing comes until then."""
        wait_s = self.env.jitter(pull.pause_s)
        instant = min(self.env.after(wait_s), pull.until)
        name = pull.large.name
        self.env.deadlines.set(("pull", name), instant, partial(self._late, pull))

    def _late(self, pull: Pull) -> None:
        if self.env.now >= pull.until:
            self._fail(pull, "expired", "Its time was over before its body was here.")
            return
        if self.env.now - pull.heard_at > IDLE_S:
            self._drop(pull, keep=True)
            return
        pull.pause_s = min(2.0 * pull.pause_s, SILENCE_MAX_S)
        if pull.asked:
            pull.rate.silent()
            self._ask_again(pull)
        else:
            self._watch(pull)

    def _ask_again(self, pull: Pull) -> None:
        """What was asked for is asked for once more."""
        for offset, (part, _at) in pull.asked.items():
            pull.asked[offset] = (part, AGAIN)
        self._say(pull, [(offset, part) for offset, (part, _at) in sorted(pull.asked.items())])
        self._watch(pull)

    def graph_changed(self) -> None:
        """Ways broke or opened: what is late may have been lost."""
        for pull in list(self._pulls.values()):
            if pull.pause_s > SILENCE_MIN_S:
                pull.pause_s = SILENCE_MIN_S
                self._ask_again(pull)

    # --- what comes ------------------------------------------------------------------------------

    def _on_part(self, envelope: Envelope) -> str:
        header = envelope.header
        pull = self._find((header.source, header.reply_to))
        if pull is None:
            return ""
        try:
            body = self._sealer.open(envelope)
        except LocalError:
            return ""
        except RemoteError as error:
            self._sealer.refusals.note(header.source, error.detail)
            return ""
        if body.get("gone") is True:
            self._drop(pull)  # its message has ended there, and comes no more
            return ""
        offset, data = number_of(body, "off", SIZE_MAX), bytes_of(body, "data")
        asked = pull.asked.pop(offset, None)
        if asked is None:
            return ""  # a copy of what is here, or of what is asked for again
        part, asked_at = asked
        pull.pause_s, pull.heard_at = SILENCE_MIN_S, self.env.now
        if asked_at != AGAIN:
            took_s = self.env.now - asked_at
            pull.rate.came(part, took_s, self.env.now)
            pull.pause_s = max(SILENCE_MIN_S, 4.0 * took_s)
        if len(data) != part_size(pull.large.size, offset, part):
            self._bad(pull, offset, part)
        elif offset >= pull.large.size:
            self._take_sums(pull, offset, data)
        else:
            self._take_piece(pull, offset, data)
        return ""

    def _find(self, key: Key) -> Pull | None:
        return next((pull for pull in self._pulls.values() if pull.key == key), None)

    def _bad(self, pull: Pull, offset: int, part: int = CHUNK_SIZE) -> None:
        pull.bad += 1
        if pull.bad > BAD_PARTS_MAX:
            self._fail(pull, "protocol", "The body is not the one that its message names.")
            return
        pull.left.append((offset, part))
        self._ask(pull)

    def _take_sums(self, pull: Pull, offset: int, data: bytes) -> None:
        """In order: there are few of them."""
        size = pull.large.size
        if offset - size != len(pull.sums):
            pull.left.append((offset, CHUNK_SIZE))
        else:
            pull.sums += data
        if len(pull.sums) < sums_size(size):
            self._ask(pull)
        elif root_of(size, pull.sums) != pull.large.root:
            self._fail(pull, "protocol", "The body is not the one that its message names.")
        else:
            pull.state = "open"
            self.env.emit(BodyAct("open", pull.large.name, size=size, data=pull.sums))
            self._watch(pull)

    def _take_piece(self, pull: Pull, offset: int, data: bytes) -> None:
        """A chunk, or what is put together with others to be one."""
        start = offset - offset % CHUNK_SIZE
        size = part_size(pull.large.size, start)
        if len(data) == size:
            self._take_chunk(pull, start, data)
            return
        pieces = pull.pieces.setdefault(start, {})
        pieces[offset] = data
        if sum(len(piece) for piece in pieces.values()) < size:
            self._ask(pull)
            return
        del pull.pieces[start]
        self._take_chunk(pull, start, b"".join(piece for _at, piece in sorted(pieces.items())))

    def _take_chunk(self, pull: Pull, offset: int, data: bytes) -> None:
        assert pull.state == "body", "no chunk is asked for before the file is open"
        at = offset // CHUNK_SIZE * SUM_SIZE
        if sum_of(data) != pull.sums[at : at + SUM_SIZE]:
            self._bad(pull, offset)
            return
        pull.bad = 0
        pull.writing[offset] = None
        self.env.emit(BodyAct("write", pull.large.name, offset, data=data))
        self._ask(pull)

    # --- the file --------------------------------------------------------------------------------

    def on_done(self, event: BodyDone) -> None:
        """The shell has done something about a file."""
        pull = self._pulls.get(event.name)
        if pull is None:
            return
        if event.code:
            self._drop(pull, keep=True)
            pull.failed(event.code, "The disk has no room for its body.")
        elif event.act == "open" and pull.state == "open":
            pull.state = "body"
            count = chunks_of(pull.large.size)
            have = event.data.ljust(count, b"\0")
            lacking = [at * CHUNK_SIZE for at in range(count) if not have[at]]
            pull.left = [(offset, CHUNK_SIZE) for offset in reversed(lacking)]
            self._go_on(pull)
        elif event.act == "write":
            pull.writing.pop(event.offset, None)
            self._go_on(pull)
        elif event.act == "sync" and pull.state == "sync":
            self._is_whole(pull)

    def _go_on(self, pull: Pull) -> None:
        if pull.left or pull.asked or pull.writing:
            self._ask(pull)
        elif pull.state == "body":
            pull.state = "sync"
            self.env.emit(BodyAct("sync", pull.large.name))
            self._watch(pull)

    def _is_whole(self, pull: Pull) -> None:
        assert not (pull.left or pull.asked or pull.pieces), "a whole body lacks nothing"
        self._drop(pull, keep=True)
        self._whole[pull.large.name] = None
        try:
            pull.again()
        finally:
            del self._whole[pull.large.name]
