"""What every other stack may do here: terms and grants on the disk, and the answer to each act.

`core/policy` decides; this machine has the facts together (who is admitted in which role, what was
agreed and granted, how a CI is shared, which rates are used up), charges what went through and
says each decision to the audit log. Everything is bound to the id of a stack, which follows from
its key: there is nothing that a relay or a reader of a log could use again.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any

from tektonmesh.core import policy
from tektonmesh.core.cis import Cis
from tektonmesh.core.events import Govern
from tektonmesh.core.ids import show_id
from tektonmesh.core.keydoc import membership_mac, read_proof
from tektonmesh.core.machine import Env
from tektonmesh.core.meshtime import MeshTime
from tektonmesh.core.policy import Act, Grant, Subject, Terms, Verdict
from tektonmesh.core.replica import Replica
from tektonmesh.core.trust import Trust
from tektonmesh.core.types import ID_SIZE, Saved, StackId
from tektonmesh.errors import DeliveryError, LocalError, RemoteError

GRANTS_MAX = 4096
"""On one stack, over all subjects; each is a decision of a person."""
GRANT_ID_SIZE = 5
"""Bytes of random; enough to name one among thousands, and no secret."""
TERMS_TABLE, GRANT_TABLE = "terms", "grant"
MEMO_MAX = 4096
"""Verdicts that depend on nothing but the stack and the CI are kept, since a busy peer asks the
same thing a thousand times a second."""
GLOBS_MAX = 64
GLOB_SIZE_MAX = 128
_MINUTE_S = 60.0


class Rights:
    """The policy of one stack towards all others. `watch` callbacks hear of a stack (None: all) for
    which something may have changed."""

    def __init__(
        self, env: Env, trust: Trust, clock: MeshTime, *, replica: Replica, cis: Cis, saved: Saved
    ) -> None:
        self.env = env
        self._trust = trust
        trust.role_given = self.role_given
        self._clock = clock
        self._replica = replica
        self.cis = cis
        self._terms: dict[StackId, Terms] = {}
        self._grants: dict[str, tuple[StackId, Grant]] = {}
        self._of: dict[StackId, tuple[Grant, ...]] = {}
        self._rates: dict[str, tuple[float, float]] = {}
        self._own: dict[StackId, tuple[bytes, bool]] = {}
        self._shown: dict[StackId, str] = {}
        self._memo: dict[tuple[Any, ...], Verdict] = {}
        self._watchers: list[Callable[[StackId], None]] = []
        self.closed = False
        """Whether nothing may be done that the audit log could not show."""
        for (table, key), packed in sorted(saved.items()):
            if table == TERMS_TABLE and len(key) == ID_SIZE:
                self._terms[key] = _read_terms(env, packed)
            elif table == GRANT_TABLE:
                self._take_row(key, packed)

    def watch(self, callback: Callable[[StackId], None]) -> None:
        self._watchers.append(callback)

    # --- decisions -------------------------------------------------------------------------------

    def check(self, stack_id: StackId, act: Act) -> Verdict:
        """Whether that stack may do this here, and why; changes and charges nothing."""
        ci = self.cis.get(act.ci) if act.ci else None
        share = None if ci is None else ci.share
        if stack_id in self._of:
            return policy.decide(act, self.subject(stack_id), share, self._clock.now_ms())
        role, own = self.role_of(stack_id), self.is_own(stack_id)
        key = (stack_id, act.verb, act.ci, act.effects, share, role, own)
        verdict = self._memo.get(key)
        if verdict is None:
            if len(self._memo) >= MEMO_MAX:
                self._memo.clear()
            verdict = policy.decide(act, self.subject(stack_id), share, 0)
            self._memo[key] = verdict
        return verdict

    def require(self, stack_id: StackId, act: Act) -> None:
        """Let the act through: charge it and say so in the audit log; or raise DeliveryError with
        `not_found`, `refused` or `busy`. The words tell nothing that `discover` would not."""
        verdict = self.check(stack_id, act)
        self._record(stack_id, act, verdict, side="owner")
        if self.closed and verdict.allowed:
            raise DeliveryError("This stack cannot write its audit log now.", code="busy")
        if verdict.allowed:
            self._charge(verdict.grant)
            return
        if verdict.code == "not_found":
            raise DeliveryError(f"There is no CI '{act.ci}' on this stack.", code="not_found")
        if verdict.code == "busy":
            raise DeliveryError("This stack asks too often for what it was granted.", code="busy")
        raise DeliveryError(f"This stack does not let yours do that ({act.kind}).", code="refused")

    def holds_all(self, stack_id: StackId) -> bool:
        """Whether that stack may do everything with every public CI of this one."""
        return policy.holds_all(self.subject(stack_id))

    def next_end_s(self) -> float | None:
        """Seconds until the next grant expires; None if none does."""
        now_ms = self._clock.now_ms()
        ends = [grant.not_after_ms for _stack, grant in self._grants.values()]
        left = [end - now_ms for end in ends if end > now_ms]
        return min(left) / 1000.0 if left else None

    def check_use(self, stack_id: StackId, act: Act) -> Verdict:
        """Whether callers here may use this of another stack (the import policy)."""
        admitted = not self._trust.refuses(stack_id)
        return policy.decide_use(act, self.terms_of(stack_id), admitted=admitted)

    def require_use(self, stack_id: StackId, act: Act) -> None:
        """As `require` for the caller's side. Raises DeliveryError `refused` or `not_found`."""
        verdict = self.check_use(stack_id, act)
        self._record(stack_id, act, verdict, side="caller")
        if not verdict.allowed:
            detail = f"This stack's own policy does not let its callers use '{act.ci}' there."
            hint = "`tektonmesh policy show` lists the terms."
            raise DeliveryError(detail, code=verdict.code, hint=hint)

    def _record(self, stack_id: StackId, act: Act, verdict: Verdict, *, side: str) -> None:
        """No bodies and no arguments: what was asked, of whom, and which rule settled it."""
        shown = self._shown.get(stack_id)
        if shown is None:
            if len(self._shown) >= MEMO_MAX:
                self._shown.clear()
            shown = self._shown[stack_id] = show_id(stack_id)
        data: dict[str, Any] = {
            "stack": shown,
            "verb": act.verb,
            "ci": act.ci,
            "caller": act.caller_ci,
            "size": act.size,
            "ref": act.ref,
            "side": side,
            "rule": verdict.deciding.name,
        }
        if act.depth:
            data["depth"] = act.depth
        if verdict.code:
            data["code"] = verdict.code
        self.env.audit("allow" if verdict.allowed else "deny", **data)

    # --- facts -----------------------------------------------------------------------------------

    def subject(self, stack_id: StackId) -> Subject:
        """Everything that is known of a stack as a subject of the policy."""
        grants = self._of.get(stack_id, ())
        spent = tuple(grant.id for grant in grants if not self._left(grant))
        return Subject(
            stack_id,
            self.role_of(stack_id),
            own=self.is_own(stack_id),
            terms=self.terms_of(stack_id),
            grants=grants,
            spent=spent,
        )

    def role_of(self, stack_id: StackId) -> str:
        """The role of a stack here; empty if it is none that was admitted."""
        role = self._trust.role_of(stack_id)
        if not role and self.env.settings.mesh_keys and stack_id in self._replica.owners:
            role = "member"
        chosen = self.terms_of(stack_id).role
        return chosen if role and chosen else role

    def role_given(self, stack_id: StackId) -> str:
        """The role that people here gave it; empty if they said none."""
        return self.terms_of(stack_id).role

    def is_own(self, stack_id: StackId) -> bool:
        """Whether it proved the secret of this mesh, so that it is one of one's own stacks."""
        mesh_keys = self.env.settings.mesh_keys
        held = self._replica.owners.get(stack_id) if mesh_keys else None
        if held is None:
            return False
        proof = held.signed_keydoc.proof
        known = self._own.get(stack_id)
        if known is None or known[0] is not proof:
            known = (proof, self._proves(stack_id, proof))
            if len(self._own) >= MEMO_MAX:
                self._own.clear()
            self._own[stack_id] = known
        return known[1]

    def _proves(self, stack_id: StackId, proof: bytes) -> bool:
        try:
            mac, _vouchers = read_proof(self.env.codec, proof)
        except RemoteError:
            return False
        keys = self.env.settings.mesh_keys
        return any(hmac.compare_digest(membership_mac(key, stack_id), mac) for key in keys)

    def terms_of(self, stack_id: StackId) -> Terms:
        return self._terms.get(stack_id, _NO_TERMS)

    def grants_of(self, stack_id: StackId) -> tuple[Grant, ...]:
        return self._of.get(stack_id, ())

    def partners(self) -> list[StackId]:
        """The stacks that are named in terms or grants, sorted."""
        named = dict.fromkeys([*(one for one, terms in self._terms.items() if terms.mode)])
        return sorted(named | dict.fromkeys(self._of))

    def evicted(self) -> list[StackId]:
        """The stacks that were evicted here. Other members may admit them still."""
        return self._trust.evicted()

    def guests(self) -> list[StackId]:
        """In a mesh with a secret, the stacks that were admitted here without it, sorted: the other
        members know nothing of them."""
        if not self.env.settings.mesh_keys:
            return []
        others = [owner for owner in self._replica.owners if owner != self.env.me]
        return sorted(one for one in others if not self.is_own(one) and self.role_of(one))

    def is_introducer(self, stack_id: StackId) -> bool:
        """Whether the vouchers of this stack admit others; off unless granted."""
        now_ms = self._clock.now_ms()
        return any(
            grant.verb == "introduce" and not 0 < grant.not_after_ms <= now_ms
            for grant in self._of.get(stack_id, ())
        )

    def show(self) -> dict[str, Any]:
        """The whole policy as people and programs read it: `peers` with their terms, `grants`."""
        return {
            "own_mesh": bool(self.env.settings.mesh_keys),
            "guests": [show_id(one) for one in self.guests()],
            "share_default": self.env.settings.share_default,
            "peers": [_shown_terms(one, terms) for one, terms in sorted(self._terms.items())],
            "grants": [_shown_grant(one, grant) for one, grant in self._grants.values()],
        }

    # --- changes ---------------------------------------------------------------------------------

    def govern(self, command: Govern) -> dict[str, Any]:
        """A change of policy by the owner of this stack. Raises LocalError."""
        acts = {"terms": self._set_terms, "grant": self._add_grant, "revoke": self._revoke}
        return acts[command.act](command.params)

    def set_terms(self, stack_id: StackId, terms: Terms) -> None:
        """Agree on these terms from now on."""
        self._terms[stack_id] = terms
        row = [terms.mode, list(terms.shared_cis), terms.role, list(terms.imports)]
        self.env.save(TERMS_TABLE, stack_id, self.env.codec.pack(row))
        self._changed(stack_id)

    def forget(self, stack_id: StackId) -> None:
        """The stack was evicted: nothing that was agreed with it holds any more."""
        for grant in self._of.get(stack_id, ()):
            self._drop(grant.id)
        if self._terms.pop(stack_id, None) is not None:
            self.env.save(TERMS_TABLE, stack_id, None)
        self._changed(stack_id)

    def _changed(self, stack_id: StackId) -> None:
        self._memo.clear()
        for callback in self._watchers:
            callback(stack_id)

    def _set_terms(self, params: dict[str, Any]) -> dict[str, Any]:
        stack_id: StackId = params["stack_id"]
        before = self.terms_of(stack_id)
        terms = terms_from(params, before)
        self.set_terms(stack_id, terms)
        if terms.role != before.role:
            self._trust.old_links.relink(stack_id, "The role of this stack was changed.")
        self.env.audit("terms", **_shown_terms(stack_id, terms))
        return _shown_terms(stack_id, terms)

    def _add_grant(self, params: dict[str, Any]) -> dict[str, Any]:
        stack_id: StackId = params["stack_id"]
        if stack_id == self.env.me:
            raise LocalError("A stack needs no grant from itself.")
        if len(self._grants) >= GRANTS_MAX:
            raise LocalError("There are too many grants.", code="busy", hint="Revoke some.")
        for_ms = int(params.get("for_s", 0) * 1000)
        grant = Grant(
            self.env.chance.randbytes(GRANT_ID_SIZE).hex(),
            policy.check_verb(params["verb"]),
            ci=params.get("ci") or "*",
            not_after_ms=self._clock.now_ms() + for_ms if for_ms else 0,
            per_minute=params.get("per_minute", 0),
            size_max=params.get("size_max", 0),
            caller_ci=params.get("caller_ci", ""),
            tool_hash=params.get("tool_hash", ""),
            depth_max=params.get("depth_max", -1),
        )
        self._insert(stack_id, grant)
        row = [stack_id, grant.verb, grant.ci, grant.not_after_ms, grant.per_minute]
        row += [grant.size_max, grant.caller_ci, grant.tool_hash, grant.depth_max + 1]
        self.env.save(GRANT_TABLE, grant.id.encode(), self.env.codec.pack(row))
        self._changed(stack_id)
        self.env.audit("grant", **_shown_grant(stack_id, grant))
        return _shown_grant(stack_id, grant)

    def _revoke(self, params: dict[str, Any]) -> dict[str, Any]:
        """One grant by its id, or all of a stack. Raises LocalError `not_found`."""
        stack_id: StackId | None = params.get("stack_id")
        wanted = params.get("grant", "")
        if stack_id is not None:
            ids = [grant.id for grant in self._of.get(stack_id, ())]
        else:
            ids = [wanted] if wanted in self._grants else []
        if not ids:
            raise LocalError(
                "There is no such grant.", code="not_found", hint="`tektonmesh grant` lists them."
            )
        for one in ids:
            subject = self._drop(one)
            self.env.audit("revoke", grant=one, stack=show_id(subject))
            self._changed(subject)
        return {"revoked": ids}

    def _insert(self, stack_id: StackId, grant: Grant) -> None:
        assert grant.id not in self._grants and len(stack_id) == ID_SIZE
        self._grants[grant.id] = (stack_id, grant)
        self._of[stack_id] = (*self._of.get(stack_id, ()), grant)

    def _drop(self, grant_id: str) -> StackId:
        stack_id, gone = self._grants.pop(grant_id)
        assert gone in self._of[stack_id], "a grant is in both tables or in none"
        left = tuple(grant for grant in self._of[stack_id] if grant is not gone)
        if left:
            self._of[stack_id] = left
        else:
            del self._of[stack_id]
        self._rates.pop(grant_id, None)
        self.env.save(GRANT_TABLE, grant_id.encode(), None)
        return stack_id

    # --- rates -----------------------------------------------------------------------------------

    def _tokens(self, grant: Grant) -> float:
        level, at = self._rates.get(grant.id, (float(grant.per_minute), self.env.now))
        grown = level + (self.env.now - at) * grant.per_minute / _MINUTE_S
        return min(grown, float(grant.per_minute))

    def _left(self, grant: Grant) -> bool:
        return not grant.per_minute or self._tokens(grant) >= 1.0

    def _charge(self, grant_id: str) -> None:
        if grant_id and (grant := self._grants[grant_id][1]).per_minute:
            self._rates[grant_id] = (self._tokens(grant) - 1.0, self.env.now)

    # --- rows ------------------------------------------------------------------------------------

    def _take_row(self, key: bytes, packed: bytes) -> None:
        """A grant from the disk. One that is damaged is none: that is the safe side."""
        try:
            row = self.env.codec.unpack(packed)
        except RemoteError:
            return
        kinds = [bytes, str, str, int, int, int, str, str, int]
        if not isinstance(row, list) or [type(item) for item in row] != kinds:
            return
        verb, ci, end, rate, size, caller, digest, depth = row[1:]
        name = key.decode("ascii", "replace")
        grant = Grant(name, verb, ci, end, rate, size, caller, digest, depth - 1)
        self._insert(row[0], grant)


