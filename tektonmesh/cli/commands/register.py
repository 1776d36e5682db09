"""`tektonmesh register`: a CI by hand, for endpoints that cannot register themselves."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tektonmesh.cli.common import Where, verb
from tektonmesh.cli.render import emit_json, safe_text

SHARES = ("public", "partners", "private")


def description_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what a CI is; `attach` has them as well."""
    options = (
        click.option("--type", "type_", metavar="T", help="What kind of CI it is."),
        click.option(
            "--specialty", "specialties", multiple=True, metavar="X",
            help="Something it is good at (repeatable).",
        ),
        click.option(
            "--capability", "capabilities", multiple=True, metavar="X",
            help="Something it can do (repeatable).",
        ),
        click.option(
            "--team", "teams", multiple=True, metavar="X",
            help="A team whose messages it gets (repeatable).",
        ),
        click.option(
            "--share", type=click.Choice(SHARES), help="Who may see it; the settings say otherwise."
        ),
        click.option("--description", default="", help="One sentence for those who look for it."),
    )  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


def description_params(
    type_: str | None,
    specialties: tuple[str, ...],
    capabilities: tuple[str, ...],
    teams: tuple[str, ...],
    share: str | None,
    description: str,
) -> dict[str, Any]:
    """The same as parameters of the `register` operation; what was not said is left out."""
    params = {
        "type": type_,
        "specialties": list(specialties),
        "capabilities": list(capabilities),
        "teams": list(teams),
        "share": share,
        "description": description,
    }
    return {key: value for key, value in params.items() if value}


def _server(command_line: str | None, url: str | None) -> dict[str, Any]:
    """How its MCP server is reached, as the `register` operation takes it."""
    if command_line is not None and url is not None:
        raise click.UsageError("--mcp and --mcp-url exclude each other.")
    if command_line is not None:
        return {"mcp": {"stdio": {"command": _words(command_line)}}}
    return {"mcp": {"http": {"url": url}}} if url is not None else {}


def _words(command_line: str) -> list[str]:
    """A command as its words, of which the first is the program that is found here: the daemon may
    have another PATH, and is in another folder."""
    try:
        words = shlex.split(command_line)
    except ValueError as error:
        raise click.UsageError(f"--mcp is no command line: {error}.") from None
    if not words:
        raise click.UsageError("--mcp needs a command, such as --mcp 'npx -y SERVER'.")
    if "://" in words[0]:
        raise click.UsageError("--mcp takes a command; a URL goes to --mcp-url.")
    program = shutil.which(words[0])
    if program is None:
        raise click.UsageError(f"--mcp: there is no program '{safe_text(words[0])}' here.")
    return [str(Path(program).absolute()), *words[1:]]


@verb(example="tektonmesh register numa --endpoint http://127.0.0.1:8016 --specialty vision")
@click.argument("name")
@click.option("--endpoint", metavar="URL", help="Where its messages are posted; local only.")
@click.option("--format", "format_", metavar="F", help="How they are posted (json_simple).")
@click.option("--mcp", metavar="COMMAND", help="Its MCP server, started here: a command line.")
@click.option("--mcp-url", metavar="URL", help="Its MCP server behind HTTP; local only.")
@description_options
def command(
    where: Where, name: str, endpoint: str | None, format_: str | None, **described: Any
) -> None:
    """Register the CI NAME by hand: it stays until `deregister`, and no heartbeat is expected.

    Without --endpoint it takes no messages. With --mcp or --mcp-url the whole mesh gets the tools,
    resources and prompts of that MCP server.
    """
    server = _server(described.pop("mcp"), described.pop("mcp_url"))
    params = description_params(**described) | server
    if endpoint:
        params["endpoint"] = endpoint
    if format_:
        params["format"] = format_
    with where.client() as client:
        result = client.register(name, persist=True, attach=False, **params)
    if where.json:
        emit_json(result)
    else:
        click.echo(f"{result.get('name', name)}@{result['stack']} is registered.", err=True)
