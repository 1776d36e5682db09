"""What `tektonmesh keys` does: by the daemon if one runs, else on the files of its home.

Either way the root key is read by this process alone if its file is named, and never handed to the
daemon but to be put back into the home.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from tektonmesh.cli.common import Where
from tektonmesh.cli.render import emit_json
from tektonmesh.core.ids import group_id, parse_id, show_id
from tektonmesh.core.types import SignedKeyDoc
from tektonmesh.errors import LocalError, MeshError
from tektonmesh.net import identity, keydocs

_CARRIED_MAX = 8192


class KeyWork:
    """The acts of the verb. Each raises MeshError with what to try."""

    def __init__(self, where: Where) -> None:
        self._where = where

    # --- new keys --------------------------------------------------------------------------------

    def change(self, action: str, root_file: Path | None) -> None:
        """New keys, signed with the root key of the home or the one in `root_file`."""
        if root_file is None:
            shown = self._ask(change=action)
        else:
            shown = self._change_with(root_file, action)
        if shown is None:
            revoke = action == "revoke"
            keydocs.rotate(self._where.resolved_home(), root_file=root_file, revoke=revoke)
        self._changed(shown)

    def _change_with(self, root_file: Path, action: str) -> dict[str, Any] | None:
        """The daemon's answer, with the root key read here; None if none runs."""
        now = self._ask()
        if now is None:
            return None
        keydocs.root_in(root_file, parse_id(now["id"]))  # before anything is made
        shown = self._ask(prepare=action)
        if shown is None:
            return None
        doc, _ = keydocs.read_carried(shown["document"])
        return self._commit(keydocs.sign_with(root_file, doc))

    def _commit(self, signed: SignedKeyDoc) -> dict[str, Any] | None:
        return self._ask(commit=keydocs.signed_text(signed).strip())

    def _changed(self, shown: dict[str, Any] | None) -> None:
        """`shown` is the daemon's answer, nothing if none runs."""
        when = "at once" if shown is not None else "from the next start on"
        status = shown or self._status()
        self.show(f"New keys count {when} (key epoch {status['key_epoch']}).", status)

    def request(self, file: Path, *, revoke: bool) -> None:
        """Write the document that the root key has to sign."""
        kind = "revoke" if revoke else "rotate"
        shown = self._ask(prepare=kind)
        if shown is not None:
            text = str(shown["document"])
        else:
            with keydocs.stopped(self._where.resolved_home()) as (folder, _record):
                text = keydocs.request_text(folder.prepare(revoke=revoke))
        keydocs.write_file(text, file)
        click.echo(f"Sign it where the root key is: keys sign {file} --root KEY", err=True)

    def sign(self, file: Path, root_file: Path) -> None:
        """Sign a document that was carried here; no home is needed."""
        doc, _ = keydocs.read_carried(_read(file))
        signed = keydocs.sign_with(root_file, doc)
        target = file.with_name(file.name + ".signed")
        keydocs.write_file(keydocs.signed_text(signed), target)
        click.echo(f"Carry it back: keys import {target}", err=True)

    # --- files that come and go ------------------------------------------------------------------

    def take(self, file: Path) -> None:
        """A signed document, or the root key itself."""
        text = _read(file)
        if text.startswith("tektonmesh keydoc "):
            self._take_document(text)
            return
        text = identity.read_private(file)
        if self._ask(root=text.strip()) is None:
            keydocs.import_root(self._where.resolved_home(), file)
        self.show("The root key is back in the home.")

    def _take_document(self, text: str) -> None:
        shown = self._ask(commit=text.strip())
        if shown is None:
            doc, sig = keydocs.read_carried(text)
            with keydocs.stopped(self._where.resolved_home()) as (folder, record):
                taken = folder.commit(SignedKeyDoc(doc, sig, b""))
                record(keydocs.entry_of(taken), key_epoch=taken.key_epoch)
        self._changed(shown)

    def export(self, file: Path, *, offline: bool) -> None:
        """Copy the root key, and take it out of the home if it is to be offline."""
        home = self._where.resolved_home()
        if self._ask() is None:
            keydocs.export_root(home, file, offline=offline)
        else:
            keydocs.write_copy(keydocs.KeyFolder(home).root_text(), file)
            if offline:
                self._ask(root="away")
        self.show(f"The root key is in {file}; whoever has it can be this stack.")

    # --- the daemon, or the files ----------------------------------------------------------------

    def _ask(self, **params: Any) -> dict[str, Any] | None:
        """The daemon's answer; None if there is none to ask."""
        with ExitStack() as stack:
            try:
                client = stack.enter_context(self._where.client())
            except MeshError as error:
                if error.code.name != "no_daemon":
                    raise
                return None
            return dict(client.call("keys", **params))

    def _status(self) -> dict[str, Any]:
        found = keydocs.status(self._where.resolved_home())
        return found | {"id": show_id(found["id"])}

    def show(self, done: str, status: dict[str, Any] | None = None) -> None:
        """The keys as they are, after what was done."""
        status = status or self._ask() or self._status()
        if self._where.json:
            emit_json(status)
            return
        if done:
            click.echo(done, err=True)
        print(f"id         {group_id(parse_id(status['id']))}")
        print(f"key epoch  {status['key_epoch']}")
        print(f"signs with {status['op']}")
        print(f"root key   {status['root']}")


def _read(file: Path) -> str:
    """A small text file, whoever may read it. Raises LocalError."""
    try:
        with file.open("rb") as opened:
            return opened.read(_CARRIED_MAX).decode("ascii", "replace")
    except OSError as error:
        raise LocalError(f"{file} cannot be read: {error.strerror}.") from None
