"""Which stacks park for others, as their records say."""

from __future__ import annotations

from tektonmesh.core.machine import Env
from tektonmesh.core.paths import Paths
from tektonmesh.core.replica import Replica
from tektonmesh.core.types import StackId


def near_parkers(env: Env, replica: Replica, paths: Paths) -> list[StackId]:
    """Stacks that park and can be reached, the nearest first. Looks at every stack."""
    found = []
    for stack, held in replica.owners.items():
        if stack != env.me and (held.value("stack/self") or {}).get("park") is True:
            cost = paths.cost(stack)
            if cost is not None:
                found.append((cost, stack))
    return [stack for _cost, stack in sorted(found)]
