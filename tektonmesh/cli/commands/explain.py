"""`tektonmesh explain`: one stack, why it is in its state, and its last changes with evidence;
or one message, where it is and what it waits for (`cli/messages`)."""

from __future__ import annotations

import re
import time
from typing import Any

import click

from tektonmesh.cli import messages
from tektonmesh.cli.common import Where, verb
from tektonmesh.cli.render import aligned, duration, emit_json, milliseconds, safe_text, table

_MESSAGE_ID = re.compile("[0-9a-f]{32}")
_LINKS = ("link with", "it says", "they say", "counts", "")
_HOLDERS = ("neighbour", "holds", "")
_CHANGES = ("when", "ago", "kind", "version", "from", "took", "evidence", "what")


@verb(example="tektonmesh explain west")
@click.argument("what", metavar="STACK|MESSAGE-ID")
def command(where: Where, what: str) -> None:
    """Show why STACK (a name, a short form or an id) is in its state, or where a message is.

    Shows its newest signed head, what both ends say of each of its links, which neighbour holds
    which version of it, and its last changes: what changed, when and on what evidence, from which
    neighbour it came and how long after its signing.

    Of a MESSAGE-ID (`send --json` and `send --no-wait` print it) it shows each copy with its way
    and what became of it, how long each stack had it, and what it waits for and why: at the stack
    that sent it, at the one it goes to, and at a relay that has it now.
    """
    message = _MESSAGE_ID.fullmatch(what) is not None
    with where.client() as client:
        found = client.explain_message(what) if message else client.explain(what)
    if where.json:
        emit_json(found)
    elif message:
        messages.show(found)
    else:
        show(found)


def show(found: dict[str, Any]) -> None:
    """Print an explanation for people: the state and its reason first, then the evidence."""
    print(safe_text(f"{found['name']} is {_STATES.get(found['state'], found['state'])}."))
    print(safe_text(found["why"]))
    print()
    for line in aligned([[name, text] for name, text in _facts(found) if text]):
        print(safe_text(line))
    if found["links"]:
        print()
        table(_LINKS, (_link(link) for link in found["links"]), empty="")
    if found["holders"] and found["state"] != "self":
        print()
        table(_HOLDERS, (_holder(holder) for holder in found["holders"]), empty="")
    if found["changes"]:
        print()
        table(_CHANGES, (_change(change) for change in found["changes"]), empty="")


_STATES = {"self": "this stack", "up": "up", "left": "gone: it left"}


def _facts(found: dict[str, Any]) -> list[tuple[str, str]]:
    signed = found["signed"] or {}
    shown = [("id", found["id"]), ("version", found["version"])]
    if signed:
        age, heard = duration(signed["age_s"]), duration(signed["heard_s"])
        shown += [
            ("head", f"{_version(signed['version'])}, content {signed['content_version'][-1]}"),
            ("says", signed["status"]),
            ("signed", f"{age} ago, came here {heard} ago"),
            ("signed with", f"key epoch {signed['key_epoch']}, document {signed['keydoc'][:16]}"),
            ("run", signed["instance"]),
            ("lease", f"{duration(found['lease_left_s'])} left of {signed['lease_s']} s"),
            ("records", f"{signed['records']} in {signed['record_bytes']} bytes"),
        ]
    path = " > ".join(found["path"]) or "none"
    return [
        *shown,
        ("path", f"{path}, {milliseconds(found['rtt_ms'])}" if found["path"] else path),
        ("observers", f"{found['observers']} linked to it"),
        ("marked", ", ".join(found["flags"])),
        ("refreshes", str(found["refreshes"] or "")),
    ]


def _version(version: list[int]) -> str:
    """(key_epoch, epoch, ver), the order of heads."""
    return ".".join(map(str, version))


def _link(link: dict[str, Any]) -> tuple[Any, ...]:
    remarks = ["one-sided"] if link["one_sided"] else []
    if link["lost"]:
        remarks.append(f"{link['lost']} {duration(link['lost_s'])} ago")
    if link["state"] not in ("self", "up"):
        remarks.append(f"{link['stack']} is {link['state']}")
    counts = "yes" if link["counts"] else "no"
    return link["stack"], _claim(link["own"]), _claim(link["peer"]), counts, "; ".join(remarks)


def _claim(claim: dict[str, Any] | None) -> str:
    return "nothing" if claim is None else f"{claim['state']}, {claim['cost']} ms"


def _holder(holder: dict[str, Any]) -> tuple[Any, ...]:
    version = holder["version"]
    return holder["stack"], _version(version) if version else "nothing known", holder["is"]


def _change(change: dict[str, Any]) -> tuple[Any, ...]:
    at = time.strftime("%H:%M:%S", time.localtime(change["at"]))
    return (
        at,
        duration(change["age_s"]),
        change["kind"],
        _version(change["version"]),
        change["from"] or "here",
        milliseconds(change["latency_ms"]),
        change["evidence"],
        change["what"],
    )
