"""What a registration may say, in each of its three forms, brought into the one form of the core.

The forms are the native one (`endpoint` or an attached connection), the seed's local CI (`port`
and `message_endpoint`) and the seed's whole stack (`type` tekton or external with a `host`). Every
refusal names its field. Nothing here looks at a node: whether a name is taken is the core's matter.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tektonmesh.errors import LocalError
from tektonmesh.net.endpoints import FORMATS
from tektonmesh.net.reach import same_file

SHARES = ("public", "partners", "private")
STACK_TYPES = ("tekton", "external")
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
NAME_SIZE_MAX = 63
WORDS_MAX = 32
WORD_SIZE_MAX = 64
WORDS_BYTES_MAX = 1200
"""Specialties and capabilities together: a CI's record must stay under 2 KiB packed."""
DESCRIPTION_MAX = 300
METADATA_BYTES_MAX = 16_384
HEADERS_MAX = 20
HEADER_SIZE_MAX = 4096
LEASE_MAX_S = 30 * 86400.0

_NAME = re.compile(NAME_PATTERN)
_UNPLAIN = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_DIGITS = re.compile("[0-9]{1,5}")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_STACK_FACTS = ("version", "ci_count", "specialties")
_READ_KEYS = (
    *("name", "type", "specialties", "capabilities", "share", "persist", "lease_s", "description"),
    *("stream", "endpoint", "format", "headers", "metadata", "token", "attach"),
    *("port", "message_endpoint", "message_format", "host", "protocol", "mcp"),
)


def field_error(field: str, detail: str, hint: str = "") -> LocalError:
    """A refusal that names its field, for people in the sentence and for programs in the data."""
    return LocalError(f"The field '{field}' {detail}.", hint=hint, data={"field": field})


@dataclass(frozen=True, slots=True)
class Places:
    """Where endpoints may lead from a door: this machine's loopback always, besides it the
    `hosts` that the owner allowed, and with `unix` Unix sockets other than `own_socket`."""

    hosts: tuple[str, ...] = ()
    unix: bool = True
    own_socket: Path | None = None


ANY_LOCAL = Places()
LOOPBACK_ONLY = Places(unix=False)


def registration(
    given: Mapping[str, Any],
    *,
    via: str,
    attach: bool = False,
    places: Places = ANY_LOCAL,
    may_start: bool = False,
) -> dict[str, Any]:
    """The normalised `spec` of `core.events.RegisterCi`, from any of the three forms.

    `attach` says that the caller's connection can take messages; it is used where no endpoint is
    given; `may_start` that it may name commands. Raises LocalError (`bad_request`, `refused`) with
    `data["field"]`.
    """
    kind = text(given, "type", default="ci", size_max=WORD_SIZE_MAX)
    whole_stack = kind in STACK_TYPES and "host" in given
    capabilities, facts = _capabilities(given.get("capabilities"))
    specialties = words("specialties", given.get("specialties", facts.get("specialties")))
    if sum(len(word.encode()) + 2 for word in specialties + capabilities) > WORDS_BYTES_MAX:
        raise field_error("capabilities", f"and 'specialties' exceed {WORDS_BYTES_MAX} bytes")
    metadata = _metadata(given, facts)
    way = _Way(given, metadata, places)
    how = way.of_stack() if whole_stack else way.of_ci(attach)
    return {
        "name": ci_name("name", given.get("name")),
        "type": kind,
        "specialties": specialties,
        "capabilities": capabilities,
        "share": _share(given.get("share")),
        "persist": flag(given, "persist"),
        "lease_s": number(given, "lease_s", low=1.0, high=LEASE_MAX_S),
        "description": text(given, "description", default="", size_max=DESCRIPTION_MAX),
        "stream": flag(given, "stream"),
        "how": how,
        "metadata": metadata,
        "via": via,
    } | _with_server(mcp_server(given.get("mcp"), places, how["kind"], may_start=may_start))


# --- single fields -------------------------------------------------------------------------------


