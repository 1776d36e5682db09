"""Multicast: one message to every CI of a team, with what became of it at each of them.

The body is locked once with a key of its own, and each member's stack gets that key under its own
seal; so the copies differ in a few hundred bytes and travel as one where they go the same way
(`core/spreading`). Each copy is a message of its own otherwise: repeated, acknowledged, refused and
answered by itself. The caller gets one answer when all members have theirs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from tektonmesh.core.ci import key_of
from tektonmesh.core.directory import Directory, Listed
from tektonmesh.core.effects import Answer
from tektonmesh.core.events import SendMessage
from tektonmesh.core.ids import show_id
from tektonmesh.core.machine import Env
from tektonmesh.core.outcomes import Elsewhere, Outcomes, Question
from tektonmesh.core.requests import Requests
from tektonmesh.core.sealing import Sealer
from tektonmesh.core.selectors import Selector
from tektonmesh.errors import DeliveryError, LocalError, MeshError

MEMBERS_MAX = 64

BODIES_MAX = 512 * 1024
"""Of all replies together: they reach the caller in one answer. What comes after is left out of
it, and its member's row says so."""


@dataclass(slots=True)
class Group:
    """One multicast message: its members' rows so far, by child ticket."""

    command: SendMessage
    selector: Selector
    msg_id: bytes
    started: float
    open: dict[int, Listed] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    size: int = 0


class Multicast:
    """Sends to teams. Child tickets count down from -1; callers' tickets are positive."""

    def __init__(
        self,
        env: Env,
        directory: Directory,
        *,
        outcomes: Outcomes,
        sealer: Sealer,
        requests: Requests,
    ) -> None:
        self.env = env
        self._directory = directory
        self._outcomes = outcomes
        self._sealer = sealer
        self._requests = requests
        self._groups: dict[int, Group] = {}
        self._of_child: dict[int, Group] = {}
        self._last = 0

    def __len__(self) -> int:
        """How many multicast messages are open."""
        return len(self._groups)

    def send(self, command: SendMessage, selector: Selector) -> None:
        """Send to every member; one answer follows with a row for each.

        Raises LocalError `bad_request` for a streamed reply or over `MEMBERS_MAX` members,
        DeliveryError `not_found` for a team without members.
        """
        if command.stream:
            raise LocalError("Replies of a team come together; they cannot be streamed.")
        if "large" in command.options:
            limit = self.env.settings.body_size_max
            raise LocalError(f"To a team a body has at most {limit} bytes.", code="too_large")
        if command.options.get("durable"):
            raise LocalError(
                "A team gets no durable message.",
                hint="Send without --no-wait, or to each member by name.",
            )
        asking = self.env.me, key_of(command.sender)
        members = [one for one in self._directory.find(selector) if (one.stack, one.ci) != asking]
        if not members:
            raise DeliveryError(f"No CI is known here in '{selector.shown()}'.", code="not_found")
        if len(members) > MEMBERS_MAX:
            raise LocalError(
                f"'{selector.shown()}' has {len(members)} members; at most {MEMBERS_MAX} get"
                " one message.",
                hint="Send to smaller teams.",
            )
        group = Group(command, selector, self._sealer.new_id(), self.env.now)
        assert command.ticket not in self._groups, "a ticket is used once"
        self._groups[command.ticket] = group
        for member in members:
            self._last -= 1
            group.open[self._last] = member
            self._of_child[self._last] = group
            self._outcomes.takers[self._last] = self
        self._start(group)

    def _start(self, group: Group) -> None:
        command = group.command
        remote = [one for one in group.open.values() if one.stack != self.env.me]
        shared = None
        if len(remote) > 1:
            shared = self._sealer.share(group.msg_id, command.body, command.content_type)
        # A member may fail while the next is sent to; the rows are complete only after the last.
        children = list(group.open.items())
        for ticket, member in children:
            local = member.stack == self.env.me
            target = member.ci if local else f"{member.ci}@{show_id(member.stack)}"
            options = command.options if local else command.options | {"shared": shared}
            child = replace(command, ticket=ticket, target=target, options=options)
            try:
                self._requests.send(child)
            except MeshError as error:
                self._row(ticket, self._failure(member, error))
        self._end_if_complete(group)

    def cancel(self, ticket: int) -> bool:
        """Whether `ticket` was a multicast: then nobody waits for its members any more."""
        group = self._groups.get(ticket)
        for child in list(group.open) if group is not None else ():
            self._requests.cancel(child)
        return group is not None

    # --- what becomes of the members -------------------------------------------------------------

    def answered(self, question: Question, result: dict[str, Any]) -> dict[str, Any] | None:
        """A member has answered, or (one way) its stack has the message."""
        group = self._of_child[question.ticket]
        row = {"ok": True} | result
        size = len(row.get("body", b""))
        if group.size + size > BODIES_MAX:
            del row["body"]
            row["omitted"] = size
        else:
            group.size += size
        self._row(question.ticket, row)
        self._end_if_complete(group)
        return None

    def failed(
        self, question: Question, error: MeshError, _elsewhere: Elsewhere
    ) -> MeshError | None:
        """A member could not be had."""
        group = self._of_child[question.ticket]
        self._row(question.ticket, self._failure(group.open[question.ticket], error))
        self._end_if_complete(group)
        return None

    def _failure(self, member: Listed, error: MeshError) -> dict[str, Any]:
        to = self._outcomes.address(member.ci, member.stack)
        return {"ok": False, "to": to, "error": error.as_dict()}

    def _row(self, ticket: int, row: dict[str, Any]) -> None:
        group = self._of_child.pop(ticket)
        del group.open[ticket], self._outcomes.takers[ticket]
        group.rows.append(row)

    def _end_if_complete(self, group: Group) -> None:
        ticket = group.command.ticket
        if group.open or self._groups.pop(ticket, None) is None:
            return
        rows = sorted(group.rows, key=lambda row: str(row["to"]))
        answered = sum(1 for row in rows if row["ok"])
        result: dict[str, Any] = {
            "id": group.msg_id.hex(),
            "to": group.selector.shown(),
            "from": self._outcomes.address(group.command.sender, self.env.me),
            "ms": round((self.env.now - group.started) * 1000.0, 3),
            "answered": answered,
            "failed": len(rows) - answered,
            "targets": rows,
        }
        self.env.emit(Answer(ticket, result))
