"""Every setting of `tektonmesh.toml`: its name, its type, its default, and what it is for.

The table is the one place: the file that `init` writes, the checks on reading and the reference
page all come from it. What a setting means for the daemon is decided in `load`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tektonmesh.config.names import check_address, check_id, check_name, nearest
from tektonmesh.errors import LocalError

FILE_NAME = "tektonmesh.toml"
ADMISSIONS = ("allowlist", "secret", "approve")
SHARES = ("public", "partners", "private")
RELAYS = ("none", "peers", "members")
AUDIT_FULL = ("refuse", "continue")
LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Setting:
    """One row. `read` returns the checked value or raises LocalError; it is given the value and
    the words `file: key` for its message. `default` is what people are told, `example` a value
    that may stand in the file as it is."""

    key: str
    read: Callable[[Any, str], Any]
    default: str
    example: str
    help: str


# --- readers of one value ------------------------------------------------------------------------


def _wrong(where: str, value: Any, wanted: str) -> LocalError:
    return LocalError(f"{where} is {value!r} and must be {wanted}.", hint="Correct the file.")


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise _wrong(where, value, "a text in quotes")
    return value


def _name(value: Any, where: str) -> str:
    return check_name(_text(value, where), where)


def _switch(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise _wrong(where, value, "true or false")
    return value


def _number(low: float, high: float) -> Callable[[Any, str], float]:
    def read(value: Any, where: str) -> float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not low <= value <= high:
            raise _wrong(where, value, f"a number from {low:g} to {high:g}")
        return float(value)

    return read


def _one_of(words: tuple[str, ...]) -> Callable[[Any, str], str]:
    def read(value: Any, where: str) -> str:
        if value not in words:
            raise _wrong(where, value, "one of " + ", ".join(words))
        return str(value)

    return read


def _list(
    read_item: Callable[[str, str], str],
) -> Callable[[Any, str], tuple[str, ...]]:
    def read(value: Any, where: str) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise _wrong(where, value, 'a list of texts, such as ["one", "two"]')
        return tuple(read_item(item, where) for item in value)

    return read


def _endpoint_host(value: str, where: str) -> str:
    host = value.strip("[]").lower()
    if not host or any(letter in host for letter in "/@?#* ") or host.count(":") == 1:
        raise _wrong(where, value, "a host name or an address, without scheme and port")
    return host


def _uids(value: Any, where: str) -> tuple[int, ...]:
    plain = isinstance(value, list) and all(
        isinstance(item, int) and not isinstance(item, bool) and 0 <= item < 2**32 - 1
        for item in value
    )
    if not plain:
        raise _wrong(where, value, "a list of user ids, such as [1001]")
    return tuple(value)


@dataclass(frozen=True, slots=True)
class View:
    """A face of its own for hosts: `allow` are `ci@stack` or `ci@stack/item`, `mode` is "full" or
    "search"."""

    allow: tuple[str, ...]
    mode: str


def _tables(value: Any, where: str, keys: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Tables by name, such as `[mcp.files]`, with these keys only."""
    if not isinstance(value, dict):
        raise _wrong(where, value, "a table of tables")
    for name, table in value.items():
        if not isinstance(table, dict):
            raise _wrong(f"{where}.{name}", table, "a table")
        for key in table:
            if key not in keys:
                near = nearest(key, keys)
                hint = f"Did you mean '{near}'?" if near else f"Known are {', '.join(keys)}."
                raise LocalError(f"{where}.{name}: there is no key '{key}'.", hint=hint)
    return value


_MCP_KEYS = (
    *("command", "args", "env", "cwd", "url", "headers"),
    *("share", "description", "specialties", "capabilities"),
)


def _mcp(value: Any, where: str) -> dict[str, dict[str, Any]]:
    """Registrations by the CI's name; what they say in detail is checked where they are made."""
    found = {}
    for name, table in _tables(value, where, _MCP_KEYS).items():
        started = {key: table[key] for key in ("command", "args", "env", "cwd") if key in table}
        called = {key: table[key] for key in ("url", "headers") if key in table}
        if bool(started) == bool(called):
            raise _wrong(f"{where}.{name}", "", "a 'command' or a 'url'")
        rest = {k: v for k, v in table.items() if k not in started and k not in called}
        found[_text(name, where)] = rest | {
            "mcp": {"stdio": started} if started else {"http": called}
        }
    return found


def _views(value: Any, where: str) -> dict[str, View]:
    found = {}
    for name, table in _tables(value, where, ("allow", "mode")).items():
        allow = _list(_text)(table.get("allow"), f"{where}.{name}: allow")
        mode = _one_of(("full", "search"))(table.get("mode", "full"), f"{where}.{name}: mode")
        found[name] = View(allow, mode)
    return found