def ci_name(field: str, value: Any) -> str:
    """A CI's name as it is shown; compared without case by the core."""
    if not isinstance(value, str) or not value:
        raise field_error(field, "is missing: a name in quotes is needed")
    if not _NAME.fullmatch(value):
        hint = "Use at most 63 of letters, digits, '.', '_' and '-'; begin with a letter or digit."
        raise field_error(field, f"is '{value[:80]}', which is not a valid name", hint)
    return value


def text(given: Mapping[str, Any], field: str, *, default: str, size_max: int) -> str:
    """An optional line of text without control characters."""
    value = given.get(field)
    if value is None:
        return default
    if not isinstance(value, str):
        raise field_error(field, "must be text")
    if len(value) > size_max:
        raise field_error(field, f"has {len(value)} characters; at most {size_max} are allowed")
    if not _is_plain(value):
        raise field_error(field, "holds control characters or halves of a surrogate pair")
    return value


def _is_plain(value: str) -> bool:
    return _UNPLAIN.search(value) is None


def flag(given: Mapping[str, Any], field: str, default: bool = False) -> bool:
    """An optional true or false."""
    value = given.get(field)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise field_error(field, "must be true or false")
    return value


def number(
    given: Mapping[str, Any], field: str, *, low: float, high: float, default: float | None = None
) -> float | None:
    """An optional number between `low` and `high`, both included."""
    value = given.get(field)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise field_error(field, "must be a number")
    if not low <= value <= high:
        raise field_error(field, f"is {value}; it must be from {low:g} to {high:g}")
    return float(value)


def words(field: str, value: Any) -> list[str]:
    """A list of short words without doubles, in the order given."""
    if value is None:
        return []
    if isinstance(value, str) or not isinstance(value, Iterable) or isinstance(value, Mapping):
        raise field_error(field, 'must be a list of words, such as ["vision"]')
    found: dict[str, None] = {}
    for item in value:
        if not isinstance(item, str) or not item.strip() or not _is_plain(item):
            raise field_error(field, 'must be a list of words, such as ["vision"]')
        if len(item) > WORD_SIZE_MAX:
            raise field_error(field, f"has a word of {len(item)} characters; {WORD_SIZE_MAX} fit")
        found[item.strip()] = None
    if len(found) > WORDS_MAX:
        raise field_error(field, f"has {len(found)} words; at most {WORDS_MAX} are allowed")
    return list(found)


def _share(value: Any) -> str | None:
    if value is None:
        return None
    if value not in SHARES:
        raise field_error("share", "must be one of " + ", ".join(SHARES))
    return str(value)


def _capabilities(value: Any) -> tuple[list[str], dict[str, Any]]:
    """Capabilities come as words, as objects with an id or name, or as one object whose keys are
    the capabilities; the seed's stacks put plain facts (version, ci_count) among these."""
    if isinstance(value, Mapping):
        facts = {key: value[key] for key in _STACK_FACTS if key in value}
        named = [key for key, what in value.items() if key not in facts and what is not False]
        return words("capabilities", named), facts
    if isinstance(value, list):
        named = [
            item.get("id") or item.get("name") if isinstance(item, Mapping) else item
            for item in value
        ]
        return words("capabilities", named), {}
    return words("capabilities", value), {}


