"""Witnesses: what other stacks remember of the end of this stack's audit log, and we of theirs.

A chain shows that its entries fit one another, not that it is the one that was written: whoever
holds the disk can put an older copy in its place. So the newest signed end stands in the stack's
own record, every stack keeps the highest that it has seen of each other, and says so when asked,
sealed for the owner. A stack whose record goes back is told to people here, since it may be a
restored backup or a forged log.
"""

from __future__ import annotations

from typing import Any

from tektonmesh.core.deliveries import Deliveries
from tektonmesh.core.effects import Answer
from tektonmesh.core.envelope import NO_ID, Envelope, Kind
from tektonmesh.core.events import AskWitnesses
from tektonmesh.core.forwarding import Forwarding
from tektonmesh.core.frozen import frozen
from tektonmesh.core.ids import show_id
from tektonmesh.core.machine import Env
from tektonmesh.core.replica import Change, Replica
from tektonmesh.core.types import ID_SIZE, Saved, StackId
from tektonmesh.errors import LocalError, RemoteError

TABLE = "witness"
OWNERS_MAX = 16_384
ASKED_MAX = 16
"""More witnesses would not be more certain; they would have to lie together already."""
ANSWER_S = 5.0
HASH_SIZE = 32
NUMBER_MAX = 2**63 - 1


@frozen
class Seen:
    """The end of a log as its owner's record showed it: how many entries, the hash of the last, and
    when it was first seen here (ms of mesh time)."""

    number: int
    hash: bytes
    at_ms: int


class _Ask:
    """A question to some witnesses that is open."""

    def __init__(self, asked: dict[StackId, None]) -> None:
        self.asked = asked
        self.answers: list[dict[str, Any]] = []


class Witness:
    """What is remembered of every other stack, and the questions to them about us."""

    def __init__(
        self,
        env: Env,
        replica: Replica,
        deliveries: Deliveries,
        forwarding: Forwarding,
        saved: Saved,
    ) -> None:
        self.env = env
        self._replica = replica
        self._deliveries = deliveries
        self._seen: dict[StackId, Seen] = {}
        self._asks: dict[int, _Ask] = {}
        for (table, key), packed in sorted(saved.items()):
            if table == TABLE and len(key) == ID_SIZE and (seen := _read(env, packed)) is not None:
                self._seen[key] = seen
        forwarding.receive(Kind.WITNESS, self._on_witness)

    # --- what is seen ----------------------------------------------------------------------------

    def seen(self, owner: StackId) -> Seen | None:
        return self._seen.get(owner)

    def on_change(self, change: Change) -> None:
        """The record of another stack shows where its log ends."""
        told = change.kind == "new" or "stack/self" in change.keys
        held = self._replica.owners.get(change.owner) if told else None
        if held is None or change.owner == self.env.me:
            return
        end = (held.value("stack/self") or {}).get("audit")
        if not isinstance(end, dict) or not _is_end(end.get("n"), end.get("h")):
            return
        before = self._seen.get(change.owner)
        if before is None or end["n"] > before.number:
            self._keep(change.owner, Seen(end["n"], end["h"], self._replica.clock.now_ms()))
        elif end["n"] < before.number or end["h"] != before.hash:
            self.env.notice("audit_went_back", id=show_id(change.owner), seen=before.number)

    def _keep(self, owner: StackId, seen: Seen) -> None:
        if owner not in self._seen and len(self._seen) >= OWNERS_MAX:
            return
        self._seen[owner] = seen
        row = [seen.number, seen.hash, seen.at_ms]
        self.env.save(TABLE, owner, self.env.codec.pack(row))

    # --- questions -------------------------------------------------------------------------------

    def ask(self, command: AskWitnesses) -> None:
        """Ask some stacks for what they have seen of us; the answer follows within `ANSWER_S`."""
        others = [one for one in self._replica.owners if one != self.env.me]
        live = [one for one in others if self._replica.live(one)][:ASKED_MAX]
        ask = _Ask(dict.fromkeys(live))
        self._asks[command.ticket] = ask
        for one in live:
            self._deliveries.posts.send(Kind.WITNESS, one, NO_ID, {}, within_s=ANSWER_S)
        instant = self.env.after(ANSWER_S if live else 0.0)
        finish = ("witness", command.ticket)
        self.env.deadlines.set(finish, instant, lambda: self._finish(command.ticket))

    def _on_witness(self, envelope: Envelope) -> str:
        source = envelope.header.source
        try:
            body = self._deliveries.sealer.open(envelope)
        except (LocalError, RemoteError):
            return ""
        if envelope.header.reply_to == NO_ID:
            seen = self._seen.get(source)
            told = {} if seen is None else {"n": seen.number, "h": seen.hash, "at": seen.at_ms}
            msg_id = envelope.header.msg_id
            self._deliveries.posts.send(Kind.WITNESS, source, msg_id, told, within_s=ANSWER_S)
            return ""
        for ticket, ask in list(self._asks.items()):
            if source in ask.asked:
                self._take(ask, source, body)
            if not ask.asked:
                self._finish(ticket)
        return ""

    def _take(self, ask: _Ask, source: StackId, body: dict[str, Any]) -> None:
        del ask.asked[source]
        if _is_end(body.get("n"), body.get("h")):
            shown = {"stack": self._deliveries.outcomes.address("", source)}
            ask.answers.append(shown | {"n": body["n"], "hash": body["h"].hex()})

    def _finish(self, ticket: int) -> None:
        ask = self._asks.pop(ticket)
        self.env.deadlines.drop(("witness", ticket))
        answers = sorted(ask.answers, key=lambda answer: str(answer["stack"]))
        self.env.emit(Answer(ticket, {"witnesses": answers, "silent": len(ask.asked)}))


def _is_end(number: Any, digest: Any) -> bool:
    counted = type(number) is int and 0 < number <= NUMBER_MAX
    return counted and isinstance(digest, bytes) and len(digest) == HASH_SIZE


def _read(env: Env, packed: bytes) -> Seen | None:
    """A row; a damaged one remembers nothing."""
    try:
        row = env.codec.unpack(packed)
    except RemoteError:
        return None
    whole = isinstance(row, list) and len(row) == 3 and type(row[2]) is int
    return Seen(row[0], row[1], row[2]) if whole and _is_end(row[0], row[1]) else None
