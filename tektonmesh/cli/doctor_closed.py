"""What `doctor` says of the secure defaults: every way in which this stack is more open, and
whether its audit log is the one that was written.

An open door is not a fault: it is a warning that names what was opened and how to close it. The
settings are read from the file, so that this works without a daemon; grants, tokens and terms are
asked of the daemon.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tektonmesh.cli.common import Where
from tektonmesh.errors import MeshError

if TYPE_CHECKING:
    from tektonmesh.cli.doctor import Finding

Settings = Mapping[str, Any]
NEAR = ("127.", "[::1]", "localhost:", "off")


class Deviation(NamedTuple):
    """A setting that is more open than its default: when, what that means, how to close it."""

    check: str
    applies: Callable[[Settings], Any]
    detail: str
    advice: str


def _http(settings: Settings) -> str:
    return str(settings.get("http", "off"))


DEVIATIONS: tuple[Deviation, ...] = (
    Deviation(
        "sharing",
        lambda s: s.get("share_default") == "public" and not s.get("secret_file"),
        "new CIs are public although the mesh has no secret",
        "Remove share_default, or say --share private.",
    ),
    Deviation(
        "http",
        lambda s: not _http(s).startswith(NEAR) and not s.get("http_cert"),
        "HTTP is to listen beyond this machine without TLS: the daemon will not start",
        "Set http_cert and http_key, or use 127.0.0.1.",
    ),
    Deviation(
        "http",
        lambda s: not _http(s).startswith(NEAR) and s.get("http_cert"),
        "HTTP listens beyond this machine (with TLS and tokens)",
        "Use 127.0.0.1 if only programs of this machine call.",
    ),
    Deviation(
        "endpoints",
        lambda s: s.get("allow_endpoint_hosts"),
        "CIs may have endpoints on other machines (allow_endpoint_hosts)",
        "Remove hosts that no CI needs.",
    ),
    Deviation(
        "users",
        lambda s: s.get("allow_uids"),
        "other users of this machine may use the socket (allow_uids)",
        "Remove users who need no CI of their own.",
    ),
    Deviation(
        "audit",
        lambda s: s.get("audit_full") == "continue",
        "acts of other stacks go on while the audit log cannot be written",
        'Remove audit_full = "continue".',
    ),
    Deviation(
        "oauth",
        lambda s: s.get("oauth_issuer"),
        "tokens of an OAuth issuer open HTTP",
        "Remove oauth_issuer if it is not used.",
    ),
    Deviation(
        "log",
        lambda s: s.get("log_level") == "debug",
        "the log is at its most talkative, with names of peers and CIs",
        "Remove log_level once you have found what you look for.",
    ),
)


def check_openness(settings: Settings) -> Iterator[Finding]:
    """The deviations that the settings file makes."""
    from tektonmesh.cli.doctor import Finding

    for deviation in DEVIATIONS:
        if deviation.applies(settings):
            yield Finding(deviation.check, "warn", deviation.detail, deviation.advice)


def check_rights(where: Where) -> Iterator[Finding]:
    """Rights without an end or a bound, of other stacks and of programs; asked of the daemon."""
    from tektonmesh.cli.doctor import Finding

    with where.client() as client:
        grants, tokens = client.call("grant"), client.call("token")
        policy, invites = client.call("policy"), client.call("invite", list=True)
        names = {peer["id"]: peer["name"] for peer in client.call("peers")}
        unproven = client.call("status")["registry"]["unproven"]
    yield from _guests(names, policy["guests"], unproven)
    terms = policy["peers"]
    for grant in grants:
        said = f"{grant['name']} may {grant['verb']} on {grant['ci']}"
        advice = f"tektonmesh revoke {grant['id']}"
        if grant["verb"] == "introduce":
            yield Finding("grants", "warn", f"{grant['name']} may introduce others", advice)
        elif "not_after_ms" not in grant:
            yield Finding("grants", "warn", f"{said} without an end", advice)
    for one in terms:
        if one["mode"] == "full" and not one["shared_cis"]:
            detail = f"{one['name']} may use every CI that is shared with partners"
            yield Finding("terms", "warn", detail, "Name CIs with `peers terms --ci`.")
    for token in tokens:
        if "owner" in token["scopes"] or token["expires"] is None:
            what = "opens everything" if "owner" in token["scopes"] else "has no end"
            detail = f"the token {token['name'] or token['id']} {what}"
            yield Finding("tokens", "warn", detail, f"tektonmesh token revoke {token['id']}")
    if invites:
        detail = f"{len(invites)} invites are open"
        yield Finding("invites", "warn", detail, "`tektonmesh invite --list` shows them.")


def _guests(names: Mapping[str, str], guests: list[str], unproven: int) -> Iterator[Finding]:
    """Who is known to some of the mesh alone; this stack itself may be such a guest."""
    from tektonmesh.cli.doctor import Finding

    for guest in guests:
        detail = f"{names.get(guest) or guest} is a guest: the other stacks of this mesh do not"
        detail += " know it, since it has not proved the secret"
        advice = "Let each stack that it is to meet invite it, or give it the secret."
        yield Finding("guests", "warn", detail, advice)
    if unproven:
        detail = f"{unproven} stacks are left out: nothing proves here that they are members"
        advice = "Ask each that you want to meet for an invite, or for the secret of the mesh."
        yield Finding("members", "warn", detail, advice)


def check_audit(home: Path) -> Iterator[Finding]:
    """Whether the audit log is whole, as far as this home can tell."""
    from tektonmesh.cli.commands.audit import verified
    from tektonmesh.cli.doctor import Finding
    from tektonmesh.net.auditlog import FOLDER

    if not (home / FOLDER).is_dir():
        return
    began = time.monotonic()
    try:
        found = verified(home, [])
    except MeshError as error:
        yield Finding("audit", "fail", error.detail, error.hint)
        return
    if found.good:
        took_ms = (time.monotonic() - began) * 1000
        yield Finding("audit", "ok", f"{found.entries} entries are whole ({took_ms:.0f} ms)")
    else:
        yield Finding("audit", "fail", found.why, "Keep the folder as it is and look who wrote.")
