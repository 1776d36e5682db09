"""The garbage collector of a daemon: when it looks, and at what.

Reference counts free nearly everything here; cycles are rare (an exception and its frames, an
ended task). With Python's defaults the collector still looks after every 700 new objects, which a
busy relay makes every few messages, and each tenth of these looks walks further, in the end over
all modules, classes and compiled code: a pause of 20 ms for nothing.
"""

from __future__ import annotations

import gc

YOUNG_MAX = 20_000
"""New objects, net of those freed, after which the collector looks at the young ones: about 5 MB.
Cycles are found that much later, which bounds what they can hold."""


def calm_collector() -> None:
    """Call once, when the daemon has started: what exists by then lives as long as the process and
    is not looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, 10, 10)
