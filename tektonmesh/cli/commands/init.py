"""`tektonmesh init`: a home, an identity and a commented settings file."""

from __future__ import annotations

import click

from tektonmesh.cli.common import Where, verb
from tektonmesh.cli.failures import say
from tektonmesh.cli.render import emit_json


@verb(example="tektonmesh init --name west --mesh home")
@click.option("--name", metavar="N", help="What other stacks call this one.")
@click.option("--mesh", metavar="M", help="The mesh it belongs to.")
def command(where: Where, name: str | None, mesh: str | None) -> None:
    """Make the home, the identity and a commented settings file, and say the id.

    Run again it changes nothing. `run` does the same for a home that is missing.
    """
    from tektonmesh.cli.setup import prepare_home
    from tektonmesh.config import load_config
    from tektonmesh.core.ids import group_id, show_id
    from tektonmesh.net.identity import load_or_create

    home = where.resolved_home()
    new = prepare_home(home, name=name, mesh=mesh)
    config = load_config(home, announce=say)
    identity, _keys = load_or_create(home, config.name, config.mesh, ())
    stack_id = identity.stack_id
    if where.json:
        shown = {"home": str(home), "name": config.name, "mesh": config.mesh}
        emit_json(shown | {"id": show_id(stack_id), "new": new})
        return
    print(f"home  {home}")
    print(f"name  {config.name}")
    print(f"mesh  {config.mesh}")
    print(f"id    {group_id(stack_id)}")
    for option, asked, set_to in (("name", name, config.name), ("mesh", mesh, config.mesh)):
        if asked is not None and asked != set_to:
            click.echo(
                f"The {option} stays {set_to}: change it in {home}/tektonmesh.toml.", err=True
            )
