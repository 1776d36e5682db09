"""The command `tektonmesh`: finds the verb, runs it, and turns every failure into one line.

Verbs are imported when they are used, because `status` must not pay for the daemon. This module
decides what the first word means and which exit code a failure has; what a verb does is in
`cli/commands/<verb>.py`.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from tektonmesh import __version__
from tektonmesh.cli.common import Where, where_options
from tektonmesh.cli.failures import exit_code_of
from tektonmesh.cli.verbs import GROUPS, VERBS


class MeshGroup(click.Group):
    """Loads verbs lazily, and reads `tektonmesh numa@west "hello"` as `send`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"tektonmesh.cli.commands.{cmd_name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]
        if word not in VERBS and "@" in word:
            args = ["send", *args]
        elif word not in VERBS:
            raise click.UsageError(_unknown_verb(word), ctx)
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args[:1] == ["help"]:
            args = [*args[1:2], "--help"]
        return super().parse_args(ctx, args or ["--help"])

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, names in GROUPS:
            with formatter.section(title):
                formatter.write_dl([(name, VERBS[name]) for name in names])


def _unknown_verb(word: str) -> str:
    from tektonmesh.config.names import nearest

    near = nearest(word, VERBS)
    if near:
        return f"There is no verb '{word}'. Did you mean '{near}'?"
    return f"There is no verb '{word}'. `tektonmesh help` lists them."


def _show_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"tektonmesh {__version__}")
        ctx.exit()


@click.command(
    cls=MeshGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: tektonmesh run --lan, and in another terminal: tektonmesh stacks.",
)
@where_options
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version,
    help="Show the version.",
)  # fmt: skip
@click.pass_context
def group(ctx: click.Context, home: Path | None, socket: Path | None, as_json: bool) -> None:
    """Stacks of companion intelligences find, trust and use one another: no central registry.

    `tektonmesh numa@west "hello"` is short for `tektonmesh send numa@west "hello"`.
    """
    where = ctx.ensure_object(Where)
    where.home, where.socket, where.json = home, socket, as_json


def main(args: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code. Nothing escapes as a traceback."""
    given = list(sys.argv[1:] if args is None else args)
    where = Where()
    try:
        if "_TEKTONMESH_COMPLETE" in os.environ:
            group.main(given, prog_name="tektonmesh")
        # Not `group.main`: it writes to stderr on Ctrl-C and makes a closed pipe a failure.
        with group.make_context("tektonmesh", given, obj=where) as context:
            result = group.invoke(context)
        sys.stdout.flush()
    except BaseException as error:
        return exit_code_of(error, as_json=where.json)
    return result if isinstance(result, int) else 0


def leave_quietly(code: int) -> None:
    """End the process. A reader that went away (`| head`) must not make the interpreter complain
    when it flushes at exit."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
