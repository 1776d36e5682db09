"""Settings, names and places: everything that is decided before a daemon or a client starts.

The package reads files and the environment and imports neither Trio nor the core; a client that
only wants the path of the socket pays for nothing else (`load` is imported on first use).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tektonmesh.config.home import resolve_home, socket_path

if TYPE_CHECKING:
    from tektonmesh.config.load import Config, load_config
    from tektonmesh.config.secret import LAN_TEST_SECRET

__all__ = ["LAN_TEST_SECRET", "Config", "load_config", "resolve_home", "socket_path"]


def __getattr__(name: str) -> Any:
    if name in ("Config", "load_config"):
        from tektonmesh.config import load

        return getattr(load, name)
    if name == "LAN_TEST_SECRET":
        from tektonmesh.config.secret import LAN_TEST_SECRET

        return LAN_TEST_SECRET
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
