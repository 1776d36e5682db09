"""`tektonmesh keys`: the keys of this stack, and how they change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tektonmesh.cli.common import Where, verb

ACTIONS = ("status", "rotate", "revoke", "request", "sign", "export", "import")
_WITH_FILE = ("request", "sign", "export", "import")


@verb(example="tektonmesh keys rotate")
@click.argument("action", type=click.Choice(ACTIONS), default="status")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option(
    "--root",
    "root_file",
    type=click.Path(path_type=Path),
    help="Where the root key is, if it is kept elsewhere.",
)
@click.option("--offline", is_flag=True, help="Remove the root key from the home after the export.")
@click.option("--revoke", is_flag=True, help="Request a document that revokes the present keys.")
def command(
    where: Where,
    action: str,
    file: Path | None,
    root_file: Path | None,
    offline: bool,
    revoke: bool,
) -> None:
    """Show the keys of this stack, or change them, while its daemon runs or not.

    `rotate` makes new keys under the next key epoch, as a habit: links and messages go on. `revoke`
    does so after a theft: links under the old keys end at once, and what was sealed to them is
    lost to the thief (its senders seal it again). Stacks that hear of the new epoch refuse the old
    keys from then on. The id stays the same.

    Both need the root key, which signs nothing else. `export FILE --offline` takes it out of the
    home, `import FILE` puts it back; `rotate --root FILE` signs with one that is kept elsewhere. On
    a machine of its own it signs what is carried there: `request FILE` here, `sign FILE --root KEY`
    there (which writes FILE.signed), `import FILE.signed` here.
    """
    from tektonmesh.cli.keywork import KeyWork

    _check(action, file, root_file, offline=offline, revoke=revoke)
    work = KeyWork(where)
    if action == "status":
        work.show("")
        return
    if action in ("rotate", "revoke"):
        work.change(action, root_file)
        return
    assert file is not None
    if action == "request":
        work.request(file, revoke=revoke)
    elif action == "sign":
        assert root_file is not None
        work.sign(file, root_file)
    elif action == "export":
        work.export(file, offline=offline)
    else:
        work.take(file)


def _check(action: str, file: Path | None, root_file: Path | None, **flags: Any) -> None:
    """Raises click.UsageError for options that would do nothing."""
    context = click.get_current_context()
    if action in _WITH_FILE and file is None:
        raise click.UsageError(f"`keys {action}` needs a FILE.", context)
    if action not in _WITH_FILE and file is not None:
        raise click.UsageError(f"`keys {action}` takes no FILE.", context)
    if action == "sign" and root_file is None:
        raise click.UsageError("`keys sign` needs the root key: --root FILE.", context)
    if root_file is not None and action not in ("rotate", "revoke", "sign"):
        raise click.UsageError(f"`keys {action}` takes no --root.", context)
    for flag, its_action in (("offline", "export"), ("revoke", "request")):
        if flags[flag] and action != its_action:
            raise click.UsageError(f"--{flag} is for `keys {its_action}` only.", context)
