"""One stack with all that is known of it, and on what evidence: the answer of `explain`.

Pure reads. Times are seconds of mesh time since 1970, which is the voted clock of the mesh and not
that of this machine; ages are those of this node's last turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tektonmesh.core import views
from tektonmesh.core.chronicle import Entry
from tektonmesh.core.graph import Claim
from tektonmesh.core.held import Held
from tektonmesh.core.ids import show_id
from tektonmesh.core.ownlinks import link_key
from tektonmesh.core.types import StackId, Version

if TYPE_CHECKING:
    from tektonmesh.core.node import Node

WHAT_MAX = 4
"""Records of one change that are named in its `what`."""


def explain(node: Node, name: str) -> dict[str, Any]:
    """The stack of that name, id or short form. Raises what `Names.resolve_stack` raises."""
    owner = node.names.resolve_stack(name)
    held = node.replica.owners.get(owner)
    return views.stack(node, owner) | {
        "flags": _flags(node, owner, held),
        "signed": None if held is None else _signed(node, held),
        "links": _links(node, owner),
        "holders": _holders(node, owner, held),
        "refreshes": node.chronicle.refreshes(owner),
        "changes": _changes(node, owner),
    }


def _flags(node: Node, owner: StackId, held: Held | None) -> list[str]:
    """What sets this stack apart, in single words."""
    own = owner == node.env.me
    found = {
        "equivocated": held is not None and held.equivocated,
        "quarantined": held is not None and held.quarantined,
        "doubted": held is not None and held.doubted,
        "expired": held is not None and held.expired,
        "fenced": own and node.owner.fenced,
        "clock_alarm": own and node.clock.alarm,
    }
    return [flag for flag, holds in found.items() if holds]


def _signed(node: Node, held: Held) -> dict[str, Any]:
    """What the newest head says, and under which key it is signed."""
    head = held.head
    return {
        "version": list(held.version),
        "content_version": list(held.content_version),
        "hash": held.head_hash.hex(),
        "status": head.status.name.lower(),
        "at": head.hlc / 1000.0,
        "age_s": round(node.replica.age_s(held), 3),
        "heard_s": round(node.env.now - held.heard, 3),
        "lease_s": head.lease_s,
        "instance": head.instance.hex(),
        "key_epoch": head.key_epoch,
        "keydoc": held.keydoc_hash.hex(),
        "records": len(held.records),
        "record_bytes": held.record_set.size,
    }


# --- links ---------------------------------------------------------------------------------------


def _links(node: Node, owner: StackId) -> list[dict[str, Any]]:
    """Every link that one of its two ends speaks of, or did of late: what the stack itself says
    (`own`), what the other says (`peer`), and whether it counts."""
    losses = node.chronicle.losses(owner)
    own = node.graph.claims(owner)
    named = own | dict.fromkeys(node.graph.claimants(owner)) | dict.fromkeys(losses)
    if node.graph.claim(node.env.me, owner) is not None:
        named |= {node.env.me: None}
    rows = []
    for peer in named:
        mine, theirs = own.get(peer), node.graph.claim(peer, owner)
        loss = losses.get(peer)
        rows.append(
            {
                "stack": node.names.label(peer),
                "id": show_id(peer),
                "state": str(node.graph.state(peer)),
                "own": _claim(mine),
                "peer": _claim(theirs),
                "one_sided": (mine is None) != (theirs is None),
                "counts": node.graph.joined(owner, peer),
                "lost": None if loss is None else loss.state,
                "lost_s": None if loss is None else round(node.env.now - loss.at, 3),
            }
        )
    return sorted(rows, key=lambda row: (row["stack"], row["id"]))


def _claim(claim: Claim | None) -> dict[str, Any] | None:
    return None if claim is None else {"cost": claim[0], "state": claim[1]}


# --- who holds what ------------------------------------------------------------------------------


def _holders(node: Node, owner: StackId, held: Held | None) -> list[dict[str, Any]]:
    """What each neighbour holds of it as far as is known: what was sent to it or came from it
    last. `is` compares with what is held here."""
    rows = []
    _converged, diverged = node.antientropy.converged()
    for link, neighbour in node.neighbours.links.items():
        known = node.dissemination.known(link, owner)
        version = None if known is None else known.version
        if known is None and held is not None and neighbour.stack_id not in diverged:
            version = held.version  # the two replicas agreed since, whatever was noted before
        rows.append(
            {
                "stack": node.names.label(neighbour.stack_id),
                "id": show_id(neighbour.stack_id),
                "version": None if version is None else list(version),
                "is": _compared(version, None if held is None else held.version),
            }
        )
    return sorted(rows, key=lambda row: (row["stack"], row["id"]))


def _compared(theirs: Version | None, ours: Version | None) -> str:
    if theirs is None or ours is None:
        return "unknown"
    if theirs == ours:
        return "same"
    return "older" if theirs < ours else "newer"


# --- changes -------------------------------------------------------------------------------------


def _changes(node: Node, owner: StackId) -> list[dict[str, Any]]:
    """The last changes, the newest first."""
    entries = node.chronicle.entries(owner)
    names = {link_key(one): node.names.label(one) for one in node.replica.owners} if entries else {}
    return [_change(node, owner, entry, names) for entry in entries]


def _change(node: Node, owner: StackId, entry: Entry, names: dict[str, str]) -> dict[str, Any]:
    source = entry.source
    return {
        "at": entry.mesh_ms / 1000.0,
        "age_s": round(node.env.now - entry.at, 3),
        "kind": entry.kind,
        "keys": list(entry.keys),
        "keys_total": entry.keys_total,
        "what": _what(entry, names),
        "version": list(entry.version),
        "content_version": list(entry.content_version),
        "hash": entry.head_hash.hex(),
        "from": None if source is None else node.names.label(source),
        "latency_ms": entry.late_ms,
        "evidence": _evidence(entry, own=owner == node.env.me),
    }


def _what(entry: Entry, names: dict[str, str]) -> str:
    """The records that changed, with the names of stacks where the keys have ids."""
    shown = [f"link to {names[key]}" if key in names else key for key in entry.keys[:WHAT_MAX]]
    more = entry.keys_total - len(shown)
    return ", ".join([*shown, f"{more} more"] if more > 0 else shown)


def _evidence(entry: Entry, *, own: bool) -> str:
    """Why the change was believed. Nothing is taken from others whose signature is not right."""
    if own:
        return "made here"
    if entry.kind == "expired":
        return "the lease was over"
    signed = f"signed with key epoch {entry.version.key_epoch}"
    return f"two heads of one version, both {signed}" if entry.kind == "flagged" else signed
