"""The keys of a running daemon: what they are, and how they change without a stop.

The daemon holds the lock of its home, so it alone changes the files in it. The root key stays where
it is: a document that it has to sign is handed out and comes back signed. Once the document is on
the disk the new keys count, whatever happens next; then this process takes them, all in one turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tektonmesh.api import validate
from tektonmesh.core import events as ev
from tektonmesh.core.effects import Audit
from tektonmesh.core.ids import show_id
from tektonmesh.core.keydoc import KeyDoc
from tektonmesh.core.types import SignedKeyDoc
from tektonmesh.errors import LocalError
from tektonmesh.net import keydocs
from tektonmesh.net.daemon import Daemon

Params = Mapping[str, Any]
CHANGES = ("rotate", "revoke")
TEXT_SIZE_MAX = 4096
KEY_SIZE_MAX = 256


class KeyKeeping:
    """The acts of the method `keys`, all of them the owner's."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._folder = keydocs.KeyFolder(daemon.config.home)

    async def keys(self, params: Params) -> dict[str, Any]:
        """`{}`: the keys, without a secret; `{"change": "rotate"|"revoke"}`: new ones, if the root
        key is here; `{"prepare": "rotate"|"revoke"}`: a `document` that the root key has to sign;
        `{"commit": TEXT}`: that document with its signature; `{"root": "away"}` after a copy was
        made, `{"root": TEXT}` to put it back."""
        if params.get("change") is not None:
            self._folder.signer()
            prepared = self._folder.prepare(revoke=_change(params, "change"))
            return await self._commit(self._folder.sign(prepared))
        if params.get("prepare") is not None:
            prepared = self._folder.prepare(revoke=_change(params, "prepare"))
            return {"document": keydocs.request_text(prepared)}
        if params.get("commit") is not None:
            text = validate.text(params, "commit", default="", size_max=TEXT_SIZE_MAX)
            doc, sig = keydocs.read_carried(text)
            if not sig:
                raise LocalError("This document is not signed yet.", hint="See `keys sign`.")
            return await self._commit(SignedKeyDoc(doc, sig, b""))
        if params.get("root") is not None:
            self._root(validate.text(params, "root", default="", size_max=KEY_SIZE_MAX))
        return self._status()

    async def _commit(self, signed: SignedKeyDoc) -> dict[str, Any]:
        """From the disk to this process to the mesh; nothing waits in between."""
        daemon, credentials = self._daemon, self._daemon.credentials
        issued_at = credentials.next_issued_at()
        doc: KeyDoc = self._folder.commit(signed)
        credentials.adopt(issued_at)
        keys, keydoc = credentials.keys, credentials.identity.keydoc
        daemon.auditing.rekey(keys, keydocs.entry_of(doc), key_epoch=doc.key_epoch)
        await daemon.ask(lambda ticket: ev.TakeKeys(ticket, keydoc, keys))
        return self._status()

    def _root(self, text: str) -> None:
        if text == "away":
            self._folder.take_root_away()
            self._audit("root_key_exported", offline=True)
        else:
            self._folder.put_root_back(text)
            self._audit("root_key_imported")

    def _audit(self, kind: str, **data: Any) -> None:
        self._daemon.auditing.entry(Audit(kind, data))

    def _status(self) -> dict[str, Any]:
        shown = keydocs.status(self._daemon.config.home)
        return shown | {"id": show_id(shown["id"])}


def _change(params: Params, key: str) -> bool:
    """Whether the change is a revocation."""
    change = validate.text(params, key, default="", size_max=16)
    if change not in CHANGES:
        raise validate.field_error(key, f"must be one of {', '.join(CHANGES)}")
    return change == "revoke"
