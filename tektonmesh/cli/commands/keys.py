"""`tektonmesh keys`: the keys of this stack, and how they change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tektonmesh.cli.common import Where, verb
from tektonmesh.cli.render import emit_json
from tektonmesh.core.ids import group_id, show_id

ACTIONS = ("status", "rotate", "revoke", "export", "import")


@verb(example="tektonmesh keys export root-of-west.key --offline")
@click.argument("action", type=click.Choice(ACTIONS), default="status")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option(
    "--root",
    "root_file",
    type=click.Path(path_type=Path),
    help="Where the root key is, if it is kept elsewhere.",
)
@click.option("--offline", is_flag=True, help="Remove the root key from the home after the export.")
def command(
    where: Where, action: str, file: Path | None, root_file: Path | None, offline: bool
) -> None:
    """Show the keys of this stack, or change them while its daemon is stopped.

    `rotate` makes new keys under the next key epoch, as a habit; `revoke` does so after a theft,
    and forgets the keys for messages on their way. Both need the root key, which signs nothing
    else: `export FILE --offline` takes it out of the home, `import FILE` puts it back. Stacks
    that hear of the new epoch refuse the old keys from then on. The id stays the same.
    """
    from tektonmesh.net import keydocs

    home = where.resolved_home()
    if action in ("export", "import") and file is None:
        raise click.UsageError(f"`keys {action}` needs a FILE.", click.get_current_context())
    done = ""
    if action in ("rotate", "revoke"):
        epoch = keydocs.rotate(home, root_file=root_file, revoke=action == "revoke")
        done = f"New keys count from the next start on (key epoch {epoch})."
    elif action == "export" and file is not None:
        keydocs.export_root(home, file, offline=offline)
        done = f"The root key is in {file}; whoever has it can be this stack."
    elif action == "import" and file is not None:
        keydocs.import_root(home, file)
        done = "The root key is back in the home."
    _show(where, keydocs.status(home), done)


def _show(where: Where, status: dict[str, Any], done: str) -> None:
    if where.json:
        emit_json(status | {"id": show_id(status["id"])})
        return
    if done:
        click.echo(done, err=True)
    print(f"id         {group_id(status['id'])}")
    print(f"key epoch  {status['key_epoch']}")
    print(f"signs with {status['op']}")
    print(f"root key   {status['root']}")
