"""Where a message goes: to the CI it names, to one of many, or to all of a team.

The face of `directory`, `anycast` and `multicast`. A target that is an address goes to `requests`
as it is; nothing is decided about it here.
"""

from __future__ import annotations

from typing import Any

from tektonmesh.core.anycast import Anycast
from tektonmesh.core.cis import Cis
from tektonmesh.core.deliveries import Deliveries
from tektonmesh.core.directory import Directory
from tektonmesh.core.events import SendMessage
from tektonmesh.core.graph import Graph
from tektonmesh.core.machine import Env
from tektonmesh.core.multicast import Multicast
from tektonmesh.core.paths import Paths
from tektonmesh.core.replica import Change, Replica
from tektonmesh.core.requests import Requests
from tektonmesh.core.selectors import TEAM, is_selector, parse_selector
from tektonmesh.errors import LocalError


class Choosing:
    """Takes every message of a local caller."""

    def __init__(
        self,
        env: Env,
        *,
        replica: Replica,
        ways: tuple[Graph, Paths],
        cis: Cis,
        deliveries: Deliveries,
        requests: Requests,
    ) -> None:
        self._requests = requests
        outcomes = deliveries.outcomes
        graph, paths = ways
        self.directory = Directory(env.me, replica, cis)
        self.anycast = Anycast(
            env, self.directory, graph=graph, paths=paths, outcomes=outcomes, hand_on=requests.send
        )
        self.multicast = Multicast(
            env, self.directory, outcomes=outcomes, sealer=deliveries.sealer, requests=requests
        )

    def send(self, command: SendMessage) -> dict[str, Any] | None:
        """Send a message; its answer follows as an effect. Raises what sending to one CI raises,
        and for a selector what `anycast` and `multicast` do."""
        if not is_selector(command.target):
            self._requests.send(command)
            return None
        selector = parse_selector(command.target)
        if "key" in command.options:
            raise LocalError(
                "A message that may be sent again with its key goes to one CI by name.",
                hint="`tektonmesh trace SELECTOR --dry-run` shows who fits.",
            )
        if selector.kind == TEAM:
            self.multicast.send(command, selector)
        else:
            self.anycast.send(command, selector)
        return None

    def cancel(self, ticket: int) -> bool:
        """Whether `ticket` was a message to many; any other is `requests`' to cancel."""
        return self.multicast.cancel(ticket)

    def on_change(self, change: Change) -> None:
        self.directory.on_change(change)
