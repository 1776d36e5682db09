"""The blocking client, importable without Trio: `from tektonmesh.sync import Client`."""

from __future__ import annotations

from tektonmesh.api.dialect import Reply
from tektonmesh.api.sync import Client, Message, ReplyStream

__all__ = ["Client", "Message", "Reply", "ReplyStream"]
