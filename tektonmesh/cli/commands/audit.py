"""`tektonmesh audit`: the newest entries of the audit log, and whether it is the one written."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tektonmesh.cli.common import Where, verb
from tektonmesh.cli.failures import EXIT_FAILED
from tektonmesh.cli.render import emit_json, safe_text
from tektonmesh.errors import LocalError

if TYPE_CHECKING:
    from tektonmesh.net.auditcheck import Finding

_OWN = ("n", "at", "kind")


@verb(example="tektonmesh audit verify --witness")
@click.argument("action", type=click.Choice(("tail", "verify")), default="tail")
@click.option("-n", "last", type=click.IntRange(1, 10_000), default=20, help="So many entries.")
@click.option("--witness", is_flag=True, help="Also ask other stacks which end they have seen.")
def command(where: Where, action: str, last: int, witness: bool) -> int | None:
    """Show the newest entries of the audit log, or verify all of it.

    Both read the files of the home and need no daemon, except for `--witness`. `verify` names the
    first entry that is not what was written, or where the log was cut, and exits 1 then. An older
    copy of the whole log is found by witnesses only.
    """
    from tektonmesh.net.auditcheck import last_entries
    from tektonmesh.net.auditlog import FOLDER

    folder = where.resolved_home() / FOLDER
    if not folder.is_dir():
        hint = "Give the home with --home; a daemon makes the log at its first start."
        raise LocalError(f"There is no audit log in {folder}.", code="not_found", hint=hint)
    if action == "verify":
        return _verify(where, witness=witness)
    for entry in last_entries(folder, last):
        if where.json:
            emit_json(entry)
        else:
            print(_line(entry))
    return None


def _line(entry: dict[str, Any]) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.get("at", 0)))
    rest = " ".join(f"{key}={value}" for key, value in entry.items() if key not in _OWN and value)
    return safe_text(f"{entry['n']:>8}  {when}  {entry.get('kind')}  {rest}")


def verified(home: Path, witnessed: list[dict[str, Any]]) -> Finding:
    """The log of a home, checked against what its database and witnesses remember. Raises
    MeshError if the home has no identity or its database cannot be read."""
    from tektonmesh.net import identity, keydocs
    from tektonmesh.net.auditcheck import check_log
    from tektonmesh.net.auditing import END_KEY, TABLE, read_end
    from tektonmesh.net.auditlog import FOLDER, End
    from tektonmesh.net.daemon import STORE_NAME
    from tektonmesh.net.store import Store

    keys = identity.load(home)
    known = [end for end in [read_end(Store.look(home / STORE_NAME, TABLE, END_KEY))] if end]
    known += [End(one["n"], bytes.fromhex(one["hash"])) for one in witnessed]
    return check_log(home / FOLDER, keys.stack_id, keydocs.op_keys(home, keys), known)


def _verify(where: Where, *, witness: bool) -> int | None:
    witnesses: list[dict[str, Any]] = []
    if witness:
        with where.client() as client:
            witnesses = client.call("audit", witness=True)["witnesses"]
    found = verified(where.resolved_home(), witnesses)
    shown = {
        "good": found.good,
        "entries": found.entries,
        "begins": found.begins,
        "signed": found.signed,
        "bad": found.bad or None,
        "why": found.why,
        "witnesses": [one["stack"] for one in witnesses],
    }
    if where.json:
        emit_json(shown)
    else:
        _say(shown, witness=witness)
    return None if found.good else EXIT_FAILED


def _say(shown: dict[str, Any], *, witness: bool) -> None:
    if not shown["good"]:
        print(f"The audit log is not what was written. {shown['why']}")
        return
    print(
        f"The audit log is whole: entries {shown['begins']} to {_last(shown)}, signed to", end=" "
    )
    print(f"{shown['signed']}.")
    if witness:
        names = ", ".join(shown["witnesses"]) or "nobody"
        print(f"Witnessed by {names}.")


def _last(shown: dict[str, Any]) -> int:
    return int(shown["begins"] + shown["entries"] - 1)
