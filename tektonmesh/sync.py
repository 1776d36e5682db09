"""The blocking client, importable without Trio: `from tektonmesh.sync import Client`."""

from __future__ import annotations

from tektonmesh.api.dialect import Reply
from tektonmesh.api.replies_sync import Message, ReplyStream
from tektonmesh.api.sync import Client
from tektonmesh.errors import MeshError

__all__ = ["Client", "MeshError", "Message", "Reply", "ReplyStream"]