_NO_TERMS = Terms()


def _read_terms(env: Env, packed: bytes) -> Terms:
    """Terms from the disk; damaged ones are the narrowest there are."""
    try:
        row = env.codec.unpack(packed)
    except RemoteError:
        row = None
    if not isinstance(row, list) or [type(item) for item in row] != [str, list, str, list]:
        return Terms(mode="partial", imports=())
    return Terms(row[0], tuple(row[1]), row[2], tuple(row[3]))


def terms_from(params: dict[str, Any], before: Terms) -> Terms:
    """`before` with what `params` names changed. Raises LocalError for what cannot be."""
    mode, role = params.get("mode", before.mode), params.get("role", before.role)
    if mode not in ("", *policy.MODES):
        raise LocalError(f"'{mode}' is no mode.", hint=f"Write {', '.join(policy.MODES)}.")
    if role not in ("", *policy.ROLES):
        raise LocalError(f"'{role}' is no role.", hint=f"Write {', '.join(policy.ROLES)}.")
    shared = _globs(params.get("shared_cis", before.shared_cis))
    imports = _globs(params.get("imports", before.imports))
    return Terms(mode, shared, role, imports)


def _globs(given: Any) -> tuple[str, ...]:
    globs = tuple(str(one).lower() for one in given)
    if len(globs) > GLOBS_MAX or any(len(one) > GLOB_SIZE_MAX for one in globs):
        raise LocalError(f"At most {GLOBS_MAX} names of {GLOB_SIZE_MAX} characters fit.")
    return globs


def _shown_terms(stack_id: StackId, terms: Terms) -> dict[str, Any]:
    return {
        "stack": show_id(stack_id),
        "mode": terms.mode,
        "shared_cis": list(terms.shared_cis),
        "role": terms.role,
        "imports": list(terms.imports),
    }


def _shown_grant(stack_id: StackId, grant: Grant) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": grant.id, "stack": show_id(stack_id), "verb": grant.verb}
    caveats = {
        "not_after_ms": grant.not_after_ms or None,
        "per_minute": grant.per_minute or None,
        "size_max": grant.size_max or None,
        "caller_ci": grant.caller_ci or None,
        "tool_hash": grant.tool_hash or None,
        "depth_max": None if grant.depth_max < 0 else grant.depth_max,
    }
    return (
        shown
        | {"ci": grant.ci}
        | {key: value for key, value in caveats.items() if value is not None}
    )
