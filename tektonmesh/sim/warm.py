"""Worlds that start in the middle of their life: all links up, all replicas equal.

Thousands of nodes that each joined one after the other would take hours to simulate, and ten
thousand full replicas are a hundred million entries. So one node, the base, is given every owner
with its records, as they would be had everyone been running for long; all others share its state
and copy what they change (`core/layers`). Which links there are is drawn here: an overlay with the
degree that `core/overlay` wants, half of the links within a region. That real nodes get to such an
overlay by themselves is shown by smaller worlds that start cold.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from tektonmesh.core.events import LinkUp
from tektonmesh.core.head import Head, Heads
from tektonmesh.core.keydoc import hash_doc
from tektonmesh.core.linkcost import cost_ms
from tektonmesh.core.node import Node
from tektonmesh.core.overlay import SLACK, links_wanted
from tektonmesh.core.ownlinks import UP, link_key
from tektonmesh.core.record import Put, RecordSet
from tektonmesh.core.types import SCOPE_OF_KIND, NodeSettings, Saved, SignedHead, Status
from tektonmesh.sim.host import WALL_START_S, Host
from tektonmesh.sim.keyring import MESH_ID, MESH_KEY, Memory, WorldCrypto, host_keys
from tektonmesh.sim.network import End
from tektonmesh.sim.regions import REGIONS, one_way_s
from tektonmesh.wire.codec import Codec
from tektonmesh.wire.keys import Keys

if TYPE_CHECKING:
    from tektonmesh.sim.world import World

HEADS_SHARED = 200_000
VERSION = "0"
START_MONO_S = 1_000.0


@dataclass(frozen=True, slots=True)
class WarmLink:
    """One link that is up from the start, dialled by `dialler`; its round trip in seconds."""

    dialler: int
    listener: int
    rtt_s: float


def overlay_edges(nodes: int, settings: NodeSettings, chance: Random) -> list[tuple[int, int]]:
    """(dialler, listener) pairs: the union of random rings, one half of them over all hosts, the
    other half within each region, so that every host chose half of its links and the whole is
    connected. Each has as many links as nodes come to have that look for nearer ones for minutes:
    with fewer, all would go on looking, and nothing measured would be of a mesh at rest."""
    wanted = SLACK + links_wanted(
        nodes,
        full_mesh=settings.links_full_mesh_max,
        least=settings.links_min,
        most=settings.links_max,
    )
    rings = max(1, wanted // 2)
    found: dict[tuple[int, int], None] = {}
    for number in range(rings):
        if number % 2:
            groups = [list(range(region, nodes, len(REGIONS))) for region in range(len(REGIONS))]
        else:
            groups = [list(range(nodes))]
        for group in groups:
            chance.shuffle(group)
            for at, dialler in enumerate(group):
                listener = group[(at + 1) % len(group)]
                known = (listener, dialler) in found or (dialler, listener) in found
                if dialler != listener and not known:
                    found[dialler, listener] = None
    _fill_up(nodes, min(wanted, nodes - 1), found, chance)
    return list(found)


def _fill_up(nodes: int, wanted: int, found: dict[tuple[int, int], None], chance: Random) -> None:
    """Rings that share an edge leave hosts with too few: these get one more each."""
    degree = [0] * nodes
    for one, other in found:
        degree[one] += 1
        degree[other] += 1
    for host in range(nodes):
        while degree[host] < wanted:
            short = [at for at in range(nodes) if degree[at] < wanted and at != host]
            other = chance.choice(short) if short else chance.randrange(nodes)
            pair = (host, other)
            if other == host or pair in found or pair[::-1] in found:
                if not short or len(short) < wanted:
                    other = chance.randrange(nodes)
                    pair = (host, other)
                if other == host or pair in found or pair[::-1] in found:
                    continue
            found[pair] = None
            degree[host] += 1
            degree[other] += 1


def links_of(nodes: int, settings: NodeSettings, chance: Random) -> list[WarmLink]:
    """The links of a warm world."""
    return [
        WarmLink(one, two, 2.0 * one_way_s(one, two))
        for one, two in overlay_edges(nodes, settings, chance)
    ]


class Warm:
    """Makes the base of a world and starts its hosts on it."""

    def __init__(self, world: World, memory: Memory, codec: Codec) -> None:
        self._world = world
        self._memory = memory
        self._codec = codec
        options = world.options
        self._settings = options.node_settings()
        self._chance = Random(f"warm {options.rng_seed}")
        self.links = links_of(options.nodes, self._settings, self._chance)
        self._of: list[list[tuple[int, float]]] = [[] for _ in world.hosts]
        for link in self.links:
            self._of[link.dialler].append((link.listener, link.rtt_s))
            self._of[link.listener].append((link.dialler, link.rtt_s))
        self._dialled = {(link.dialler, link.listener): None for link in self.links}
        self._made: dict[tuple[int, int], End] = {}
        self._keys: list[Keys] = []

    def start(self) -> None:
        """Everybody runs and is linked at the present instant."""
        world = self._world
        chances = [Random(f"node {world.options.rng_seed} {host.index} 1") for host in world.hosts]
        self._keys = [
            host.keys.keys(chance) for host, chance in zip(world.hosts, chances, strict=True)
        ]
        base = self._base()
        for host, chance in zip(world.hosts, chances, strict=True):
            crypto = WorldCrypto(self._keys[host.index], self._memory)
            world.put_node(host, self._node(host, chance, crypto, base))
        for host in world.hosts:
            world.resume_node(host, self._ends(host))

    def _node(self, host: Host, chance: Random, crypto: WorldCrypto, base: Node) -> Node:
        world = self._world
        settings = world.options.node_settings(listen=(host.address,), mesh_keys=(MESH_KEY,))
        return Node(
            host.keys.identity(_instance(host.index)),
            settings,
            crypto=crypto,
            codec=self._codec,
            chance=chance,
            saved={},
            now=host.mono(world.now),
            wall_s=host.wall(world.now),
            base=base,
        )

    # --- links -----------------------------------------------------------------------------------

    def _ends(self, host: Host) -> list[tuple[LinkUp, float]]:
        """What a host is told of its links; each end gets its number when it comes first."""
        return [self._link_up(host, peer, rtt_s) for peer, rtt_s in self._of[host.index]]

    def _link_up(self, host: Host, peer_index: int, rtt_s: float) -> tuple[LinkUp, float]:
        peer = self._world.hosts[peer_index]
        end = self._end(host, peer)
        event = LinkUp(
            link=end.link,
            stack_id=peer.stack_id,
            name=peer.name,
            keydoc=peer.keys.keydoc,
            instance=_instance(peer.index),
            addresses=(peer.address,),
            address=peer.address,
            outbound=end.number == 1,
        )
        return event, rtt_s

    def _end(self, host: Host, peer: Host) -> End:
        """This host's end of the link to a peer; the first of the two makes both."""
        key = min(host.index, peer.index), max(host.index, peer.index)
        made = self._made.pop(key, None)
        if made is not None:
            return made
        near, far = End(host, host.new_link(), 1), End(peer, peer.new_link(), 1)
        near.peer, far.peer = far, near
        dialled = (host.index, peer.index) in self._dialled
        near.number, far.number = int(dialled), int(not dialled)
        host.links[near.link], peer.links[far.link] = near, far
        self._made[key] = far
        return near

    # --- the base --------------------------------------------------------------------------------

    def _base(self) -> Node:
        """A node that holds all owners, and is no member itself."""
        world = self._world
        keys = host_keys(len(world.hosts))
        chance = Random("base")
        base = Node(
            keys.identity(bytes(8)),
            world.options.node_settings(mesh_keys=(MESH_KEY,)),
            crypto=WorldCrypto(keys.keys(chance), self._memory),
            codec=self._codec,
            chance=chance,
            saved=self._saved(),
            now=START_MONO_S + world.now,
            wall_s=WALL_START_S + world.now,
        )
        base.env.heads = Heads(HEADS_SHARED)
        return base

    def _saved(self) -> Saved:
        """The rows of a disk that holds all owners."""
        rows: Saved = {}
        for host in self._world.hosts:
            head, records = self._head(host)
            keydoc = host.keys.keydoc
            rows["keydoc", host.stack_id] = self._codec.pack([keydoc.doc, keydoc.sig, keydoc.proof])
            rows["head", host.stack_id] = self._codec.pack([head.head, head.sig, 0])
            for scope, key, value in records:
                rows["record", host.stack_id + bytes([scope]) + key.encode()] = value
        return rows

    def _head(self, host: Host) -> tuple[SignedHead, list[Put]]:
        """The newest head of one owner, and its records."""
        crypto, keydoc = self._keys[host.index], host.keys.keydoc
        puts = self._records(host)
        records = RecordSet().changed(puts, ())
        refresh_s = self._refresh_s()
        age_s = self._chance.uniform(0.0, refresh_s)
        hlc = int((WALL_START_S + self._world.now - age_s) * 1000)
        head = Head(
            mesh_id=MESH_ID,
            stack_id=host.stack_id,
            key_epoch=0,
            epoch=hlc - 3_600_000,
            ver=1 + int(3600 / refresh_s),
            content_ver=1,
            hlc=hlc,
            lease_s=min(900, int(3.0 * refresh_s)),
            status=Status.UP,
            instance=_instance(host.index),
            roots=records.roots(),
            keydoc_hash=hash_doc(keydoc.doc),
        )
        return head.sign(self._codec, crypto), puts

    def _refresh_s(self) -> float:
        settings, count = self._settings, len(self._world.hosts)
        return max(settings.refresh_min_s, min(settings.refresh_max_s, count / 10.0))

    def _records(self, host: Host) -> list[Put]:
        """What `core/owner` and `core/ownlinks` would say."""
        key_id, public = self._keys[host.index].prekey()
        told: dict[str, dict[str, object]] = {
            "stack/self": {
                "name": host.name,
                "mesh": host.keys.identity(b"").mesh,
                "version": "",
                "box": {"id": key_id, "pk": public},
                "relay": self._settings.relay,
                "since": int(WALL_START_S) - 3600,
                "specialties": [],
            },
            "addr/0": {"at": host.address},
        }
        for index, rtt_s in self._of[host.index]:
            peer = self._world.hosts[index].stack_id
            told[link_key(peer)] = {"peer": peer, "cost": cost_ms(rtt_s), "state": UP}
        return sorted(
            (int(SCOPE_OF_KIND[key.partition("/")[0]]), key, self._codec.pack(value))
            for key, value in told.items()
        )


def _instance(index: int) -> bytes:
    return index.to_bytes(8, "big")
