"""What the core of a daemon is told from its configuration."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tektonmesh import __version__
from tektonmesh.config import Config
from tektonmesh.core.ids import parse_id
from tektonmesh.core.types import NodeSettings

_SIZES = ("park_bytes", "large_body_max", "large_bodies_bytes")


def settings_of(
    config: Config, mesh_keys: tuple[bytes, ...], listen: tuple[str, ...]
) -> NodeSettings:
    """What a node is told from a configuration."""
    settings = NodeSettings(
        listen=listen,
        seed_peers=config.seeds,
        seeds_only=config.seeds_only,
        mesh_keys=mesh_keys,
        allowed_ids=tuple(parse_id(text) for text in config.allow),
        share_default=config.share_default,
        relay=config.relay,
        padding=config.padding,
        # Where the secret alone does not admit, it still opens the door to the pending list.
        extra={
            "admission": "secret" if config.admission == "secret" else "approve",
            "version": __version__,
        },
    )
    sizes = {kind: getattr(config, kind) for kind in _SIZES}
    given: dict[str, Any] = {kind: int(size) for kind, size in sizes.items() if size is not None}
    settings = replace(settings, **given)
    for kind in ("relay_per_s", "relay_bytes_per_s"):
        limit = getattr(config, kind)
        if limit is not None:
            settings = replace(settings, **{kind: limit, f"foreign_{kind}": limit})
    if config.lease_s is not None:
        # A lease holds for three signs of life unless somebody says otherwise.
        third = config.lease_s / 3.0
        settings = replace(
            settings,
            lease_s=config.lease_s,
            refresh_min_s=min(settings.refresh_min_s, third),
            refresh_max_s=min(settings.refresh_max_s, third),
        )
    if config.refresh_s is None:
        return settings
    return replace(settings, refresh_min_s=config.refresh_s, refresh_max_s=config.refresh_s)
