"""From files, environment and command line to one `Config`: who wins, and what follows from what.

The order is: command line, settings file, environment, default. What depends on something else
(the default of sharing on the secret, HTTP on Tekton) is settled here, so that the daemon reads
plain values.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tektonmesh.config.home import socket_path, tekton_environment, tekton_root
from tektonmesh.config.names import PORT_MAX, check_name, nearest, normalise_name
from tektonmesh.config.secret import LAN_TEST_SECRET, read_or_create_secret
from tektonmesh.config.settings import BY_KEY, View, read_settings
from tektonmesh.errors import LocalError

LAN_MESH = "lan"
DEFAULT_MESH = "home"
TEKTON_PORT_OFFSET = 90

_EXTRA_OVERRIDES = ("lan", "socket")
_ADDED = ("allow", "seeds")
"""Lists to which the command line adds; every other override replaces."""
_OPTIONS = {"seeds": "--seed", "allow": "--admit"}
"""Options of `run` that are not called as their setting."""


@dataclass(frozen=True)
class Config:
    """What a daemon is told at start. Paths are absolute, names are in the grammar.

    `secret` holds the lines of the mesh secret, newest first (never shown); `listen` is None when
    nobody asked for an address: 0.0.0.0:7700 and [::]:7700, or the next free port. `refresh_s` is
    None for the interval by the size of the mesh; `http` is None when HTTP over TCP is off. Limits
    that are None are those of `NodeSettings`.
    """

    home: Path
    name: str
    mesh: str
    secret: tuple[str, ...]
    lan: bool
    admission: str
    allow: tuple[str, ...]
    listen: tuple[str, ...] | None
    seeds: tuple[str, ...]
    seeds_only: bool
    mdns: bool
    http: str | None
    socket: Path
    share_default: str
    relay: str
    refresh_s: float | None
    tekton_root: Path | None
    log_level: str
    lease_s: float | None = None
    allow_endpoint_hosts: tuple[str, ...] = ()
    allow_uids: tuple[int, ...] = ()
    log_json: bool = False
    audit_full: str = "refuse"
    http_tls: tuple[Path, Path] | None = None
    http_hosts: tuple[str, ...] = ()
    oauth: tuple[str, str, Path] | None = None
    """Issuer, audience, and the file of the issuer's keys."""
    relay_per_s: float | None = None
    relay_bytes_per_s: float | None = None
    padding: bool = False
    park_bytes: float | None = None
    large_body_max: float | None = None
    large_bodies_bytes: float | None = None
    mcp: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    mcp_views: Mapping[str, View] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Config(home={str(self.home)!r}, name={self.name!r}, mesh={self.mesh!r})"


def load_config(
    home: Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    announce: Callable[[str], None] | None = None,
) -> Config:
    """The configuration of the stack in `home`. `overrides` has the keys of the settings file
    (values as in it, tuples for lists; None is not given) and `lan` and `socket`.

    Raises LocalError that names the file and key. Writes nothing but a missing secret file,
    which it tells `announce` in a sentence.
    """
    given = _check_overrides(overrides or {})
    settings = read_settings(home)
    chosen = settings | {key: value for key, value in given.items() if key not in _ADDED}
    for key in _ADDED:
        both = (*settings.get(key, ()), *given.get(key, ()))
        chosen[key] = tuple(dict.fromkeys(both))
    environ = tekton_environment()
    lan = bool(chosen.get("lan", False))
    secret = _secret(home, chosen, announce, lan=lan)
    own_mesh = bool(secret)
    return Config(
        home=home,
        name=chosen.get("name") or default_name(environ),
        mesh=chosen.get("mesh") or (LAN_MESH if lan else DEFAULT_MESH),
        secret=secret,
        lan=lan,
        admission=_admission(home, chosen, own_mesh=own_mesh),
        allow=chosen["allow"],
        listen=chosen.get("listen") or None,
        seeds=chosen["seeds"],
        seeds_only=chosen.get("seeds_only", False),
        mdns=chosen.get("mdns", True),
        http=_http(chosen, {} if lan else environ),
        socket=Path(chosen.get("socket") or environ.get("TEKTONMESH_SOCKET") or socket_path(home)),
        share_default=chosen.get("share_default") or ("public" if own_mesh else "private"),
        relay=chosen.get("relay", "members"),
        refresh_s=chosen.get("refresh_s"),
        tekton_root=tekton_root(environ),
        log_level=chosen.get("log_level", "info"),
        lease_s=_lease(home, chosen),
        allow_endpoint_hosts=chosen.get("allow_endpoint_hosts", ()),
        allow_uids=chosen.get("allow_uids", ()),
        log_json=chosen.get("log_json", False),
        audit_full=chosen.get("audit_full", "refuse"),
        http_tls=_http_tls(home, chosen),
        http_hosts=chosen.get("http_hosts", ()),
        oauth=_oauth(home, chosen),
        relay_per_s=chosen.get("relay_per_s"),
        relay_bytes_per_s=chosen.get("relay_bytes_per_s"),
        padding=chosen.get("padding", False),
        park_bytes=chosen.get("park_bytes"),
        large_body_max=chosen.get("large_body_max"),
        large_bodies_bytes=chosen.get("large_bodies_bytes"),
        mcp=chosen.get("mcp", {}),
        mcp_views=chosen.get("mcp_views", {}),
    )


