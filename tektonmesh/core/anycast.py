"""Anycast: one message to whichever CI fits best, and to the next one if that cannot take it.

Candidates come from the replica. The score of one is the time until its answer could begin: the
cost of the path, and how long what is ahead of it there will take. Of the best four two are drawn
and the better gets the message (power of two choices, Mitzenmacher 2001): stacks that know the
same do not all run to the same CI. A conversation stays with its CI while that can be reached.

A message goes on to the next candidate only if the first has certainly not had it: by its own
stack's sealed word, or because nothing has left this stack yet. A relay's word is not enough, since
a relay could deliver and say that it did not; what the caller declared idempotent may be repeated.
Multicast to teams is `multicast`'s.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from tektonmesh.core.ci import key_of
from tektonmesh.core.directory import Directory, Listed
from tektonmesh.core.events import SendMessage
from tektonmesh.core.graph import Graph
from tektonmesh.core.ids import show_id
from tektonmesh.core.machine import Env
from tektonmesh.core.outcomes import Elsewhere, Outcomes, Question
from tektonmesh.core.paths import Paths
from tektonmesh.core.selectors import Selector
from tektonmesh.core.types import StackId, StackState
from tektonmesh.errors import DeliveryError, MeshError, PolicyError

BEST = 4
"""Among how many of the best two are drawn."""

TRIES_MAX = 8
"""Candidates one message goes to at most; a selector may fit thousands."""

CONVERSATIONS_MAX = 4096

FINAL = ("timeout", "cancelled", "leaving", "bad_request", "too_large")
"""Failures that another candidate would not mend."""

FINAL_HERE = "leaving"
"""Final only while it is this stack that leaves: then `_next` says so."""

Conversation = tuple[str, Selector, str]


class Choice(NamedTuple):
    """A candidate and its score in ms; the lower the better."""

    stack: StackId
    ci: str
    score: float


@dataclass(slots=True)
class Attempt:
    """One anycast message: what was asked, who is left, who was tried and said no."""

    command: SendMessage
    selector: Selector
    deadline: float
    left: list[Choice]
    tries: int = 0
    failures: list[dict[str, str]] = field(default_factory=list)


class Anycast:
    """Sends to one that fits by way of `hand_on`, which takes messages to a certain CI."""

    def __init__(
        self,
        env: Env,
        directory: Directory,
        *,
        graph: Graph,
        paths: Paths,
        outcomes: Outcomes,
        hand_on: Callable[[SendMessage], None],
    ) -> None:
        self.env = env
        self._directory = directory
        self._paths = paths
        self._graph = graph
        self._outcomes = outcomes
        self._hand_on = hand_on
        self._attempts: dict[int, Attempt] = {}
        self._sticky: OrderedDict[Conversation, tuple[StackId, str]] = OrderedDict()

    def __len__(self) -> int:
        """How many anycast messages are open."""
        return len(self._attempts)

    def send(self, command: SendMessage, selector: Selector) -> None:
        """Send to one CI that fits; its answer follows under the same ticket. A durable message
        (each with a large body is one) stays with the one it was accepted for, since that may
        answer after a restart of this stack.

        Raises DeliveryError `not_found` if none fits, `ci_offline` or
        `unreachable` if none that fits can be had now, and what sending to a single one raises.
        """
        left = self.choices(selector, command.sender)
        if not left:
            raise self._nobody(selector)
        if command.options.get("durable") or "large" in command.options:
            self._hand_on(self._aimed(command, self._draw(Attempt(command, selector, 0.0, left))))
            return
        settings = self.env.settings
        wanted_s = command.timeout_s if command.timeout_s > 0 else settings.request_timeout_s
        deadline = self.env.after(min(wanted_s, settings.request_timeout_max_s))
        attempt = Attempt(command, selector, deadline, left)
        assert command.ticket not in self._attempts, "a ticket is used once"
        self._attempts[command.ticket] = attempt
        self._outcomes.takers[command.ticket] = self
        try:
            error = self._next(attempt)
        except MeshError:
            self._close(attempt)
            raise
        if error is not None:
            self._close(attempt)
            raise self._told(attempt, error)

    def choices(self, selector: Selector, sender: str = "") -> list[Choice]:
        """Those that can be sent to now, best first; nobody is chosen for their own message."""
        choices = []
        asking = self.env.me, key_of(sender)
        for listed in self._directory.find(selector):
            score = self._score(listed)
            if score is not None and (listed.stack, listed.ci) != asking:
                choices.append(Choice(listed.stack, listed.ci, score))
        choices.sort(key=lambda choice: (choice.score, choice.stack, choice.ci))
        return choices

    def why_not(self, listed: Listed) -> str:
        """Why a CI that fits is no candidate now; empty if it is one."""
        if not listed.is_up:
            return "It takes no messages at present."
        if listed.stack == self.env.me:
            return ""
        if self._graph.state(listed.stack) != StackState.UP:
            return "Its stack cannot be reached."
        if self._graph.draining(listed.stack):
            return "Its stack is about to leave."
        return "" if self._paths.cost(listed.stack) is not None else "No path leads to its stack."

    def _score(self, listed: Listed) -> float | None:
        if self.why_not(listed):
            return None
        cost = self._paths.cost(listed.stack)
        assert cost is not None, "a candidate can be reached"
        return cost + self._outcomes.loads.wait_ms((listed.stack, listed.ci))

    def _nobody(self, selector: Selector) -> DeliveryError:
        fitting = self._directory.find(selector)
        if not fitting:
            return DeliveryError(
                f"No CI is known here that fits '{selector.shown()}'.",
                code="not_found",
                hint="`tektonmesh cis` lists what each one says of itself.",
            )
        why = self.why_not(fitting[0])
        code = "unreachable" if any(one.is_up for one in fitting) else "ci_offline"
        many = f"{len(fitting)} CIs fit" if len(fitting) > 1 else "One CI fits"
        detail = f"{many} '{selector.shown()}', and none can be sent to now. {why}"
        return DeliveryError(detail, code=code)

    # --- one after the other ---------------------------------------------------------------------

    def _next(self, attempt: Attempt) -> MeshError | None:
        """Hand the message to the next candidate; the error if none is left to take it."""
        error: MeshError | None = None
        while attempt.left and attempt.tries < TRIES_MAX and self.env.now < attempt.deadline:
            choice = self._draw(attempt)
            attempt.left.remove(choice)
            attempt.tries += 1
            left_s = attempt.deadline - self.env.now
            try:
                self._hand_on(replace(self._aimed(attempt.command, choice), timeout_s=left_s))
            except (DeliveryError, PolicyError) as failure:
                error = failure
                if failure.code.name in FINAL:
                    break
                self._note(attempt, choice.stack, choice.ci, failure)
                continue
            self._remember(attempt, choice)
            return None
        return error

    def _aimed(self, command: SendMessage, choice: Choice) -> SendMessage:
        local = choice.stack == self.env.me
        target = choice.ci if local else f"{choice.ci}@{show_id(choice.stack)}"
        return replace(command, target=target)

    def _draw(self, attempt: Attempt) -> Choice:
        """The one this conversation is with, else the better of two among the best."""
        held = self._sticky.get(self._conversation(attempt))
        for choice in attempt.left if held is not None else ():
            if (choice.stack, choice.ci) == held:
                return choice
        best = attempt.left[:BEST]
        if len(best) == 1:
            return best[0]
        first = self.env.chance.randrange(len(best))
        second = (first + 1 + self.env.chance.randrange(len(best) - 1)) % len(best)
        assert first != second
        return best[min(first, second)]

    def _conversation(self, attempt: Attempt) -> Conversation:
        command = attempt.command
        return command.sender, attempt.selector, str(command.options.get("conversation", ""))

    def _remember(self, attempt: Attempt, choice: Choice) -> None:
        key = self._conversation(attempt)
        if not key[2]:
            return
        self._sticky[key] = choice.stack, choice.ci
        self._sticky.move_to_end(key)
        while len(self._sticky) > CONVERSATIONS_MAX:
            self._sticky.popitem(last=False)

    def _note(self, attempt: Attempt, stack: StackId, ci: str, error: MeshError) -> None:
        shown = {"to": self._outcomes.address(ci, stack), "code": error.code.name}
        attempt.failures.append(shown)

    # --- what becomes of it ----------------------------------------------------------------------

    def answered(self, question: Question, result: dict[str, Any]) -> dict[str, Any] | None:
        """It has its answer, which also says whom it went to in vain."""
        attempt = self._attempts[question.ticket]
        self._close(attempt)
        return result | {"selector": attempt.selector.shown(), "tried": attempt.failures}

    def failed(
        self, question: Question, error: MeshError, elsewhere: Elsewhere
    ) -> MeshError | None:
        """It failed at one candidate; None if it is on its way to the next."""
        attempt = self._attempts[question.ticket]
        idempotent = bool(attempt.command.options.get("idempotent"))
        least = Elsewhere.IF_IDEMPOTENT if idempotent else Elsewhere.YES
        self._note(attempt, question.stack, question.ci, error)
        final = error.code.name in FINAL and error.code.name != FINAL_HERE
        if elsewhere >= least and not final and self._may_go_on(attempt):
            self.env.notice(
                "passed_on",
                selector=attempt.selector.shown(),
                ci=self._outcomes.address(question.ci, question.stack),
                code=error.code.name,
            )
            try:
                following = self._next(attempt)
            except MeshError as refused:
                following = refused
            if following is None:
                return None
            error = following
        self._close(attempt)
        return self._told(attempt, error)

    def _may_go_on(self, attempt: Attempt) -> bool:
        return bool(attempt.left) and attempt.tries < TRIES_MAX

    def _told(self, attempt: Attempt, error: MeshError) -> MeshError:
        """The last candidate's error, with who was tried."""
        error.data |= {"selector": attempt.selector.shown(), "tried": attempt.failures}
        return error

    def _close(self, attempt: Attempt) -> None:
        ticket = attempt.command.ticket
        if self._attempts.pop(ticket, None) is not None:
            del self._outcomes.takers[ticket]
