"""A node's liveness machines put together as `Node` does, and foreign stacks whose signed records
a test writes by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from tektonmesh.core.antientropy import AntiEntropy
from tektonmesh.core.dialling import Dialling
from tektonmesh.core.dissemination import Dissemination
from tektonmesh.core.effects import CloseLink, Dial, Effect, Notice, Send
from tektonmesh.core.events import DialFailed, LinkDown, LinkUp
from tektonmesh.core.graph import Graph
from tektonmesh.core.head import Head
from tektonmesh.core.keydoc import hash_doc
from tektonmesh.core.meshtime import MeshTime
from tektonmesh.core.messages import Delta, Message, Ping
from tektonmesh.core.names import Names
from tektonmesh.core.neighbours import Neighbours
from tektonmesh.core.owner import Owner
from tektonmesh.core.ownlinks import link_key
from tektonmesh.core.paths import Paths
from tektonmesh.core.record import RecordSet, kind_of
from tektonmesh.core.replica import Change, Replica
from tektonmesh.core.trust import Trust
from tektonmesh.core.types import SCOPE_OF_KIND, Saved, StackId, Status
from tektonmesh.wire.codec import Codec
from tests.support import WALL_S, advance, make_env, make_keys, number_of

START = 1000.0
"""The instant at which the clock of `make_env` starts."""

Links = Mapping[str, int | tuple[int, str]]


def id_of(name: str) -> StackId:
    """The id of the stack that tests call `name`."""
    return make_keys(number_of(name))[0].stack_id


def by_id(*names: str) -> list[str]:
    """These names in the order of their ids."""
    return sorted(names, key=id_of)


def link_records(links: Links) -> dict[str, dict[str, Any]]:
    """Link records from {"c": cost} or {"c": (cost, state)}."""
    records = {}
    for name, claim in links.items():
        cost, state = claim if isinstance(claim, tuple) else (claim, "up")
        records[link_key(id_of(name))] = {"peer": id_of(name), "cost": cost, "state": state}
    return records


class Stack:
    """A foreign owner. `delta` signs whatever records it is given as the next version."""

    def __init__(self, name: str) -> None:
        self.keys, self.identity = make_keys(number_of(name), name=name)
        self.ver = 0

    def delta(
        self, records: Mapping[str, Any], hlc: int, status: Status = Status.UP, lease_s: int = 300
    ) -> Delta:
        self.ver += 1
        codec = Codec()
        puts = [
            (int(SCOPE_OF_KIND[kind_of(key)]), key, codec.pack(value))
            for key, value in records.items()
        ]
        held = RecordSet().changed(puts, [])
        head = Head(
            mesh_id=self.identity.mesh_id,
            stack_id=self.identity.stack_id,
            key_epoch=0,
            epoch=1,
            ver=self.ver,
            content_ver=self.ver,
            hlc=hlc,
            lease_s=900 if status == Status.LEFT else lease_s,
            status=status,
            instance=self.identity.instance,
            roots=held.roots(),
            keydoc_hash=hash_doc(self.identity.keydoc.doc),
        )
        signed = head.sign(codec, self.keys)
        return Delta(signed, None, held.puts(), (), self.identity.keydoc)


class Rig:
    """The machines of stack `name` up to names and dialling, without forwarding and CIs. With a
    `base` it holds what that rig's replica holds, and its graph and names are layers over those."""

    def __init__(
        self,
        name: str = "a",
        *,
        saved: Saved | None = None,
        rng_seed: int = 1,
        own_name: str = "",
        base: Rig | None = None,
        **settings: Any,
    ) -> None:
        held = saved or {}
        self.env = env = make_env(name, rng_seed, **settings)
        if own_name:
            env.identity = replace(env.identity, name=own_name)
        if base is not None:
            env.now = base.env.now
        self.clock = MeshTime(env, held, WALL_S + env.now - START)
        self.trust = Trust(env, held, self.clock)
        self.replica = Replica(env, self.trust, self.clock, held)
        for owner, of_base in base.replica.owners.items() if base is not None else ():
            if owner != env.me:
                self.replica.owners[owner] = of_base.copy()
        self.owner = Owner(env, self.replica, self.clock, held)
        self.dissemination = Dissemination(env, self.replica)
        self.antientropy = AntiEntropy(env, self.replica, self.dissemination)
        self.neighbours = Neighbours(env, self.owner, self.clock, self.antientropy)
        self.graph = Graph(env, self.replica, self.neighbours, base and base.graph)
        self.paths = Paths(env, self.graph, self.neighbours)
        self.names = Names(env, self.replica, held, base and base.names)
        self.dialling = Dialling(env, self.replica, self.neighbours, self.trust, held)
        self.replica.watch(self._changed)
        self.me = env.me
        self._stacks: dict[str, Stack] = {} if base is None else base._stacks
        self._link = 0

    def _changed(self, change: Change) -> None:
        self.dissemination.on_change(change)
        self.antientropy.on_change(change)
        self.graph.on_change(change)
        self.names.on_change(change)
        self.dialling.on_change(change)

    # --- what the world does ---------------------------------------------------------------------

    def publish(
        self,
        name: str,
        links: Links | None = None,
        /,
        *,
        records: Mapping[str, Any] | None = None,
        addresses: Iterable[str] = (),
        status: Status = Status.UP,
        **own: Any,
    ) -> None:
        """Stack `name` publishes these links, addresses and records; `own` is its stack/self."""
        told: dict[str, Any] = {"stack/self": {"name": name} | own}
        told |= {f"addr/{at}": {"at": address} for at, address in enumerate(addresses)}
        told |= link_records(links or {}) | dict(records or {})
        stack = self._stacks.setdefault(name, Stack(name))
        self.replica.apply(stack.delta(told, self.clock.now_ms(), status), 0)

    def mesh(self, *edges: tuple[str, str, int]) -> None:
        """Everyone publishes these edges; those of this node come up as links."""
        links: dict[str, dict[str, int]] = {}
        for one, other, cost in edges:
            links.setdefault(one, {})[other] = cost
            links.setdefault(other, {})[one] = cost
        own = self.env.identity.name
        for name, claims in links.items():
            if name != own:
                self.publish(name, claims)
        for name in links.get(own, {}):
            self.link_up(name)

    def link_up(
        self,
        name: str,
        *,
        outbound: bool = True,
        instance: bytes = b"run 1",
        addresses: tuple[str, ...] = (),
        address: str = "",
        stack_id: StackId | None = None,
    ) -> int:
        """A link to stack `name` comes up; its number. Whether it was taken into use is seen in
        `neighbours.links`. The turn is run to its end."""
        self._link += 1
        _keys, identity = make_keys(number_of(name), name=name)
        event = LinkUp(
            link=self._link,
            stack_id=stack_id or identity.stack_id,
            name=name,
            keydoc=identity.keydoc,
            instance=instance,
            addresses=addresses,
            address=address or f"{name}.example:7700",
            outbound=outbound,
        )
        taken = self.neighbours.link_up(event)
        self.dialling.on_link_up(event)
        if taken:
            self.clock.link_up(event.link, event.stack_id)
            self.trust.link_up(event)
            self.dissemination.link_up(event.link, event.stack_id)
            self.antientropy.link_up(event.link, event.stack_id)
        self.env.deadlines.run_due(self.env.now)
        return self._link

    def link_down(self, link: int) -> bool:
        """A link ends; whether it was known."""
        event = LinkDown(link, "reset")
        known = self.neighbours.link_down(event)
        if known:
            self.antientropy.link_down(link)
            self.dissemination.link_down(link)
            self.clock.drop_link(link)
            self.dialling.on_link_down(event)
        return known

    def dial_failed(self, address: str, code: str = "unreachable", expect: str = "") -> None:
        expected = id_of(expect) if expect else None
        self.dialling.on_failed(DialFailed(address, expected, code, "no answer"))

    def advance(self, seconds: float) -> list[Effect]:
        """Let time pass, deadline by deadline; what was done since the last look."""
        before = self.env.take()
        return before + advance(self.env, seconds)

    def pause(self, seconds: float) -> list[Effect]:
        """This process does not run for a while and then runs everything that is overdue."""
        self.env.now += seconds
        self.env.deadlines.run_due(self.env.now)
        return self.env.take()

    # --- what is seen ----------------------------------------------------------------------------

    def take(self) -> list[Effect]:
        return self.env.take()

    def record(self, name: str) -> dict[str, Any] | None:
        """What this node publishes of its link to stack `name`."""
        return self.owner.get(link_key(id_of(name)))


def sent(effects: Iterable[Effect], kind: type, link: int | None = None) -> list[Any]:
    """The messages of one class that were sent (on one link)."""
    sends = [effect for effect in effects if isinstance(effect, Send)]
    messages: list[Message] = []
    for send in sends:
        if link is None or send.link == link:
            messages += send.messages
    return [message for message in messages if isinstance(message, kind)]


def pings(effects: Iterable[Effect], link: int | None = None) -> list[Ping]:
    return sent(effects, Ping, link)


def closes(effects: Iterable[Effect]) -> list[tuple[int, str]]:
    """(link, code) of the links that were closed."""
    return [(effect.link, effect.code) for effect in effects if isinstance(effect, CloseLink)]


def dials(effects: Iterable[Effect]) -> list[str]:
    """The addresses that were dialled, in order."""
    return [effect.address for effect in effects if isinstance(effect, Dial)]


def notices(effects: Iterable[Effect]) -> list[str]:
    return [effect.kind for effect in effects if isinstance(effect, Notice)]