def default_name(environ: Mapping[str, str] | None = None) -> str:
    """The name of a stack that was given none: Tekton's, else the host's brought into the
    grammar. Raises LocalError when Tekton's does not fit it: a name people use is not changed."""
    known = tekton_environment() if environ is None else environ
    tekton = known.get("TEKTON_REGISTRY_NAME", "")
    if tekton:
        return check_name(tekton.lower(), "$TEKTON_REGISTRY_NAME")
    return normalise_name(socket.gethostname())


def _check_overrides(overrides: Mapping[str, Any]) -> dict[str, Any]:
    checked: dict[str, Any] = {}
    for key, value in overrides.items():
        if value is None or value == ():
            continue
        if key in _EXTRA_OVERRIDES:
            checked[key] = value
            continue
        if key not in BY_KEY:
            near = nearest(key, (*BY_KEY, *_EXTRA_OVERRIDES))
            raise LocalError(f"There is no setting '{key}'.", hint=f"Did you mean '{near}'?")
        plain = list(value) if isinstance(value, tuple) else value
        checked[key] = BY_KEY[key].read(plain, _OPTIONS.get(key, "--" + key.replace("_", "-")))
        if key == "secret_file":
            # A path on the command line is relative to where it is typed, not to the home.
            checked[key] = str(Path(value).expanduser().absolute())
    return checked


def _secret(
    home: Path,
    chosen: Mapping[str, Any],
    announce: Callable[[str], None] | None,
    *,
    lan: bool,
) -> tuple[str, ...]:
    named = chosen.get("secret_file")
    if named:
        return read_or_create_secret(home / Path(named).expanduser(), announce)
    return (LAN_TEST_SECRET,) if lan else ()


def _admission(home: Path, chosen: Mapping[str, Any], *, own_mesh: bool) -> str:
    admission = chosen.get("admission")
    if admission == "secret" and not own_mesh:
        raise LocalError(
            f"{home}: admission is 'secret' but there is no mesh secret.",
            hint="Name one with secret_file or --secret-file.",
        )
    return admission or ("secret" if own_mesh else "allowlist")


def _http_tls(home: Path, chosen: Mapping[str, Any]) -> tuple[Path, Path] | None:
    cert, key = chosen.get("http_cert"), chosen.get("http_key")
    if bool(cert) != bool(key):
        raise LocalError(
            f"{home}: http_cert and http_key belong together, and only one of them is set."
        )
    if not cert or not key:
        return None
    return home / Path(cert).expanduser(), home / Path(key).expanduser()


def _oauth(home: Path, chosen: Mapping[str, Any]) -> tuple[str, str, Path] | None:
    issuer, jwks = chosen.get("oauth_issuer"), chosen.get("oauth_jwks")
    if bool(issuer) != bool(jwks):
        raise LocalError(
            f"{home}: oauth_issuer and oauth_jwks belong together, and only one of them is set."
        )
    if not issuer or not jwks:
        return None
    audience = chosen.get("oauth_audience", "tektonmesh")
    return issuer, audience, home / Path(jwks).expanduser()


def _lease(home: Path, chosen: Mapping[str, Any]) -> float | None:
    lease_s: float | None = chosen.get("lease_s")
    refresh_s = chosen.get("refresh_s")
    if lease_s is not None and refresh_s is not None and lease_s < 2 * refresh_s:
        raise LocalError(
            f"{home}: lease_s is {lease_s:g} and refresh_s is {refresh_s:g}.",
            hint="A lease must hold for at least two signs of life.",
        )
    return lease_s


def _http(chosen: Mapping[str, Any], environ: Mapping[str, str]) -> str | None:
    named = chosen.get("http")
    if named is not None:
        return None if named == "off" else str(named)
    if "TEKTON_ROOT" not in environ and "TEKTONMESH_PORT" not in environ:
        return None
    port = environ.get("TEKTONMESH_PORT", "")
    if not port:
        base = environ.get("TEKTON_PORT_BASE", "8000")
        port = str(int(base) + TEKTON_PORT_OFFSET) if base.isdigit() else base
    if not (port.isascii() and port.isdigit() and len(port) <= 5) or int(port) > PORT_MAX:
        raise LocalError(
            f"The port '{port}' from $TEKTONMESH_PORT or $TEKTON_PORT_BASE is not a port.",
            hint="Set $TEKTONMESH_PORT to a number up to 65535.",
        )
    return f"127.0.0.1:{port}"
