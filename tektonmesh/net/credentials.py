"""What a running daemon proves itself with: its keys, and the certificate of this start.

It decides when a certificate is issued anew and when keys are renewed; the files are
`net/identity`'s, the certificate `net/tls`'s, the handshake `wire/handshake`'s.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace

import trio

from tektonmesh.config import Config
from tektonmesh.core.keydoc import KeyDoc
from tektonmesh.core.node import Node
from tektonmesh.core.types import Saved
from tektonmesh.errors import MeshError
from tektonmesh.net import identity as identities
from tektonmesh.net.link import LinkContext, LinkRefused
from tektonmesh.net.store import Store
from tektonmesh.net.tls import SeenLeaves, issue_leaf
from tektonmesh.net.wallclock import wall_s
from tektonmesh.wire.codec import Codec
from tektonmesh.wire.keys import mesh_key_of

_LOG = logging.getLogger(__name__)

RENEW_S = 3600.0
SETTLE_S = 60.0
"""So long after a change of keys what is sealed is still sealed with the old ones, since the news
of the new ones may come later than what is said now. A guess: news are everywhere within seconds,
and what comes too early is sealed anew."""
REISSUE_S = 60.0
LEAF_TABLE = "leaf"


class Credentials:
    """The identity in a home. Raises LocalError and StoreError as `net/identity` does."""

    def __init__(self, config: Config) -> None:
        self.mesh_keys = tuple(mesh_key_of(line, config.mesh) for line in config.secret)
        self.identity, self.keys = identities.load_or_create(
            config.home, config.name, config.mesh, self.mesh_keys
        )
        self._home = config.home
        self._issued = trio.current_time()
        self._context: LinkContext | None = None
        self._changed = trio.Event()
        self.keys.forget_root()  # a daemon signs no key document but on demand
        identities.renew_prekey(self._home, self.keys, _wall_ms())

    @property
    def key_epoch(self) -> int:
        return KeyDoc.decode(Codec(), self.identity.keydoc.doc).key_epoch

    def open(
        self, saved: Saved, store: Store, listen: Callable[[], Iterable[str]], node: Node
    ) -> None:
        """Issue the certificate of this start; `context` works from here on."""
        known = {
            key: int.from_bytes(value, "big")
            for (table, key), value in saved.items()
            if table == LEAF_TABLE
        }

        def save(identity_key: bytes, issued_at: int) -> None:
            store.queue([(LEAF_TABLE, identity_key, issued_at.to_bytes(8, "big"))])

        self._context = LinkContext(
            identity=self.identity,
            keys=self.keys,
            leaf=issue_leaf(self.keys, identities.next_issued_at(self._home, _wall_ms())),
            mesh_keys=self.mesh_keys,
            listen=listen,
            judge=node.judge,
            judge_invite=node.invites.judge,
            invite_for=node.invites.shows,
            seen=SeenLeaves(known, save),
        )

    def context(self) -> LinkContext:
        """What the next link is made with."""
        assert self._context is not None, "links are made after the start"
        return self._context

    def on_stale_leaf(self, refusal: LinkRefused) -> None:
        """A peer remembers a newer certificate of ours (a restored home, a clock set back): issue
        a newer one still, at most once a minute."""
        now = trio.current_time()
        if now - self._issued < REISSUE_S:
            return
        self._issued = now
        try:
            issued_at = identities.next_issued_at(self._home, _wall_ms(), above=refusal.highest)
        except (MeshError, OSError) as error:
            # A full disk must not let a peer's word end the daemon; the next refusal tries again.
            _LOG.warning("no newer certificate can be issued: %s", error)
            return
        self._context = replace(self.context(), leaf=issue_leaf(self.keys, issued_at))

    def adopt(self, issued_at: int) -> None:
        """Prove ourselves with the keys that are on the disk now, by a certificate with this
        `issued_at`. Links that are up stay. Raises LocalError and StoreError."""
        before, me = self.keys, self.identity
        identity, keys = identities.load_or_create(self._home, me.name, me.mesh, self.mesh_keys)
        keys.forget_root()
        if KeyDoc.decode(Codec(), identity.keydoc.doc).grace:
            keys.follow(before)
        # The instance is that of the process: a new one would look like a restart.
        self.identity, self.keys = replace(identity, instance=me.instance), keys
        leaf = issue_leaf(keys, issued_at)
        self._context = replace(self.context(), identity=self.identity, keys=keys, leaf=leaf)
        self._changed.set()

    def next_issued_at(self) -> int:
        """For `adopt`. Raises StoreError if it cannot be kept."""
        return identities.next_issued_at(self._home, _wall_ms())

    async def keep_renewing(self) -> None:
        """Every hour a new ephemeral for what we seal, every day a new prekey, which the owner
        publishes with its next sign of life; and after a change of keys an end of the old ones."""
        while True:
            with trio.move_on_after(RENEW_S) as wait:
                await self._changed.wait()
            if not wait.cancelled_caught:
                self._changed = trio.Event()
                await trio.sleep(SETTLE_S)
                self.keys.settle()
                continue
            self.keys.renew_ephemeral()
            try:
                identities.renew_prekey(self._home, self.keys, _wall_ms())
            except (MeshError, OSError) as error:
                _LOG.warning("no new prekey can be kept: %s", error)


def _wall_ms() -> int:
    return int(wall_s() * 1000)