def _metadata(given: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """What came along and means nothing to us, kept for whoever asks this stack for it."""
    own = given.get("metadata")
    if own is not None and not isinstance(own, Mapping):
        raise field_error("metadata", "must be an object")
    strange = [key for key in given if key not in _READ_KEYS and given[key] is not None]
    kept = {key: given[key] for key in strange}
    kept.update((key, value) for key, value in facts.items() if key != "specialties")
    kept.update(own or {})
    try:
        size = len(json.dumps(kept, ensure_ascii=False, allow_nan=False).encode())
    except ValueError:
        # Endless numbers (1e999) and halves of surrogate pairs could never be read back.
        raise field_error("metadata", "holds what cannot be stored") from None
    if size > METADATA_BYTES_MAX:
        raise field_error("metadata", f"has {size} bytes; at most {METADATA_BYTES_MAX} are kept")
    return kept


# --- how messages reach it -----------------------------------------------------------------------


class _Way:
    """How one registration says that its messages reach it; `metadata` takes what is only shown."""

    def __init__(self, given: Mapping[str, Any], metadata: dict[str, Any], places: Places) -> None:
        self._given = given
        self._metadata = metadata
        self._places = places

    def of_ci(self, attach: bool) -> dict[str, Any]:
        given = self._given
        if given.get("endpoint") is not None:
            return self._http("endpoint", given["endpoint"])
        if given.get("port") is not None:
            path = given.get("message_endpoint") or "/"
            if isinstance(path, str) and path.startswith(("http://", "https://")):
                return self._http("message_endpoint", path)
            url = f"http://127.0.0.1:{_port(given['port'])}{_path(path)}"
            return self._http("message_endpoint", url)
        if given.get("message_endpoint") is not None:
            return self._http("message_endpoint", given["message_endpoint"])
        return {"kind": "attached"} if attach else {"kind": "none"}

    def of_stack(self) -> dict[str, Any]:
        """A stack at a remote host is listed and waits for approval; its URL is never fetched
        before (docs/design/security.md, endpoints). On this machine it is reached by HTTP."""
        given, metadata = self._given, self._metadata
        host, protocol = given["host"], given.get("protocol") or "http"
        if not isinstance(host, str) or not host or any(letter in host for letter in "/@?# "):
            raise field_error("host", "must be a host name or an address")
        if protocol not in ("http", "https"):
            raise field_error("protocol", "must be http or https")
        port = _port(given["port"]) if given.get("port") is not None else None
        path = _path(given.get("message_endpoint") or "/api/federated/message")
        metadata |= {"host": host, "protocol": protocol, "message_endpoint": path}
        if port is not None:
            metadata["port"] = port
        if not is_loopback(host):
            metadata["state"] = "pending"
            return {"kind": "none"}
        shown = f"[{host}]" if ":" in host else host
        where = f"{protocol}://{shown}" + (f":{port}" if port is not None else "") + path
        return self._http("host", where, form="tekton_federated")

    def _http(self, field: str, url: Any, *, form: str = "json_simple") -> dict[str, Any]:
        given = self._given
        url = local_url(field, url, self._places)
        chosen = "format" if given.get("format") is not None else "message_format"
        form = text(given, chosen, default=form, size_max=WORD_SIZE_MAX)
        headers = _headers(given.get("headers"))
        if form not in FORMATS:
            if chosen == "format":
                raise field_error("format", "must be one of " + ", ".join(FORMATS))
            # A real component's word, such as "rhetor_socket": listed, nothing here reaches it.
            self._metadata |= {"message_format": form, "endpoint": url}
            return {"kind": "none"}
        return {"kind": "http", "url": url, "format": form, "headers": headers}


def local_url(field: str, value: Any, places: Places = ANY_LOCAL) -> str:
    """A URL to one of the `places`: loopback, an allowed host, or `http+unix://` and a socket's
    quoted path; no user, no fragment. `net.reach` checks again whenever it calls."""
    if not isinstance(value, str) or len(value) > 2048 or not value.isprintable() or " " in value:
        raise field_error(field, "must be a URL, such as http://127.0.0.1:8000/message")
    try:
        parts = urlsplit(value)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        raise field_error(field, f"is '{value[:100]}', which is not a URL") from None
    if parts.scheme == "http+unix" and parts.netloc.lower().startswith("%2f"):
        if not places.unix:
            raise field_error(field, "cannot be a Unix socket here")
        own = places.own_socket
        if own is not None and same_file(unquote(parts.netloc), own):
            raise field_error(field, "is this daemon's own socket")
        return value
    if parts.scheme not in ("http", "https") or not host:
        raise field_error(field, "must begin with http:// or https:// and a host")
    if parts.username is not None or parts.password is not None:
        raise field_error(field, "must not hold a user or password", "Put these into 'headers'.")
    if parts.fragment:
        raise field_error(field, "must not hold a fragment ('#')")
    if not is_loopback(host) and host.lower() not in places.hosts:
        hint = "An endpoint is on this machine; run a daemon beside a CI that lives elsewhere."
        raise field_error(field, f"points to '{host}', which is not this machine", hint)
    return value


def is_loopback(host: str) -> bool:
    """Whether `host` is written as this machine's loopback; no name but localhost is looked up."""
    if host.lower() in ("localhost", "localhost."):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _port(value: Any) -> int:
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65535:
        raise field_error("port", "must be a number from 1 to 65535")
    return value


def _path(value: Any) -> str:
    if not isinstance(value, str) or not value.startswith("/") or value.startswith("//"):
        raise field_error("message_endpoint", "must be a path that begins with '/'")
    return value


def _headers(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or len(value) > HEADERS_MAX:
        raise field_error("headers", f"must be an object of at most {HEADERS_MAX} texts")
    for name, content in value.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise field_error("headers", f"holds '{str(name)[:80]}', which cannot name a header")
        printable = isinstance(content, str) and content.isascii() and content.isprintable()
        if not printable or len(content) > HEADER_SIZE_MAX:
            raise field_error("headers", f"has a value for '{name}' that is not plain text")
    return dict(value)


# --- MCP servers ---------------------------------------------------------------------------------

MCP_WORDS_MAX = 64
MCP_TEXT_MAX = 4096


def _with_server(server: dict[str, Any] | None) -> dict[str, Any]:
    return {} if server is None else {"mcp": server}


def mcp_server(value: Any, places: Places, kind: str, *, may_start: bool) -> dict[str, Any] | None:
    """How a CI's MCP server is reached: exactly one of `stdio` (a command, from those who may start
    one), `http` (a URL on this machine) and `socket` (the CI's own connection, of this `kind`)."""
    if value is None:
        return None
    ways = ("stdio", "http", "socket")
    if not isinstance(value, Mapping) or len(value) != 1 or next(iter(value)) not in ways:
        raise field_error("mcp", "must have exactly one of stdio, http and socket")
    way, what = next(iter(value.items()))
    if way == "socket":
        if what is not True or kind != "attached":
            raise field_error("mcp.socket", "is true, for a CI that is attached by its connection")
        return {"socket": True}
    if way == "http":
        what = {"url": what} if isinstance(what, str) else what
        if not isinstance(what, Mapping):
            raise field_error("mcp.http", "must be an object with a 'url'")
        url = local_url("mcp.http.url", what.get("url"), places)
        return {"http": {"url": url, "headers": _headers(what.get("headers"))}}
    if not may_start:
        raise LocalError(
            "Commands are taken from the owner of this daemon on its own socket only.",
            code="refused",
            hint="Register over the Unix socket, or put the command into the settings.",
            data={"field": "mcp.stdio"},
        )
    return {"stdio": _command(what)}


def _command(what: Any) -> dict[str, Any]:
    """`{"command": WORDS or a word, "args"?, "env"?, "cwd"?}`, or the words alone."""
    if isinstance(what, list):
        what = {"command": what}
    if not isinstance(what, Mapping):
        raise field_error("mcp.stdio", "must be an object with a 'command'")
    command = what.get("command")
    words = [command] if isinstance(command, str) else command
    arguments = what.get("args") or []
    if not isinstance(words, list) or not words or not isinstance(arguments, list):
        raise field_error("mcp.stdio.command", 'must be a list of words, such as ["npx", "x"]')
    words = [*words, *arguments]
    if len(words) > MCP_WORDS_MAX or not all(_is_word(word) for word in words):
        raise field_error("mcp.stdio.command", "must be a list of words without control characters")
    env = what.get("env") or {}
    if not isinstance(env, Mapping) or not all(_is_word(k) and _is_word(v) for k, v in env.items()):
        raise field_error("mcp.stdio.env", "must be an object of texts")
    cwd = what.get("cwd")
    if cwd is not None and not _is_word(cwd):
        raise field_error("mcp.stdio.cwd", "must be a path")
    return {"command": words, "env": dict(env), "cwd": cwd}


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MCP_TEXT_MAX and _is_plain(value)
