"""A peer-to-peer federation of stacks of companion intelligences.

`Client` talks to this machine's daemon on Trio, `tektonmesh.sync.Client` without it. Both are
imported when they are first used, so that a verb of the command line pays for neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tektonmesh.api.client import Client, ReplyStream
    from tektonmesh.api.dialect import Reply, Request
    from tektonmesh.errors import MeshError

__version__ = "0.1.0"

__all__ = ["Client", "MeshError", "Reply", "ReplyStream", "Request", "__version__"]

_HOMES = {
    "Client": "tektonmesh.api.client",
    "ReplyStream": "tektonmesh.api.client",
    "Reply": "tektonmesh.api.dialect",
    "Request": "tektonmesh.api.dialect",
    "MeshError": "tektonmesh.errors",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
