"""Why a stack is in the state that it is shown in, in a sentence or two, from what is known here.

Pure reads for people: the states themselves are derived in `graph`. A reason names who said what,
and how long ago; after a start of this node some of that is not known any more and left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tektonmesh.core.held import Held
from tektonmesh.core.ownlinks import SUSPECT, UP
from tektonmesh.core.types import StackId, StackState

if TYPE_CHECKING:
    from tektonmesh.core.node import Node

NAMES_MAX = 3
_GONE = (StackState.LEFT, StackState.DEREGISTERED)


def reason(node: Node, stack_id: StackId, hops: int) -> str:
    """Why this stack is shown in its state. `hops` is the length of the path that leads there,
    below 1 when none does."""
    if stack_id == node.env.me:
        return " ".join(_of_self(node))
    held = node.replica.owners.get(stack_id)
    if held is None:
        return "Nothing is known of it."
    state = node.graph.state(stack_id)
    return " ".join([*_REASONS[state](node, held, hops), *_remarks(node, held, state)])


def duration(seconds: float) -> str:
    """A length of time: `0.4 s`, `12 s`, `3 min`, `2 h`, `5 d`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


# --- this stack ----------------------------------------------------------------------------------


def _of_self(node: Node) -> list[str]:
    said = ["This is the stack that you ask."]
    if node.owner.fenced:
        said.append(
            "It publishes nothing more: another process runs with its identity, or it has no "
            "epochs left."
        )
    elif not node.owner.published:
        said.append("It has published nothing yet.")
    elif node.owner.draining:
        held = [f"{what} {count}" for what, count in node.draining.held().items()]
        said.append(f"It is about to leave; it still holds {', '.join(held) or 'nothing'}.")
    if node.clock.alarm:
        said.append(
            "Its clock is over a minute from that of the mesh; no stack is deregistered meanwhile."
        )
    if not node.neighbours.links:
        said.append("It has no link to any other stack.")
    return said


# --- others, by state ----------------------------------------------------------------------------


def _left(node: Node, held: Held, _hops: int) -> list[str]:
    return [f"It said itself {duration(node.replica.age_s(held))} ago that it leaves."]


def _deregistered(node: Node, held: Held, _hops: int) -> list[str]:
    over_s = node.replica.age_s(held) - held.head.lease_s
    return [f"Its lease ended {duration(max(0.0, over_s))} ago, and nothing newer came of it."]


def _up(node: Node, held: Held, hops: int) -> list[str]:
    owner = held.head.stack_id
    link = node.neighbours.link_to(owner)
    if link is not None:
        ago = duration(node.env.now - link.heard)
        said = [f"This stack is linked to it and heard it {ago} ago."]
    elif hops > 0:
        said = [f"A path of {hops} hops leads there."]
    else:
        said = ["The links that lead there are suspect, so nothing is sent over them for now."]
    if node.graph.draining(owner):
        said.append("It says that it is about to leave.")
    observers = node.graph.observers(owner)
    if len(observers) == 1:
        who = _names(node, observers)
        said.append(f"Only {who} is linked to it, so only {who} can tell whether it lives.")
    return said


def _unreachable(node: Node, held: Held, _hops: int) -> list[str]:
    if held.equivocated:
        version = ".".join(map(str, held.version))
        return [
            f"It signed two different states under one version ({version} is kept here), so "
            "nothing that it says counts until it starts anew."
        ]
    if held.quarantined:
        return ["One of its records cannot be read, so none of them counts."]
    said = ["No path leads there."]
    if not node.graph.observers(node.env.me):
        said = ["This stack has no link to anybody, so no path leads anywhere."]
    end = node.chronicle.end(held.head.stack_id)
    if end is not None:
        ago = duration(node.env.now - end.at)
        said.append(f"The link of this stack to it ended {ago} ago: {end.why.rstrip('.')}.")
    return [*said, *_of_neighbours(node, held.head.stack_id)]


_REASONS: dict[StackState, Callable[[Node, Held, int], list[str]]] = {
    StackState.LEFT: _left,
    StackState.DEREGISTERED: _deregistered,
    StackState.UP: _up,
    StackState.UNREACHABLE: _unreachable,
}


def _remarks(node: Node, held: Held, state: StackState) -> list[str]:
    """What else people should know of a stack that is not gone."""
    said: list[str] = []
    if state in _GONE:
        return said
    over_s = node.replica.age_s(held) - held.head.lease_s
    if over_s > 0:
        until = "while the clocks disagree" if node.clock.alarm else "half a minute longer"
        said.append(f"Its lease ended {duration(over_s)} ago; it stays listed {until}.")
    if held.doubted:
        said.append("A change of it did not fit what is held here, so all of it was asked for.")
    return said


# --- what its neighbours say ---------------------------------------------------------------------


def _of_neighbours(node: Node, owner: StackId) -> list[str]:
    """What everybody who is or was linked to an unreachable stack says of that link. Those whose
    word it does not confirm are looked for only if there is nobody else: it takes a look at all."""
    losses = node.chronicle.losses(owner)
    groups: dict[str, list[StackId]] = {}
    peers = list(node.graph.claims(owner) | dict.fromkeys(losses))
    for peer in peers or node.graph.claimants(owner):
        groups.setdefault(_word_of(node, peer, owner), []).append(peer)
    parts = []
    for word, peers in groups.items():
        does = _WORDS[word][len(peers) > 1]
        ages = [node.env.now - losses[peer].at for peer in peers if peer in losses]
        if word in _DATED and ages:
            does += f" {duration(min(ages))} ago"
        parts.append((_names(node, peers), does))
    count = sum(map(len, groups.values()))
    if not count:
        return ["It names no neighbour, and nobody names it."]
    if count > 1:
        told = "; ".join(f"{who} {does}" for who, does in parts)
        return [f"Of its {count} neighbours, {told}."]
    who, does = parts[0]
    said = [f"Its only neighbour, {who}, {does}."]
    if not groups.keys().isdisjoint(_DATED):
        said.append("Nobody else can tell whether it lives.")
    return said


_WORDS = {
    "left": ("left", "left"),
    "deregistered": ("is deregistered", "are deregistered"),
    "withdrawn": ("withdrew its link", "withdrew their links"),
    "suspect": ("called its link suspect", "called their links suspect"),
    "unconfirmed": ("says that it is linked, which it does not confirm",
                    "say that they are linked, which it does not confirm"),
    "unreachable": ("is not reachable either", "are not reachable either"),
    "silent": ("says nothing of a link", "say nothing of a link"),
}  # fmt: skip
"""What one stack, and what several of them, say of their link to the unreachable one."""
_DATED = ("withdrawn", "suspect")


def _word_of(node: Node, peer: StackId, owner: StackId) -> str:
    state = node.graph.state(peer)
    if state in _GONE:
        return str(state)
    claim = node.graph.claim(peer, owner)
    if claim is None:
        return "withdrawn" if peer in node.chronicle.losses(owner) else "silent"
    if claim[1] == SUSPECT:
        return "suspect"
    assert claim[1] == UP
    return "unreachable" if node.graph.claim(owner, peer) is not None else "unconfirmed"


def _names(node: Node, stacks: Sequence[StackId]) -> str:
    shown = sorted("this stack" if one == node.env.me else node.names.label(one) for one in stacks)
    more = len(shown) - NAMES_MAX
    if more > 0:
        return f"{', '.join(shown[:NAMES_MAX])} and {more} more"
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))