def _listen_address(value: str, where: str) -> str:
    return check_address(value, where, port_zero=True)


def _http_address(value: Any, where: str) -> str:
    text = _text(value, where)
    return text if text == "off" else check_address(text, where, port_zero=True)


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "name",
        _name,
        "$TEKTON_REGISTRY_NAME, else the host name",
        '"west"',
        "What other stacks call this one. A label, not an authority: that is the id.",
    ),
    Setting(
        "mesh",
        _name,
        '"home"',
        '"home"',
        "The mesh this stack belongs to. Stacks of different meshes do not talk.",
    ),
    Setting(
        "secret_file",
        _text,
        "none",
        '"mesh.secret"',
        "A file whose secret admits your own stacks: one line of at least 32 characters, and\n"
        "while you rotate it the old line below. Made when missing; relative to the home.",
    ),
    Setting(
        "admission",
        _one_of(ADMISSIONS),
        '"secret" with a secret file, else "allowlist"',
        '"allowlist"',
        "Who is admitted: the ids in `allow` and those you approve (allowlist), also whoever\n"
        "proves the mesh secret (secret), or only after `tektonmesh peers approve` (approve).",
    ),
    Setting(
        "allow",
        _list(check_id),
        "[]",
        "[]",
        "Ids of stacks that are admitted without asking.",
    ),
    Setting(
        "listen",
        _list(_listen_address),
        '["0.0.0.0:7700", "[::]:7700"], or the next free port',
        '["0.0.0.0:7700", "[::]:7700"]',
        "Where other stacks reach this one. Port 0 takes any free port.",
    ),
    Setting(
        "seeds",
        _list(check_address),
        "[]",
        '["west.example:7700"]',
        "Addresses to call at start and for ever after; one that answers is enough.",
    ),
    Setting(
        "seeds_only",
        _switch,
        "false",
        "false",
        "Link only with the seeds and with those who call us, as behind a firewall.",
    ),
    Setting(
        "mdns",
        _switch,
        "true",
        "true",
        "Find and be found on the local network. It tells where someone may be; it admits nobody.",
    ),
    Setting(
        "http",
        _http_address,
        '"off"; with $TEKTON_ROOT set 127.0.0.1 at $TEKTONMESH_PORT, else $TEKTON_PORT_BASE + 90',
        '"127.0.0.1:7780"',
        "HTTP over TCP, for programs that cannot use the Unix socket.",
    ),
    Setting(
        "http_cert",
        _text,
        "none",
        '"http.crt"',
        "The certificate (PEM) for HTTP over TLS; relative to the home. Without it and `http_key`\n"
        "HTTP is served on loopback only.",
    ),
    Setting(
        "http_key",
        _text,
        "none",
        '"http.key"',
        "The private key of that certificate (PEM), in a file that only you can read.",
    ),
    Setting(
        "http_hosts",
        _list(_endpoint_host),
        "[]",
        '["west.example"]',
        "Names under which HTTP is called besides this machine's own; others are refused, since a\n"
        "page in a browser could lead here under a name of its own.",
    ),
    Setting(
        "oauth_issuer",
        _text,
        "none",
        '"https://id.example"',
        "Accept tokens (JWT) of this issuer over HTTP, with scopes such as tektonmesh:read.",
    ),
    Setting(
        "oauth_audience",
        _text,
        '"tektonmesh"',
        '"tektonmesh"',
        "The audience that such a token must name.",
    ),
    Setting(
        "oauth_jwks",
        _text,
        "none",
        '"issuer.jwks"',
        "The issuer's public keys (a JWKS document); relative to the home. They are never fetched.",
    ),
    Setting(
        "share_default",
        _one_of(SHARES),
        '"public" in a mesh of your own stacks (a secret), else "private"',
        '"private"',
        "Who sees a CI that says nothing about it: every member, partners, or nobody outside.",
    ),
    Setting(
        "relay",
        _one_of(RELAYS),
        '"members"',
        '"members"',
        "For whom this stack passes messages on: nobody, its linked peers, or any member.",
    ),
    Setting(
        "relay_per_s",
        _number(0, 1e6),
        "no limit for your own stacks, 200 for others",
        "100",
        "Messages per second that each stack may send through this one; 0 is no limit. What is\n"
        "over it takes another way, or is refused as `busy`.",
    ),
    Setting(
        "relay_bytes_per_s",
        _number(0, 1e12),
        "no limit for your own stacks, 8000000 for others",
        "1000000",
        "Bytes per second that each stack may send through this one; 0 is no limit.",
    ),
    Setting(
        "park_bytes",
        _number(0, 1e12),
        "0",
        "64000000",
        "Bytes of messages that this stack keeps on its disk for your own stacks that are away,\n"
        "when their senders ask for it (`send --may-park`), who may then go as well; 0 is none.",
    ),
    Setting(
        "large_body_max",
        _number(0, 1 << 30),
        "1073741824",
        "200000000",
        "Bytes of the largest body that is taken here, from callers here and other stacks; with\n"
        "more than 258,048 it goes as a file.",
    ),
    Setting(
        "large_bodies_bytes",
        _number(0, 1e15),
        "4294967296",
        "20000000000",
        "Bytes on the disk that such bodies may take in all; a quarter for each other stack.",
    ),
    Setting(
        "padding",
        _switch,
        "false",
        "true",
        "Fill messages up to a few sizes, so that relays learn less from theirs: at least 256\n"
        "bytes, and at most 12 % more.",
    ),
    Setting(
        "refresh_s",
        _number(1, 300),
        "100 to 300, by the size of the mesh",
        "100",
        "Seconds between two signs of life in the registry; three without one end the lease.",
    ),
    Setting(
        "lease_s",
        _number(3, 900),
        "three times refresh_s",
        "300",
        "Seconds without a sign of life after which others drop this stack from the registry.",
    ),
    Setting(
        "allow_endpoint_hosts",
        _list(_endpoint_host),
        "[]",
        '["192.168.1.20"]',
        "Hosts besides this machine to which the endpoints of your CIs may point: names or\n"
        "addresses, exactly as the endpoint writes them.",
    ),
    Setting(
        "allow_uids",
        _uids,
        "[]",
        "[1001]",
        "Users besides you and root who may use the Unix socket (put it where they can reach\n"
        "it with --socket). They may register CIs and send; the daemon stays yours.",
    ),
    Setting(
        "audit_full",
        _one_of(AUDIT_FULL),
        '"refuse"',
        '"refuse"',
        "What happens while the audit log cannot be written: acts of other stacks are refused\n"
        "(refuse), or they go on and the log says afterwards how many entries it lost (continue).",
    ),
    Setting(
        "mcp",
        _mcp,
        "none",
        '{ files = { command = ["npx", "-y", "@modelcontextprotocol/server-filesystem", "/srv"] }}',
        "MCP servers of this stack, each a CI of that name: a command (with args, env, cwd) or a\n"
        "url (with headers); also share, description, specialties and capabilities.",
    ),
    Setting(
        "mcp_views",
        _views,
        "none",
        '{ small = { allow = ["files@west", "athena@*/ask"], mode = "full" } }',
        "Faces of their own for MCP hosts: the CIs and items that are allowed, and the mode\n"
        "(full lists them, search has the host look for them).",
    ),
    Setting(
        "log_level",
        _one_of(LOG_LEVELS),
        '"info"',
        '"info"',
        "How much is said on stderr: debug, info, warning or error.",
    ),
    Setting(
        "log_json",
        _switch,
        "false",
        "true",
        "Write the log as one JSON object per line, for programs that collect logs.",
    ),
)
BY_KEY = {setting.key: setting for setting in SETTINGS}


