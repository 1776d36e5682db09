"""Labels: which name means which stack on this node, and how a stack is shown to people.

Ids are the authority and every stack claims its own name, so two may claim one. This module keeps
a name with the first id that was seen under it, on this node and across restarts, and shows every
later claimant as `west~k7f3`. What may be sent to whom is decided elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping

from tektonmesh.core.ids import SHOWN_SIZE, SUFFIX_SIZE_MIN, parse_id, show_id, suffix_of
from tektonmesh.core.layers import layer, own_list
from tektonmesh.core.machine import Env
from tektonmesh.core.replica import Change, Replica
from tektonmesh.core.types import ID_SIZE, Saved, StackId
from tektonmesh.errors import DeliveryError, LocalError

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
"""The grammar for stacks, and for CIs without regard to case. ASCII only:
letters that look like others do not fit."""

NAMES_PER_STACK = 8
"""Names and short forms that one id can keep here, so that renaming does not collect them all."""

INVALID = "invalid"
UNKNOWN = "unknown"
CANDIDATES_MAX = 16


class Names:
    """The names of this node. Bindings live in the table `name` (name -> id)."""

    def __init__(self, env: Env, replica: Replica, saved: Saved, base: Names | None = None) -> None:
        self._env = env
        self._replica = replica
        self._own = env.identity.name
        self._bound: MutableMapping[str, StackId] = layer(None if base is None else base._bound)
        self._kept: MutableMapping[StackId, int] = layer(None if base is None else base._kept)
        self._claim: MutableMapping[StackId, str] = layer(None if base is None else base._claim)
        self._claimants: MutableMapping[str, list[StackId]] = layer(
            None if base is None else base._claimants
        )
        self._claim_own(base)
        for (table, key), value in saved.items():
            name = key.decode("ascii", "replace")
            if table == "name" and len(value) == ID_SIZE and NAME.fullmatch(name):
                self._unbind(name)
                self._remember(name, value)
        for owner in replica.owners if base is None else ():
            self._read(owner)

    def _claim_own(self, base: Names | None) -> None:
        """Our own name is ours whatever a base read in records, and the base's own is nobody's."""
        me = self._env.me
        for known in (me,) if base is None else (me, base._env.me):
            self._withdraw(known)
        self._claim[me] = self._own
        own_list(self._claimants, self._own).insert(0, me)

    # --- showing ---------------------------------------------------------------------------------

    def label(self, stack_id: StackId) -> str:
        """How the stack is shown: `west`, or `west~k7f3` when the name belongs to another."""
        claim = self._claim.get(stack_id, UNKNOWN)
        if self._holder(claim) == stack_id:
            return claim
        rivals = self._claimants.get(claim, ())
        return f"{claim}~{suffix_of(stack_id, rivals)}"

    # --- reading ---------------------------------------------------------------------------------

    def resolve(self, target: str) -> tuple[StackId, str]:
        """`numa@west` as (stack, "numa"), `@west` as (stack, ""); a bare name is a local CI.

        CI names come back in lower case, the form they are compared in. Raises LocalError
        `bad_request` for what is no address, DeliveryError as `resolve_stack` does.
        """
        ci, at, stack = target.strip().partition("@")
        ci = ci.lower()
        if (ci and NAME.fullmatch(ci) is None) or not (ci or stack) or (at and not stack):
            raise LocalError(
                f"'{target}' is not an address.", hint="Write NAME@STACK, or NAME for a local CI."
            )
        return (self.resolve_stack(stack) if at else self._env.me), ci

    def resolve_stack(self, text: str) -> StackId:
        """The stack that a name, a short form, `name~suffix` or an id means here.

        A short form that was used keeps its meaning. Raises DeliveryError `not_found`, or
        `ambiguous` with the labels that fit in `data["candidates"]`.
        """
        word = text.strip().lower()
        for found in (self._by_id(word), self._holder(word)):
            if found is not None and self._is_known(found):
                return found
        fitting = self._by_suffix(word) if "~" in word else self._by_short_form(word)
        if len(fitting) > 1:
            raise self._ambiguous(text, fitting)
        if not fitting:
            raise self._not_found(text, self._claimants.get(word, []))
        if "~" not in word:
            self._bind(word, fitting[0])
        return fitting[0]

    def _ambiguous(self, text: str, fitting: list[StackId]) -> DeliveryError:
        labels = self._labels(fitting)
        return DeliveryError(
            f"'{text}' fits several stacks: {', '.join(labels)}.",
            code="ambiguous",
            hint="Write one of them in full.",
            data={"candidates": labels},
        )

    def _not_found(self, text: str, later: list[StackId]) -> DeliveryError:
        """`later` are stacks that claim a name which is kept for one that is gone."""
        labels = self._labels(later)
        hint = "`tektonmesh stacks` lists those that are known."
        return DeliveryError(
            f"No stack is known here as '{text}'.",
            code="not_found",
            hint=f"Others claim that name: {', '.join(labels)}." if labels else hint,
            data={"candidates": labels} if labels else None,
        )

    def _labels(self, stacks: list[StackId]) -> list[str]:
        return sorted(self.label(stack_id) for stack_id in stacks)[:CANDIDATES_MAX]

    def _by_id(self, word: str) -> StackId | None:
        if len(word) < SHOWN_SIZE:
            return None
        try:
            return parse_id(word)
        except LocalError:
            return None

    def _by_suffix(self, word: str) -> list[StackId]:
        name, _, suffix = word.partition("~")
        if len(suffix) < SUFFIX_SIZE_MIN:
            return []
        claimants = list(self._claimants.get(name, ()))
        if name == UNKNOWN:
            claimants += [owner for owner in self._replica.owners if owner not in self._claim]
        return [stack_id for stack_id in claimants if show_id(stack_id).startswith(suffix)]

    def _by_short_form(self, word: str) -> list[StackId]:
        """Those whose name begins with these parts. Only the holder of a name counts, else a
        newcomer could make a short form ambiguous; stacks that are gone count if nobody else."""
        if word in self._bound:
            # The word belongs to a stack that is not known at present: nobody else gets it.
            return []
        names = [name for name in self._claimants if name.startswith(f"{word}.")]
        holders = [self._holder(name) for name in names]
        fitting = [stack_id for stack_id in holders if stack_id is not None]
        known = [stack_id for stack_id in fitting if self._is_known(stack_id)]
        present = [stack_id for stack_id in known if self._is_present(stack_id)]
        return present or known

    def _is_known(self, stack_id: StackId) -> bool:
        return stack_id == self._env.me or stack_id in self._replica.owners

    def _is_present(self, stack_id: StackId) -> bool:
        return stack_id == self._env.me or self._replica.live(stack_id)

    # --- claims and bindings ---------------------------------------------------------------------

    def on_change(self, change: Change) -> None:
        """Take over a name when an owner appears, renames itself or is forgotten."""
        relevant = change.kind in ("new", "forgotten") or "stack/self" in change.keys
        if relevant and change.owner != self._env.me:
            self._read(change.owner)

    def _read(self, owner: StackId) -> None:
        self._withdraw(owner)
        held = self._replica.owners.get(owner)
        shown = None if held is None else held.value("stack/self")
        if shown is None:
            return
        name = shown.get("name")
        fits = isinstance(name, str) and NAME.fullmatch(name) is not None
        claim = str(name) if fits else INVALID
        self._claim[owner] = claim
        own_list(self._claimants, claim).append(owner)
        if fits:
            self._bind(claim, owner)

    def _withdraw(self, owner: StackId) -> None:
        claim = self._claim.pop(owner, None)
        if claim is not None:
            claimants = own_list(self._claimants, claim)
            claimants.remove(owner)
            if not claimants:
                del self._claimants[claim]

    def _holder(self, name: str) -> StackId | None:
        """The id that `name` means here; this stack's own name is always itself."""
        return self._env.me if name == self._own else self._bound.get(name)

    def _bind(self, name: str, owner: StackId) -> None:
        """Give a free name to an id for good."""
        holder = self._holder(name)
        if holder is not None:
            if holder != owner:
                self._env.notice("name_taken", name=name, id=show_id(owner), holder=show_id(holder))
        elif self._kept.get(owner, 0) < NAMES_PER_STACK:
            self._remember(name, owner)
            self._env.save("name", name.encode(), owner)

    def _unbind(self, name: str) -> None:
        """What the disk remembers beats what a base bound."""
        holder = self._bound.pop(name, None)
        if holder is not None:
            self._kept[holder] -= 1

    def _remember(self, name: str, owner: StackId) -> None:
        assert name not in self._bound, "a name is given away once"
        self._bound[name] = owner
        self._kept[owner] = self._kept.get(owner, 0) + 1
