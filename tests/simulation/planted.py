"""Faults that are planted into the production code, each with the world that shows it.

Patching the core is the purpose here; everywhere else it is not done. A fault is something that
could well be written by mistake. `test_planted_bugs` runs them one at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import pytest

from tektonmesh.core import intake, shelf
from tektonmesh.core.antientropy import AntiEntropy
from tektonmesh.core.commits import Commits
from tektonmesh.core.dedup import Dedup
from tektonmesh.core.dissemination import Dissemination
from tektonmesh.core.forwarding import Forwarding
from tektonmesh.core.graph import Graph
from tektonmesh.core.inbox import Inbox
from tektonmesh.core.incoming import Stage
from tektonmesh.core.intake import Intake
from tektonmesh.core.leases import NO_FLOOR, Leases
from tektonmesh.core.meshtime import SLACK_MS, MeshTime
from tektonmesh.core.messages import Ping
from tektonmesh.core.neighbours import Neighbours
from tektonmesh.core.outcomes import Outcomes
from tektonmesh.core.owner import Owner
from tektonmesh.core.parking import Parking
from tektonmesh.core.proofs import Proofs
from tektonmesh.core.quotas import Quotas
from tektonmesh.core.readers import Readers
from tektonmesh.core.record import RecordSet
from tektonmesh.core.replica import Replica
from tektonmesh.core.saying import Sayings
from tektonmesh.errors import RemoteError

Plant = Callable[[pytest.MonkeyPatch], None]


def skip_the_signature(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(intake, "signed_by", lambda *_: True)


def skip_the_root_check(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RecordSet, "matches", lambda *_: True)


def accept_an_equal_version(patch: pytest.MonkeyPatch) -> None:
    """The newer arrival wins where the version is the same."""
    patch.setattr(intake, "beats", lambda held, head, _signed: held.version > head.version)
    patch.setattr(intake, "_contradicts", lambda *_: False)


def accept_any_version(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(intake, "beats", lambda *_: False)


def forget_the_two_way_check(patch: pytest.MonkeyPatch) -> None:
    """What one end says of an edge is enough."""
    honest = Graph._rejoin

    def rejoin(self: Graph, owner: bytes) -> None:
        honest(self, owner)
        for one, claims in self._claims.items():
            for other, claim in claims.items():
                if owner in (one, other) and self._env.me not in (one, other):
                    self._join(one, other, claim, claim)

    patch.setattr(Graph, "_rejoin", rejoin)


def drop_the_epoch_bump(patch: pytest.MonkeyPatch) -> None:
    """A restart goes on under the epoch of before, with versions from 1."""
    honest = Owner._raise_epoch

    def raise_epoch(self: Owner, above: int) -> None:
        before = self._epoch_saved
        honest(self, above)
        if before and not above:
            self._epoch = before

    patch.setattr(Owner, "_raise_epoch", raise_epoch)


def never_expire(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Leases, "_expire", lambda *_: None)


def never_repair(patch: pytest.MonkeyPatch) -> None:
    """Some news are lost on the way to the links, and nobody compares."""
    honest = Dissemination._queue

    def queue(self: Dissemination, link: int, state: Any, owner: bytes) -> None:
        if self.env.chance.random() < 0.8:
            honest(self, link, state, owner)

    patch.setattr(Dissemination, "_queue", queue)
    patch.setattr(AntiEntropy, "on_fingerprint", lambda *_: None)
    patch.setattr(AntiEntropy, "_half", lambda *_: inf)


def deliver_repeats(patch: pytest.MonkeyPatch) -> None:
    honest = Dedup.add

    def add(self: Dedup, key: Any, left_s: float) -> Any:
        self._rows.pop(key, None)
        return honest(self, key, left_s)

    patch.setattr(Dedup, "add", add)
    patch.setattr(Dedup, "get", lambda *_: None)


def lose_what_a_dead_link_held(patch: pytest.MonkeyPatch) -> None:
    """An envelope whose link dies is neither tried elsewhere nor given back, nor let go."""
    patch.setattr(Forwarding, "_try_next", lambda *_args, **_kw: None)


def blame_the_messenger(patch: pytest.MonkeyPatch) -> None:
    """What is merely old counts as a fault of who sent it."""
    honest = Intake.check

    def check(self: Intake, head: Any, delta: Any) -> Any:
        found = honest(self, head, delta)
        if found is intake.Applied.STALE:
            raise RemoteError("This is old.")
        return found

    patch.setattr(Intake, "check", check)


def forget_the_proofs(patch: pytest.MonkeyPatch) -> None:
    """Nobody is shown a proof: who saw one head only believes the owner."""
    patch.setattr(Proofs, "_spread", lambda *_: None)
    patch.setattr(Replica, "proof_for", lambda *_: None)


def never_step(patch: pytest.MonkeyPatch) -> None:
    """A machine that slept for hours slews for ten times as long."""
    patch.setattr(MeshTime, "_step", lambda *_: None)


def take_heads_from_the_future(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MeshTime, "fresh", lambda self, hlc, s: self.end_ms(hlc, s) >= self.now_ms())


def take_heads_of_any_age(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MeshTime, "fresh", lambda self, hlc, _s: hlc <= self.now_ms() + SLACK_MS)


def take_back_who_ended(patch: pytest.MonkeyPatch) -> None:
    """Once a lease is over any head may begin it anew, however old it is."""
    honest = intake.beats
    patch.setattr(intake, "beats", lambda held, *rest: not held.expired and honest(held, *rest))
    patch.setattr(MeshTime, "fresh", lambda *_: True)


def end_leases_early(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MeshTime, "end_ms", staticmethod(lambda hlc, lease_s: hlc + lease_s * 500))


def end_leases_late(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MeshTime, "end_ms", staticmethod(lambda hlc, lease_s: hlc + lease_s * 4000))


def forget_who_left_at_once(patch: pytest.MonkeyPatch) -> None:
    """The head by which a stack left is dropped, and no floor is kept of it."""
    honest = Leases._end_ms
    patch.setattr(
        Leases, "_end_ms", lambda self, held: held.head.hlc if held.left else honest(self, held)
    )
    patch.setattr(Leases, "floor", lambda *_: NO_FLOOR)


def refresh_nobody(patch: pytest.MonkeyPatch) -> None:
    """Heads that only refresh are kept to ourselves, and nobody asks where they are."""
    patch.setattr(Dissemination, "_refreshed", lambda *_: None)
    patch.setattr(AntiEntropy, "_half", lambda *_: inf)


def expire_before_the_clock_is_confirmed(patch: pytest.MonkeyPatch) -> None:
    """A node that starts with a wrong clock ends everybody it remembers."""
    patch.setattr(MeshTime, "doubt_s", property(lambda self: 60.0 if self.alarm else 0.0))


def believe_the_first_clock(patch: pytest.MonkeyPatch) -> None:
    """The first peer that tells its time sets ours, and is passed on as ours."""
    patch.setattr(MeshTime, "confirmed", property(lambda self: bool(self._votes)))


def remove_the_clone_fence(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Owner, "_is_newer_clone", lambda *_: False)


def write_no_heads(patch: pytest.MonkeyPatch) -> None:
    """What was learned of others is gone after a restart."""
    patch.setattr(shelf, "head_row", lambda _env, held: ("head", held.head.stack_id, None))


def change_records_before_the_check(patch: pytest.MonkeyPatch) -> None:
    """A delta is not taken whole or not at all: what is refused has changed the records."""
    honest = Intake._records_for

    def records_for(self: Intake, delta: Any, held: Any) -> Any:
        records = honest(self, delta, held)
        if delta.base is not None and held is not None:
            held.record_set = records
        return records

    patch.setattr(Intake, "_records_for", records_for)


def trust_changes_over_a_base(patch: pytest.MonkeyPatch) -> None:
    """Only snapshots are compared with the root."""
    honest = Intake._check_records

    def check(self: Intake, head: Any, delta: Any, keys: Any, held: Any) -> Any:
        if delta.base is not None and held is not None and held.base == delta.base:
            return intake.Passed(head, delta.head, keys, self._records_for(delta, held))
        return honest(self, head, delta, keys, held)

    patch.setattr(Intake, "_check_records", check)


def take_changes_over_any_base(patch: pytest.MonkeyPatch) -> None:
    """Changes are put upon whatever is held."""

    def check(self: Intake, head: Any, delta: Any, keys: Any, held: Any) -> Any:
        return intake.Passed(head, delta.head, keys, self._records_for(delta, held))

    patch.setattr(Intake, "_check_records", check)


def keep_asking_a_dead_link(patch: pytest.MonkeyPatch) -> None:
    """What a link was asked for when it died is asked of nobody else."""
    patch.setattr(AntiEntropy, "_give_back", lambda *_: None)


def accuse_without_a_question(patch: pytest.MonkeyPatch) -> None:
    """Pings are not sent; their answers are missed all the same."""
    honest = Neighbours._send

    def send(self: Neighbours, neighbour: Any, message: Any) -> None:
        if not isinstance(message, Ping):
            honest(self, neighbour, message)

    patch.setattr(Neighbours, "_send", send)


def wait_a_minute_for_a_restart(patch: pytest.MonkeyPatch) -> None:
    """A stack whose links have ended counts as there for a minute."""
    honest = Neighbours._open_grace

    def open_grace(self: Neighbours, stack_id: bytes) -> None:
        honest(self, stack_id)
        self._lost[stack_id] = due = self._env.after(60.0)
        key = ("neighbour-lost", stack_id)
        self._env.deadlines.set(key, due, lambda: self._grace_over(stack_id))

    patch.setattr(Neighbours, "_open_grace", open_grace)


def hear_an_owner_as_often_as_it_likes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Quotas, "on_change", lambda *_: None)


def call_every_refresh_a_change(patch: pytest.MonkeyPatch) -> None:
    honest = Owner._publish

    def publish(self: Owner) -> None:
        self._content_ver += 1
        honest(self)

    patch.setattr(Owner, "_publish", publish)


def answer_twice(patch: pytest.MonkeyPatch) -> None:
    honest = Outcomes.answered

    def answered(self: Outcomes, *arguments: Any) -> None:
        honest(self, *arguments)
        honest(self, *arguments)

    patch.setattr(Outcomes, "answered", answered)


def promise_before_the_disk_has_it(patch: pytest.MonkeyPatch) -> None:
    honest = Commits.save

    def save(self: Commits, rows: Any, then: Any, failed: Any = None) -> None:
        honest(self, rows, lambda: None, failed)
        then()

    patch.setattr(Commits, "save", save)


def write_no_marks(patch: pytest.MonkeyPatch) -> None:
    """After a restart the destination does not know what it has answered."""
    honest = Inbox._mark

    def mark(self: Inbox, item: Any, stage: Any) -> Any:
        table, key, value = honest(self, item, stage)
        return table, key, None if stage is Stage.ANSWERED else value

    patch.setattr(Inbox, "_mark", mark)


def keep_what_was_brought(patch: pytest.MonkeyPatch) -> None:
    """A parker does not let go of what its destination has."""
    patch.setattr(Parking, "let_go", lambda *_: None)


def forget_what_was_said(patch: pytest.MonkeyPatch) -> None:
    """After a restart the pieces of a reply that resumes are not taken back."""
    patch.setattr(Sayings, "load", lambda *_: {})


def read_from_the_beginning(patch: pytest.MonkeyPatch) -> None:
    """A caller that comes back is given what it has already."""
    honest = Readers.open

    def reopen(self: Readers, item: Any, ticket: int, _offset: int) -> None:
        honest(self, item, ticket, 0)

    patch.setattr(Readers, "open", reopen)


PLANTED: tuple[tuple[Plant, str, int, str], ...] = (
    # What is taken of an owner.
    (skip_the_signature, "forger", 1, "exact-bytes"),
    (skip_the_root_check, "alterer", 1, "exact-bytes"),
    (change_records_before_the_check, "alterer", 1, "never-back"),
    (trust_changes_over_a_base, "alterer", 3, "exact-bytes"),
    (take_changes_over_any_base, "alterer", 1, "exact-bytes"),
    (accept_an_equal_version, "equivocator", 1, "never-back"),
    (accept_any_version, "replayer", 1, "never-back"),
    (forget_the_proofs, "equivocator", 2, "false-words-known"),
    (blame_the_messenger, "replayer", 1, "only-liars-are-struck"),
    (hear_an_owner_as_often_as_it_likes, "churner", 1, "bounded"),
    # What becomes of an owner.
    (take_heads_from_the_future, "postdater", 1, "only-fresh"),
    (take_heads_of_any_age, "relic", 1, "only-fresh"),
    (take_back_who_ended, "relic", 1, "no-resurrection"),
    (end_leases_early, "leases", 1, "no-false-end"),
    (end_leases_late, "leases", 1, "death-is-seen"),
    (never_expire, "leases", 1, "death-is-seen"),
    (forget_who_left_at_once, "leave", 1, "no-false-end"),
    (refresh_nobody, "leases", 2, "no-false-end"),
    (expire_before_the_clock_is_confirmed, "clocks", 3, "no-false-end"),
    (believe_the_first_clock, "clocks+liars", 8, "converges"),
    (never_step, "suspend", 1, "no-false-end"),
    # What an owner says of itself.
    (drop_the_epoch_bump, "restart-all", 1, "never-back"),
    (remove_the_clone_fence, "clone", 1, "one-speaks"),
    (write_no_heads, "restart-all", 1, "never-back"),
    (call_every_refresh_a_change, "writer", 1, "quiet"),
    # How news come about.
    (never_repair, "burst", 1, "converges"),
    (keep_asking_a_dead_link, "storm", 1, "fault"),
    # Who is there.
    (forget_the_two_way_check, "freeze", 1, "death-is-seen"),
    (wait_a_minute_for_a_restart, "kill", 1, "death-is-seen"),
    (accuse_without_a_question, "chain", 2, "nobody-accused"),
    # What becomes of messages.
    (deliver_repeats, "loss", 1, "delivered-once"),
    (lose_what_a_dead_link_held, "failover", 1, "nothing-kept"),
    (answer_twice, "chain", 1, "one-outcome"),
    (promise_before_the_disk_has_it, "durable-loss", 28, "letters-arrive"),
    (write_no_marks, "durable", 1, "letters-arrive"),
    (keep_what_was_brought, "durable-parked", 1, "nothing-kept"),
    (forget_what_was_said, "durable-readings", 1, "readings-are-whole"),
    (read_from_the_beginning, "durable-readings", 1, "readings-are-whole"),
)
"""(fault, scenario, its seed, the checker that sees it)."""
