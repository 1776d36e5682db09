"""The CIs of this stack: who is registered, until when, and who may change that.

Registrations live on the disk and come back after a restart. An attached CI lives as long as its
connection and a grace; one that came over HTTP as long as it sends heartbeats; a persistent one
until it is deregistered. A name belongs to whoever registered it first: taking it over needs the
registration's token, except where the docs say otherwise (docs/design/cis.md). What the mesh sees
is published through `owner`; delivering messages is `handouts`'.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from tektonmesh.core.ci import OFFLINE, Ci, ci_of_row, hash_token, key_of, new_token
from tektonmesh.core.effects import WatchEndpoint
from tektonmesh.core.events import (
    CiHealth,
    DeregisterCi,
    Detached,
    HeartbeatCi,
    RegisterCi,
    SetCatalogue,
)
from tektonmesh.core.machine import Env
from tektonmesh.core.owner import Owner
from tektonmesh.core.types import Saved
from tektonmesh.errors import LocalError, PolicyError, RemoteError

NO_TOKEN_VIA = "hermes"
"""Calls that only name a CI may touch only what came in by these routes (docs/design/cis.md)."""


class Cis:
    """The registrations of one node, by name without case."""

    def __init__(self, env: Env, owner: Owner, saved: Saved) -> None:
        self.env = env
        self._owner = owner
        self._cis: dict[str, Ci] = {}
        self._ids: dict[str, str] = {}
        self._connections: dict[int, dict[str, None]] = {}
        self.came: Callable[[str], None] = lambda _key: None
        """Told of a CI that is registered, or takes messages again."""
        self.went: Callable[[str, bool], None] = lambda _key, _remote: None
        """Told of a registration that ended."""
        self.gossips: Callable[[], bool] = lambda: True
        """Whether what CIs offer may be in a record that everybody reads; told by `usable`."""
        self._watchers: list[Callable[[], None]] = []
        self._saved = [(key, row) for (table, key), row in sorted(saved.items()) if table == "ci"]

    def watch(self, callback: Callable[[], None]) -> None:
        """`callback` runs when what others may know of a CI has changed."""
        self._watchers.append(callback)

    # --- reads -----------------------------------------------------------------------------------

    def get(self, name: str) -> Ci | None:
        """The CI of that name (without regard to case) or id."""
        key = key_of(name)
        named = self._cis.get(key)
        return named if named is not None else self._cis.get(self._ids.get(key, ""))

    def all(self) -> list[Ci]:
        """All of them, in the order of their registration."""
        return list(self._cis.values())

    # --- commands --------------------------------------------------------------------------------

    def start(self) -> None:
        """Take back what the disk kept. An attached CI gets the grace to come back, a lease starts
        anew: the daemon was away, not they."""
        for key, packed in self._saved:
            try:
                ci = ci_of_row(self.env.codec.unpack(packed))
            except RemoteError:
                ci = None
            if ci is None or ci.key.encode() != key:
                self.env.save("ci", key, None)
                self.env.notice("ci_row_damaged", ci=key.decode(errors="replace"))
                continue
            self._insert(ci)
            self._renew(ci)
            self._update(ci)
            self._watch(ci)
            self.came(ci.key)
        self._saved.clear()

    def register(self, command: RegisterCi) -> dict[str, Any]:
        """Register a CI, or update the registration of that name.

        Raises LocalError `conflict` if the name is another's, `busy` over `ci_max`, `too_large`
        for a record that does not fit; nothing has changed then.
        """
        old = self._cis.get(key_of(command.spec["name"]))
        if old is not None and not self._may_replace(old, command):
            raise LocalError(
                f"The name '{old.name}' is taken by another registration.",
                code="conflict",
                hint="Use another name, or the token of that registration.",
            )
        if old is None and key_of(command.spec["name"]) in self._ids:
            raise LocalError(
                f"The name '{command.spec['name']}' is the id of another registration.",
                code="conflict",
                hint="Use another name.",
            )
        if old is None and len(self._cis) >= self.env.settings.ci_max:
            raise LocalError("Too many CIs are registered here.", code="busy")
        token = command.token
        if old is None or token is None or not old.fits(token):
            token = new_token(self.env.chance)
        ci = self._make(command, old, token)
        row = self.env.codec.pack(ci.row())
        self._publish(ci)
        if old is not None:
            self._remove(old)
        self._insert(ci)
        self._renew(ci)
        self.env.save("ci", ci.key.encode(), row)
        self._watch(ci, old)
        self.came(ci.key)
        self.env.notice("ci_registered", ci=ci.name, via=ci.via, new=old is None)
        return self._shown(ci) | {"token": token}

    def heartbeat(self, command: HeartbeatCi) -> dict[str, Any]:
        """Extend a lease. Raises LocalError `unknown_ci`, PolicyError `unauthorized`."""
        ci = self._owned(command.name, command.token, command.trusted)
        self._renew(ci)
        return {"success": True, "name": ci.name, "state": ci.state, "lease_s": ci.lease_s}

    def deregister(self, command: DeregisterCi) -> dict[str, Any]:
        """Remove a registration. Raises LocalError `unknown_ci`, PolicyError `unauthorized`."""
        ci = self._owned(command.name, command.token, command.trusted)
        self._end(ci, "deregistered")
        return {"success": True, "name": ci.name}

    def set_catalogue(self, command: SetCatalogue) -> dict[str, Any]:
        """What the MCP server of a CI offers from now on. Raises LocalError `unknown_ci`, and
        `too_large` if the record does not fit."""
        ci = self.get(command.ci)
        if ci is None or ci.mcp is None:
            raise LocalError(f"No CI '{command.ci}' has an MCP server here.", code="unknown_ci")
        before = ci.catalogue, ci.offered
        ci.catalogue, ci.offered = command.reference, command.offered
        changed = (ci.catalogue, ci.offered) != before
        if changed:
            try:
                self._publish(ci)
            except LocalError:
                ci.catalogue, ci.offered = before
                raise
            self.env.save("ci", ci.key.encode(), self.env.codec.pack(ci.row()))
            self.env.notice("catalogue_changed", ci=ci.name)
        return {"name": ci.name, "changed": changed}

    def republish(self) -> None:
        """Who may read what CIs offer has changed."""
        for ci in self._cis.values():
            if ci.catalogue is not None:
                self._update(ci)

    # --- what happens to them --------------------------------------------------------------------

    def detached(self, event: Detached) -> None:
        """A connection closed: its CIs are offline, and gone after the grace."""
        for key in self._connections.pop(event.connection, {}):
            ci = self._cis[key]
            ci.connection = None
            self._renew(ci)
            self._tell_offline(ci, "detached")

    def health(self, event: CiHealth) -> None:
        """The shell found that an endpoint fails again and again, or that it is well again."""
        ci = self._cis.get(key_of(event.ci))
        if ci is None or ci.how["kind"] != "http":
            return
        before = ci.state
        ci.problem = "" if event.healthy else (event.detail or "unhealthy")
        if ci.state == before:
            return
        if ci.state == OFFLINE:
            self._tell_offline(ci, "unhealthy")
        else:
            self._update(ci)
            self.came(ci.key)
            self.env.notice("ci_up", ci=ci.name)

    # --- who may ---------------------------------------------------------------------------------

    def _may_replace(self, old: Ci, command: RegisterCi) -> bool:
        """A live connection keeps its CI against everyone without the token, trusted or not."""
        if old.fits(command.token):
            return True
        if old.connection is not None:
            return old.connection == command.connection
        return command.trusted or old.via == command.spec["via"] == NO_TOKEN_VIA

    def _owned(self, name: str, token: str | None, trusted: bool) -> Ci:
        ci = self.get(name)
        if ci is None:
            raise LocalError(f"No CI '{name}' is registered here.", code="unknown_ci")
        open_door = token is None and ci.via == NO_TOKEN_VIA
        if not (trusted or open_door or ci.fits(token)):
            raise PolicyError(f"The token does not fit '{ci.name}'.", code="unauthorized")
        return ci

    # --- the life of one -------------------------------------------------------------------------

    def _make(self, command: RegisterCi, old: Ci | None, token: str) -> Ci:
        settings = self.env.settings
        spec = dict(command.spec)
        spec["teams"] = list(spec.get("teams", ()))
        spec["share"] = spec["share"] or settings.share_default
        if spec["lease_s"] is None:
            spec["lease_s"] = settings.ci_lease_s
        ci = Ci(
            spec,
            old.id if old is not None else self.env.chance.randbytes(16).hex(),
            hash_token(token),
            connection=command.connection if spec["how"]["kind"] == "attached" else None,
        )
        if old is not None and old.mcp == spec.get("mcp"):
            # The same server offers the same until it is asked again.
            ci.catalogue, ci.offered = old.catalogue, old.offered
        return ci

    def _insert(self, ci: Ci) -> None:
        assert ci.key not in self._cis
        self._cis[ci.key] = ci
        self._ids[ci.id] = ci.key
        if ci.connection is not None:
            self._connections.setdefault(ci.connection, {})[ci.key] = None

    def _remove(self, ci: Ci) -> None:
        del self._cis[ci.key], self._ids[ci.id]
        if ci.connection is not None:
            of_connection = self._connections[ci.connection]
            del of_connection[ci.key]
            if not of_connection:
                del self._connections[ci.connection]

    def _renew(self, ci: Ci) -> None:
        """Something was heard of it (or it just lost its connection): set its end anew."""
        ci.heard = self.env.now
        if ci.attached:
            gone = ci.connection is None and not ci.persist
            ci.expires = self.env.after(self.env.settings.ci_detach_grace_s) if gone else inf
        else:
            ci.expires = inf if ci.lease_s is None else self.env.after(ci.lease_s)
        if ci.expires == inf:
            self.env.deadlines.drop(("ci", ci.key))
        else:
            reason = "detached" if ci.attached else "timeout"
            self.env.deadlines.set(("ci", ci.key), ci.expires, lambda: self._end(ci, reason))

    def _end(self, ci: Ci, reason: str) -> None:
        self.env.deadlines.drop(("ci", ci.key))
        self._remove(ci)
        self.env.save("ci", ci.key.encode(), None)
        self.went(ci.key, ci.remote)
        if ci.remote:
            self._owner.delete(f"ci/{ci.key}")
            self._owner.delete(f"catalog/{ci.key}")
        self._tell_watchers()
        if ci.how["kind"] == "http":
            self.env.emit(WatchEndpoint(ci.key, None))
        self.env.notice("ci_deregistered", ci=ci.name, reason=reason)

    def _publish(self, ci: Ci) -> None:
        """Bring the mesh's record up to date; a CI that is not shared has none. Raises LocalError
        if what it says does not fit into the records of a stack."""
        key = f"ci/{ci.key}"
        if ci.remote:
            self._owner.put(key, ci.record())
        elif self._owner.get(key) is not None:
            self._owner.delete(key)
        catalogue = ci.catalogue_record() if ci.remote else None
        if catalogue is not None and self.gossips():
            self._owner.put(f"catalog/{ci.key}", catalogue)
        else:
            self._owner.delete(f"catalog/{ci.key}")
        self._tell_watchers()

    def _tell_watchers(self) -> None:
        for callback in self._watchers:
            callback()

    def _watch(self, ci: Ci, old: Ci | None = None) -> None:
        """Have the endpoint of an HTTP CI checked, and no longer that of a former one."""
        if ci.how["kind"] == "http":
            self.env.emit(WatchEndpoint(ci.key, ci.how["url"]))
        elif old is not None and old.how["kind"] == "http":
            self.env.emit(WatchEndpoint(old.key, None))

    def _update(self, ci: Ci) -> None:
        """Publish a change of state. The records may be full to the last byte: then the mesh
        learns it from the nack."""
        try:
            self._publish(ci)
        except LocalError as error:
            self.env.notice("ci_not_published", ci=ci.name, detail=error.detail)

    def _tell_offline(self, ci: Ci, reason: str) -> None:
        self._update(ci)
        self.env.notice("ci_offline", ci=ci.name, reason=reason)

    def _shown(self, ci: Ci) -> dict[str, Any]:
        settings = self.env.settings
        lease_s = ci.lease_s
        beat_s = settings.ci_heartbeat_s
        if lease_s is not None:
            beat_s = min(beat_s, lease_s / 3.0)
        return {
            "success": True,
            "id": ci.id,
            "name": ci.name,
            "stack": self.env.identity.name,
            "lease_s": lease_s,
            "heartbeat_s": beat_s,
        }
