"""`tektonmesh policy`: what is shared with whom, and why an act is allowed or not."""

from __future__ import annotations

from typing import Any

import click

from tektonmesh.cli.common import Where, verb
from tektonmesh.cli.failures import EXIT_FAILED
from tektonmesh.cli.render import emit_json, safe_text, table

ACTIONS = ("show", "check")
MARKS = {True: "yes", False: "no", None: "-"}


@verb(example="tektonmesh policy check west message numa")
@click.argument("action", type=click.Choice(ACTIONS), default="show")
@click.argument("subject", required=False)
@click.argument("right", metavar="[VERB]", required=False)
@click.argument("thing", metavar="[OBJECT]", required=False)
def command(
    where: Where, action: str, subject: str | None, right: str | None, thing: str | None
) -> int | None:
    """Show the policy of this stack, or check what SUBJECT may do.

    `policy check SUBJECT VERB OBJECT` explains the verdict rule by rule: SUBJECT is another stack
    and OBJECT a CI of this one; or SUBJECT is this stack and OBJECT a CI of another (numa@east),
    for what callers here may use. Exits 0 if it is allowed and 1 if not.
    """
    if action == "show":
        with where.client() as client:
            _show(where, client.call("policy"))
        return None
    if subject is None or right is None:
        raise click.UsageError("Say SUBJECT and VERB.", click.get_current_context())
    with where.client() as client:
        verdict = client.call("policy", subject=subject, verb=right, object=thing)
    if where.json:
        emit_json(verdict)
    else:
        for rule in verdict["rules"]:
            print(f"{MARKS[rule['passed']]:>4}  {safe_text(rule['rule'])}: {rule['why']}")
        print("allowed" if verdict["allowed"] else f"denied ({verdict['code']})")
    return None if verdict["allowed"] else EXIT_FAILED


def _show(where: Where, policy: dict[str, Any]) -> None:
    if where.json:
        emit_json(policy)
        return
    own = "one's own stacks hold all rights by default" if policy["own_mesh"] else "closed"
    print(f"default: {own}; new CIs are {policy['share_default']}")
    rows = [
        (p["name"], p["mode"], p["shared_cis"], p["role"], p["imports"]) for p in policy["peers"]
    ]
    columns = ("stack", "mode", "shared cis", "role", "used from here")
    table(columns, rows, empty="No terms are agreed with other stacks.")
    grants = [(g["id"], g["name"], g["verb"], g["ci"]) for g in policy["grants"]]
    table(("grant", "stack", "verb", "ci"), grants, empty="No grants were made.")
