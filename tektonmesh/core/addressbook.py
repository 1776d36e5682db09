"""Where somebody may listen: every address this node could dial, and what came of dialling it.

The book keeps addresses apart by the stack that is expected there, so that nobody can spoil
another's address by claiming it too. Addresses from gossip and mDNS are a stranger's input: they
are checked, counted and bounded here. When to dial is `dialling`'s to decide.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import inf
from typing import Any, TypeGuard

from tektonmesh.core.machine import Env
from tektonmesh.core.types import ID_SIZE, Saved, StackId
from tektonmesh.errors import RemoteError

ADDRESSES_PER_STACK = 8
TARGETS_MAX = 65_536
"""Two for each of 16,384 owners and room to spare; seed peers are not counted."""

ANONYMOUS_MAX = 256
"""As many mDNS services are kept (docs/design/security.md)."""

WRONG_MAX = 1024
"""Addresses known to be another stack's; of those found out longest ago it is tried again."""

REMEMBERED_MAX = 64
"""Peers kept for the next start: more than any node links to by its own choice."""

_ADDRESS = re.compile(
    r"(?:\[[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9._-]{1,32})?\]|[A-Za-z0-9._-]{1,253}):([1-9][0-9]{0,4})"
)


def is_address(text: object) -> TypeGuard[str]:
    """Whether this is HOST:PORT or [IPV6]:PORT with a port that can be dialled."""
    found = _ADDRESS.fullmatch(text) if isinstance(text, str) else None
    return found is not None and int(found.group(1)) <= 65535


@dataclass(slots=True, eq=False)
class Target:
    """One address and the stack expected there (None: whoever answers).

    `met` is who answered last; `good` whether the last dial succeeded; `since` the instant at
    which the present series of failures began; `dialled_at` the instant of the last dial.
    """

    address: str
    expect: StackId | None
    seed_peer: bool = False
    met: StackId | None = None
    good: bool = False
    tries: int = 0
    since: float | None = None
    dialled_at: float = -inf

    @property
    def peer(self) -> StackId | None:
        """The stack that most likely answers here."""
        return self.expect or self.met

    def fresh_start(self) -> None:
        """Forget the failures: there is news of whoever should be here."""
        self.tries = 0
        self.since = None


class AddressBook:
    """All targets of one node, and the peers it remembers across restarts (table `address`:
    stack id -> {"at": [address ...]}, best first)."""

    def __init__(self, env: Env, saved: Saved) -> None:
        self._env = env
        self._own: dict[str, None] = dict.fromkeys(env.settings.listen)
        self._of: dict[StackId | None, dict[str, Target]] = {}
        self._count = 0
        self._wrong: dict[tuple[str, StackId], None] = {}
        self.remembered: dict[StackId, tuple[str, ...]] = {}
        for (table, key), value in saved.items():
            if table == "address" and len(key) == ID_SIZE:
                self.remembered[key] = self._read(value)

    def _read(self, value: bytes) -> tuple[str, ...]:
        """The addresses of one saved row; none if the row is damaged."""
        try:
            shown: Any = self._env.codec.unpack(value)
        except RemoteError:
            return ()
        told = shown.get("at") if isinstance(shown, dict) else None
        return tuple(told) if isinstance(told, list) and all(map(is_address, told)) else ()

    # --- reads -----------------------------------------------------------------------------------

    def of_stack(self, stack_id: StackId) -> list[Target]:
        """The addresses of a stack, those that worked last time first."""
        met = [target for target in self.anonymous() if target.met == stack_id]
        expected = self._of.get(stack_id, {}).values()
        return sorted([*expected, *met], key=lambda target: not target.good)

    def anonymous(self) -> list[Target]:
        """The targets at which no particular stack is expected: seed peers, and what mDNS named."""
        return list(self._of.get(None, {}).values())

    def stacks(self) -> list[StackId]:
        """Every stack that is expected somewhere."""
        return [stack_id for stack_id in self._of if stack_id is not None]

    def holds(self, target: Target) -> bool:
        """Whether the target has not been taken out since."""
        return self._of.get(target.expect, {}).get(target.address) is target

    # --- changes ---------------------------------------------------------------------------------

    def add(
        self, address: str, expect: StackId | None, *, seed_peer: bool = False
    ) -> Target | None:
        """The target for this address and stack, new or known; None when it is not to be dialled:
        malformed, our own, or one too many. Seed peers are not counted."""
        known = self._of.get(expect, {}).get(address)
        if known is not None:
            known.seed_peer = known.seed_peer or seed_peer
            return known
        if address in self._own or expect == self._env.me:
            return None
        if not seed_peer and not (is_address(address) and self._has_room(expect)):
            return None
        if expect is not None and (address, expect) in self._wrong:
            return None
        target = Target(address, expect, seed_peer)
        self._of.setdefault(expect, {})[address] = target
        self._count += 1
        return target

    def _has_room(self, expect: StackId | None) -> bool:
        most = ANONYMOUS_MAX if expect is None else ADDRESSES_PER_STACK
        return self._count < TARGETS_MAX and len(self._of.get(expect, {})) < most

    def remove(self, target: Target) -> None:
        """Take a target out for good; harmless if it is not in."""
        if self.holds(target):
            del self._of[target.expect][target.address]
            self._count -= 1
            assert self._count >= 0
            if not self._of[target.expect]:
                del self._of[target.expect]

    def is_wrong(self, target: Target) -> None:
        """Another stack lives there: the stack's own word for it counts no more, until it says
        something new."""
        self.remove(target)
        if target.expect is not None:
            self._wrong[target.address, target.expect] = None
            if len(self._wrong) > WRONG_MAX:
                del self._wrong[next(iter(self._wrong))]

    def told_anew(self, stack_id: StackId) -> None:
        """The stack has published its addresses again."""
        for wrong in [wrong for wrong in self._wrong if wrong[1] == stack_id]:
            del self._wrong[wrong]

    def keep_only(self, stack_id: StackId, addresses: tuple[str, ...]) -> None:
        """A stack has moved: drop what it no longer tells, unless that worked last time."""
        for target in list(self._of.get(stack_id, {}).values()):
            if not target.good and not target.seed_peer and target.address not in addresses:
                self.remove(target)

    def is_own(self, address: str) -> None:
        """This address leads back to us: never dial it again in this run."""
        self._own[address] = None
        for of_one in list(self._of.values()):
            if address in of_one:
                self.remove(of_one[address])

    # --- memory ----------------------------------------------------------------------------------

    def remember(self, stack_id: StackId, addresses: tuple[str, ...]) -> None:
        """Keep a peer for the next start; the one met longest ago makes room."""
        before = self.remembered.pop(stack_id, None)
        self.remembered[stack_id] = addresses
        if before != addresses:
            row = self._env.codec.pack({"at": list(addresses)})
            self._env.save("address", stack_id, row)
        if len(self.remembered) > REMEMBERED_MAX:
            self.forget(next(iter(self.remembered)))

    def forget(self, stack_id: StackId) -> None:
        """Do not dial this peer at the next start; harmless if it is not remembered."""
        if self.remembered.pop(stack_id, None) is not None:
            self._env.save("address", stack_id, None)
