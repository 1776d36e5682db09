"""What the owner of a daemon decides: who is admitted, and what others may do here.

Invites, terms, grants and the explanation of a verdict, as operations with plain dicts. All of it
is for the owner alone; the decisions themselves are `core/policy`'s, the memory `core/rights`' and
`core/invites`'.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio

from tektonmesh.api import validate
from tektonmesh.api.keykeeping import KeyKeeping
from tektonmesh.core import events as ev
from tektonmesh.core.ids import parse_id, show_id
from tektonmesh.core.policy import Act, Verdict, check_verb
from tektonmesh.core.types import StackId
from tektonmesh.errors import LocalError, MeshError, PolicyError
from tektonmesh.net.addresses import join_address
from tektonmesh.net.auditcheck import last_entries
from tektonmesh.net.auditlog import FOLDER
from tektonmesh.net.daemon import Daemon
from tektonmesh.net.tokens import Token

Params = Mapping[str, Any]
NAME_SIZE_MAX = 200
JOIN_WAIT_S = 10.0
JOIN_LOOK_S = 0.05
YEAR_S = 366 * 86400.0
_TERMS = ("mode", "role", "shared_cis", "imports")


class Governing:
    """The owner's acts of one daemon. Every method raises MeshError for bad input."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.acts: dict[str, Callable[[Params], Awaitable[Any]]] = {
            "invite": self.invite,
            "join": self.join,
            "terms": self.terms,
            "grant": self.grant,
            "revoke": self.revoke,
            "policy": self.policy,
            "audit": self.audit,
            "token": self.token,
            "keys": KeyKeeping(daemon).keys,
        }

    async def _govern(self, act: str, **params: Any) -> dict[str, Any]:
        return await self._daemon.ask(lambda ticket: ev.Govern(ticket, act, params))

    # --- admission -------------------------------------------------------------------------------

    async def invite(self, params: Params) -> Any:
        """`{"for_s"?, "uses"?, "role"?, "mode"?, "shared_cis"?}`: a new invite, `token` in it;
        `{"list": true}`: the open ones; `{"withdraw": ID}`: one less."""
        if validate.flag(params, "list"):
            return self._daemon.node.invites.list()
        if params.get("withdraw") is not None:
            wanted = validate.text(params, "withdraw", default="", size_max=64)
            return await self._govern("uninvite", id=wanted)
        for_s = validate.number(params, "for_s", low=1, high=86400, default=3600)
        uses = validate.number(params, "uses", low=1, high=32, default=1)
        assert uses is not None
        return await self._govern(
            "invite",
            for_s=for_s,
            uses=int(uses),
            addresses=[*self._addresses()],
            **self._terms_of(params),
        )

    def _addresses(self) -> list[str]:
        """Every address of this stack, loopback included: the invited may be on this machine."""
        told = dict.fromkeys(self._daemon.listen)
        for address in list(told):
            told[join_address("127.0.0.1", int(address.rpartition(":")[2]))] = None
        return list(told)

    async def join(self, params: Params) -> dict[str, Any]:
        """`{"token"}`: admit the stack that issued the invite, and be admitted by it."""
        token = validate.text(params, "token", default="", size_max=4096)
        shown = await self._govern("join", token=token)
        stack_id = parse_id(shown["id"])
        addresses = tuple(shown["addresses"])
        self._daemon.inject(ev.PeerSeen(addresses, "user", stack_id))
        outcome = ""
        with trio.move_on_after(JOIN_WAIT_S):
            while not outcome:
                outcome = self._daemon.node.invites.outcome(stack_id)
                if not outcome:
                    await trio.sleep(JOIN_LOOK_S)
        if outcome == "refused":
            raise PolicyError(
                "That stack does not take the invite: it is used up, withdrawn or expired.",
                hint="Ask for a new one.",
            )
        if not outcome:
            raise MeshError(
                "The stack that issued the invite does not answer.",
                code="unreachable",
                hint=f"It is tried on at {', '.join(addresses) or 'no address'}.",
            )
        name = self._daemon.node.names.label(stack_id)
        return {"id": show_id(stack_id), "name": name, "state": "admitted"}

    # --- policy ----------------------------------------------------------------------------------

    async def terms(self, params: Params) -> dict[str, Any]:
        """`{"stack", "mode"?, "role"?, "shared_cis"?, "imports"?}`: what is agreed with a stack."""
        chosen = self._terms_of(params)
        if not chosen:
            raise validate.field_error("mode", "or another of the terms is missing")
        shown = await self._govern("terms", stack_id=self._stack(params, "stack"), **chosen)
        return self._named(shown)

    def _terms_of(self, params: Params) -> dict[str, Any]:
        chosen: dict[str, Any] = {}
        for key in _TERMS:
            if params.get(key) is None:
                continue
            if key in ("shared_cis", "imports"):
                chosen[key] = _names(key, params[key])
            else:
                chosen[key] = validate.text(params, key, default="", size_max=32)
        return chosen

    async def grant(self, params: Params) -> Any:
        """`{"stack", "verb", "ci"?, "for_s"?, "per_minute"?, "size_max"?, "caller_ci"?,
        "tool_hash"?, "depth_max"?}`: a new right of that stack; `{}`: all there are."""
        if params.get("stack") is None:
            return [self._named(grant) for grant in self._daemon.node.rights.show()["grants"]]
        numbers = {
            "for_s": validate.number(params, "for_s", low=1, high=YEAR_S, default=0),
            "per_minute": validate.number(params, "per_minute", low=1, high=1e6, default=0),
            "size_max": validate.number(params, "size_max", low=1, high=2**31, default=0),
            "depth_max": validate.number(params, "depth_max", low=0, high=16, default=-1),
        }
        words = {
            key: validate.text(params, key, default="", size_max=128).lower()
            for key in ("ci", "caller_ci", "tool_hash")
        }
        shown = await self._govern(
            "grant",
            stack_id=self._stack(params, "stack"),
            verb=validate.text(params, "verb", default="", size_max=512),
            **{key: int(value or 0) for key, value in numbers.items()},
            **words,
        )
        return self._named(shown)

    async def revoke(self, params: Params) -> dict[str, Any]:
        """`{"grant": ID}` or `{"stack"}`: one grant, or all of a stack; at once."""
        if params.get("grant") is not None:
            wanted = validate.text(params, "grant", default="", size_max=64)
            return await self._govern("revoke", grant=wanted)
        return await self._govern("revoke", stack_id=self._stack(params, "stack"))

    async def policy(self, params: Params) -> dict[str, Any]:
        """`{}`: the whole policy of this stack; `{"subject", "verb", "object"?}`: the verdict on
        that act and every rule that was looked at. An object such as `numa@east` with this stack
        as the subject asks what callers here may use there."""
        rights = self._daemon.node.rights
        if params.get("subject") is None:
            shown = rights.show()
            return shown | {
                key: [self._named(row) for row in shown[key]] for key in ("peers", "grants")
            }
        verb = check_verb(validate.text(params, "verb", default="", size_max=512))
        subject = self._stack(params, "subject")
        wanted = validate.text(params, "object", default="", size_max=NAME_SIZE_MAX).lower()
        me = self._daemon.node.env.me
        ci, _at, place = wanted.partition("@")
        there = self._resolve(place, "object") if place else me
        act = Act(verb, ci)
        if there != me:
            if subject != me:
                raise validate.field_error(
                    "object", "is of another stack: only its owner can say who may do that"
                )
            return _shown_verdict(rights.check_use(there, act), "import")
        if subject == me:
            raise validate.field_error("subject", "is this stack itself, which may do anything")
        return _shown_verdict(rights.check(subject, act), "export")

    # --- tokens ----------------------------------------------------------------------------------

    async def token(self, params: Params) -> Any:
        """`{"scopes", "name"?, "for_s"?}`: a new bearer token, its text in `token`; `{}`: all
        there are, without their texts; `{"revoke": ID}`: one less."""
        tokens = self._daemon.tokens
        if params.get("revoke") is not None:
            gone = tokens.revoke(validate.text(params, "revoke", default="", size_max=64))
            return {"id": gone.id, "name": gone.name, "revoked": True}
        if params.get("scopes") is None:
            return [_shown_token(token) for token in tokens.list()]
        scopes = tuple(_names("scopes", params["scopes"]))
        for_s = validate.number(params, "for_s", low=1, high=YEAR_S, default=0)
        name = validate.text(params, "name", default="", size_max=64)
        text, made = tokens.create(name, scopes, float(for_s or 0))
        return _shown_token(made) | {"token": text}

    # --- audit -----------------------------------------------------------------------------------

    async def audit(self, params: Params) -> Any:
        """`{"last"?}`: the newest entries of the audit log; `{"witness": true}`: which end of it
        other stacks have seen (`{"witnesses": [{"stack", "n", "hash"}], "silent"}`)."""
        if validate.flag(params, "witness"):
            return await self._daemon.ask(ev.AskWitnesses)
        last = validate.number(params, "last", low=1, high=10_000, default=100)
        folder = self._daemon.config.home / FOLDER
        return await trio.to_thread.run_sync(last_entries, folder, int(last or 1))

    # --- names -----------------------------------------------------------------------------------

    def _stack(self, params: Params, key: str) -> StackId:
        return self._resolve(
            validate.text(params, key, default="", size_max=NAME_SIZE_MAX).strip(), key
        )

    def _resolve(self, word: str, key: str) -> StackId:
        """A stack by its id, its label, or the name of a peer (which may not have said a word)."""
        if not word:
            raise validate.field_error(key, "is missing: the name or id of a stack is needed")
        node = self._daemon.node
        try:
            return node.names.resolve_stack(word)
        except MeshError as error:
            if error.code.name == "ambiguous":
                raise
        named = [peer["id"] for peer in node.trust.peers() if peer["name"] == word]
        if len(named) == 1:
            return parse_id(named[0])
        try:
            return parse_id(word)
        except LocalError:
            raise LocalError(
                f"No stack is known here as '{word}'.",
                code="not_found",
                hint="`tektonmesh peers` lists those that were met; an id always works.",
            ) from None

    def _named(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row with the name under which people know its stack."""
        stack_id = parse_id(row["stack"])
        known = {peer["id"]: peer["name"] for peer in self._daemon.node.trust.peers()}
        label = self._daemon.node.names.label(stack_id)
        return row | {"name": known.get(row["stack"]) or label}


def _names(key: str, value: Any) -> list[str]:
    if isinstance(value, str):
        value = value.split(",") if value else []
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise validate.field_error(key, "must be a list of names of CIs")
    return [one.strip() for one in value if one.strip()]


def _shown_token(token: Token) -> dict[str, Any]:
    return {
        "id": token.id,
        "name": token.name,
        "scopes": list(token.scopes),
        "made": round(token.made_s),
        "expires": round(token.not_after_s) or None,
        "last_used": round(token.used_s) or None,
    }


def _shown_verdict(verdict: Verdict, side: str) -> dict[str, Any]:
    return {
        "allowed": verdict.allowed,
        "code": verdict.code,
        "side": side,
        "deciding": verdict.deciding.name,
        "rules": [
            {"rule": rule.name, "passed": rule.passed, "why": rule.why} for rule in verdict.rules
        ],
    }
