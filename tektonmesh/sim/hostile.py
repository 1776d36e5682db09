"""Which hostile nodes there are: members with real keys that do not do as the protocol says.

What a host runs is named in `Options.hostile`. `sim/forgers.py` has those that lie about owners,
`sim/relays.py` those that mistreat what passes through them.
"""

from __future__ import annotations

from tektonmesh.core.node import Node
from tektonmesh.sim.forgers import Alterer, Equivocator, Forger, Minter, Postdater, Replayer
from tektonmesh.sim.relays import (
    Churner,
    ClockLiar,
    Corrupter,
    Delayer,
    DigestLiar,
    Dropper,
    Flooder,
    Keeper,
)

HOSTILE: dict[str, type[Node]] = {
    "alterer": Alterer,
    "forger": Forger,
    "equivocator": Equivocator,
    "replayer": Replayer,
    "postdater": Postdater,
    "minter": Minter,
    "dropper": Dropper,
    "delayer": Delayer,
    "corrupter": Corrupter,
    "digest-liar": DigestLiar,
    "flooder": Flooder,
    "churner": Churner,
    "keeper": Keeper,
    "clock-liar": ClockLiar,
}
RESTLESS = ("alterer", "forger", "corrupter", "flooder")
"""Those whose links are closed for what they send, again and again."""
