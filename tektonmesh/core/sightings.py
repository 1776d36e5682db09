"""CIs of other stacks as they appear in the replica and leave it, told for whoever watches.

It decides nothing: it compares what an owner lists with what it listed before, and only for the
records that a change names. The own CIs are told by `cis`.
"""

from __future__ import annotations

from collections.abc import MutableMapping

from tektonmesh.core.ci import key_of
from tektonmesh.core.layers import layer, own_dict
from tektonmesh.core.machine import Env
from tektonmesh.core.names import NAME, Names
from tektonmesh.core.replica import Change, Replica
from tektonmesh.core.types import StackId

SINGLY_MAX = 20
"""Beyond so many in one change one notice with their number has to do."""

_PREFIX = "ci/"


class Sightings:
    """The CIs of all other live owners by their keys, with the address told last."""

    def __init__(
        self, env: Env, replica: Replica, names: Names, base: Sightings | None = None
    ) -> None:
        self._env = env
        self._replica = replica
        self._names = names
        self._seen: MutableMapping[StackId, dict[str, str]] = layer(
            None if base is None else base._seen
        )
        self._seen.pop(env.me, None)
        for owner in replica.owners if base is None else ():
            if owner != env.me and replica.live(owner):
                self._seen[owner] = self._listed(owner, tuple(replica.owners[owner].keys("ci")))

    def on_change(self, change: Change) -> None:
        """Tell which CIs this change brought and took. A refresh may bring an owner back."""
        owner = change.owner
        if owner == self._env.me:
            return
        if not self._replica.has(owner) or not self._replica.live(owner):
            gone = self._seen.pop(owner, {})
            self._tell("ci_gone", list(gone.values()))
            return
        assert owner in self._replica.owners, "only what is held is live"
        seen, keys = self._seen.get(owner), change.keys
        if seen is None:
            seen = self._seen[owner] = {}
            keys = tuple(self._replica.owners[owner].keys("ci"))
        listed = self._listed(owner, keys)
        ended = [key for key in keys if key in seen and key not in listed]
        gone_now = [seen[key] for key in ended]
        fresh = [address for key, address in listed.items() if key not in seen]
        if ended or listed:
            seen = own_dict(self._seen, owner)
            seen |= listed
            for key in ended:
                del seen[key]
        self._tell("ci_gone", gone_now)
        self._tell("ci_seen", fresh)

    def _listed(self, owner: StackId, keys: tuple[str, ...]) -> dict[str, str]:
        """The addresses of those of `keys` that are CIs of the owner now; others wrote them."""
        found, label = {}, self._names.label(owner)
        for key in keys:
            if key.startswith(_PREFIX):
                name = (self._replica.owners[owner].value(key) or {}).get("name")
                proper = isinstance(name, str) and NAME.fullmatch(key_of(name)) is not None
                if proper and key == _PREFIX + key_of(str(name)):
                    found[key] = f"{name}@{label}"
        return found

    def _tell(self, kind: str, addresses: list[str]) -> None:
        if len(addresses) > SINGLY_MAX:
            label = addresses[0].partition("@")[2]
            self._env.notice(kind, stack=label, count=len(addresses))
            return
        for address in addresses:
            self._env.notice(kind, ci=address)
