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
from tektonmesh.core.node import Node
from tektonmesh.core.types import Saved
from tektonmesh.errors import MeshError
from tektonmesh.net import identity as identities
from tektonmesh.net.link import LinkContext, LinkRefused
from tektonmesh.net.store import Store
from tektonmesh.net.tls import SeenLeaves, issue_leaf
from tektonmesh.net.wallclock import wall_s
from tektonmesh.wire.keys import mesh_key_of

_LOG = logging.getLogger(__name__)

RENEW_S = 3600.0
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
        identities.renew_prekey(self._home, self.keys, _wall_ms())

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

    async def keep_renewing(self) -> None:
        """Every hour a new ephemeral for what we seal, every day a new prekey, which the owner
        publishes with its next sign of life."""
        while True:
            await trio.sleep(RENEW_S)
            self.keys.renew_ephemeral()
            try:
                identities.renew_prekey(self._home, self.keys, _wall_ms())
            except (MeshError, OSError) as error:
                _LOG.warning("no new prekey can be kept: %s", error)


def _wall_ms() -> int:
    return int(wall_s() * 1000)
