"""What must become of durable messages in every world (docs/design/forwarding.md).

An accepted message reaches one inbox row on its destination's disk, never two, and its origin knows
its end once the world is healed. A body that came in parts is the one that was sent.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from tektonmesh.core.effects import Answer, AnswerChunk, AnswerFailed, Deliver, Save
from tektonmesh.core.outgoing import PARKED
from tektonmesh.sim.host import Host
from tektonmesh.sim.letters import large_body
from tektonmesh.sim.watcher import Watcher
from tektonmesh.sim.world import World

ENDS = ("answered", "failed")


class LettersArrive(Watcher):
    """An accepted message has one inbox row, and its origin knows its end."""

    name = "letters-arrive"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._accepted: dict[bytes, tuple[int, str]] = {}
        self._rows: dict[tuple[int, bytes], int] = {}
        self._places: dict[bytes, dict[int, None]] = {}
        self._given: dict[bytes, int] = {}
        for host in world.hosts:
            host.disk.applied = partial(self._durable, host)

    def answered(self, host: Host, effect: Answer | AnswerFailed | AnswerChunk) -> None:
        call = self.world.workload.calls.get(effect.ticket)
        if call is None or call.kind != "post" or not isinstance(effect, Answer):
            return
        self._accepted[bytes.fromhex(effect.result["id"])] = (host.index, call.target)
        self.count("letters_accepted")

    def _durable(self, host: Host, save: Save) -> None:
        """Rows of the inbox as they become durable."""
        for table, key, value in save.rows:
            if table == "inbox" and value is not None:
                place = (host.index, key)
                self._rows[place] = self._rows.get(place, 0) + 1
                self._places.setdefault(key[32:], {})[host.index] = None
                if self._rows[place] > 1 or len(self._places[key[32:]]) > 1:
                    self.fail(host, f"the message {key[32:].hex()} has a second inbox row")

    def delivered(self, host: Host, deliver: Deliver) -> None:
        if deliver.large is not None:
            got = bytes(host.disk.files.bodies.get(deliver.large.name, b""))
            if got != large_body(deliver.large.size):
                self.fail(host, f"the body of {deliver.msg_id.hex()} is not the one that was sent")
            self.count("large_bodies")
        origin = self._accepted.get(deliver.msg_id)
        if origin is not None and self.world.hosts[origin[0]].node is None:
            self.count("letters_without_origin")
        if deliver.msg_id not in self._places:
            return
        before = self._given.get(deliver.msg_id, -1)
        if deliver.attempt < before:
            self.fail(host, f"attempt {deliver.attempt} of {deliver.msg_id.hex()} after {before}")
        self._given[deliver.msg_id] = deliver.attempt

    def settled(self) -> None:
        """The world is healed: everything that was accepted has its end, and the right one."""
        for msg_id, (index, target) in self._accepted.items():
            host = self.world.hosts[index]
            if host.node is None:
                continue
            shown = host.node.durable.outbox.history(msg_id)
            if shown is None:
                self.fail(host, f"lost the message {msg_id.hex()} to {target}")
            elif shown["state"] not in ENDS:
                self.fail(host, f"the message {msg_id.hex()} to {target} is {shown['state']}")
            elif shown["state"] == "answered" and msg_id not in self._places:
                self.fail(host, f"the message {msg_id.hex()} to {target} was never in an inbox")
            elif shown["state"] == "failed" and not self._may_fail(shown, target):
                self.fail(host, f"the message to {target} failed: {shown['error']}")
            else:
                self.count("letters_ended")
                states = [step["state"] for step in shown["transitions"]]
                self.count("letters_parked", states.count(PARKED))

    def _may_fail(self, shown: dict[str, Any], target: str) -> bool:
        code = shown["error"]["code"]
        name, _, stack = target.partition("@")
        refuses = name.startswith("fail") and code == "ci_failed"
        # A CI that is deregistered may be forgotten by a stack that was away meanwhile.
        gone = code == "not_found" and not self.world.workload.has(stack, name)
        return refuses or gone