# --- the file ------------------------------------------------------------------------------------


def read_settings(home: Path) -> dict[str, Any]:
    """The checked settings of the home's file; empty when there is none. Raises LocalError."""
    path = home / FILE_NAME
    try:
        with path.open("rb") as file:
            found = tomllib.load(file)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise LocalError(f"{path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LocalError(f"{path} is not valid TOML: {error}.", hint="Correct the file.") from None
    return {key: _read_one(path, key, value) for key, value in found.items()}


def _read_one(path: Path, key: str, value: Any) -> Any:
    setting = BY_KEY.get(key)
    if setting is None:
        near = nearest(key, BY_KEY)
        hint = f"Did you mean '{near}'?" if near else "`tektonmesh init --help` names the page."
        raise LocalError(f"{path}: there is no setting '{key}'.", hint=hint)
    return setting.read(value, f"{path}: {key}")


def write_settings(home: Path, given: dict[str, str]) -> bool:
    """Write the commented file unless there is one; True if written. `given` are plain texts that
    stand in it without a comment sign (the name and mesh of `init`)."""
    path = home / FILE_NAME
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(settings_text(given))
    except FileExistsError:
        return False
    except OSError as error:
        raise LocalError(f"{path} cannot be written: {error.strerror}.") from None
    return True


def settings_text(given: dict[str, str]) -> str:
    """The whole file: every setting with its meaning and default, set only where given."""
    parts = [
        "# The settings of this stack. Remove a '#' to change one, then restart the daemon.\n"
        "# Options on the command line win over this file.\n"
    ]
    for setting in SETTINGS:
        lines = [f"# {line}" for line in setting.help.split("\n")]
        lines.append(f"# Default: {setting.default}.")
        if setting.key in given:
            lines.append(f'{setting.key} = "{given[setting.key]}"')
        else:
            lines.append(f"# {setting.key} = {setting.example}")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)
