"""What all verbs share: `--home`, `--socket`, `--json`, the bare words `json` and `help`, and the
way to the daemon."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tektonmesh.config.home import is_test_home, lan_homes, resolve_home, socket_path
from tektonmesh.errors import MeshError

if TYPE_CHECKING:
    from tektonmesh.api.sync import Client


@dataclass(slots=True)
class Where:
    """Which daemon a verb talks to, and how it answers; filled in while the words are read."""

    home: Path | None = None
    socket: Path | None = None
    json: bool = False

    def resolved_home(self) -> Path:
        return resolve_home(self.home)

    def socket_path(self) -> Path:
        """`--socket`, else the one of `--home`, else `$TEKTONMESH_SOCKET`, else the default's."""
        if self.socket is not None:
            return self.socket.absolute()
        named = os.environ.get("TEKTONMESH_SOCKET", "")
        if named and self.home is None:
            return Path(named)
        return socket_path(self.resolved_home())

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A connection to the daemon. Raises MeshError with code `no_daemon` and a useful hint."""
        from tektonmesh.api.sync import Client

        path = self.socket_path()
        try:
            with Client(path) as client:
                yield client
        except MeshError as error:
            if not error.detail.startswith("No daemon answers"):
                raise
            raise self.no_daemon() from None

    def no_daemon(self) -> MeshError:
        """The failure when nobody answers, with what this person should try."""
        hint = "Start one with `tektonmesh run`."
        if self.home is not None:
            lan = "--lan " if is_test_home(self.resolved_home()) else ""
            hint = f"Start one with `tektonmesh run {lan}--home {self.home}`."
        elif self.socket is not None:
            hint = "Check the path, or leave out --socket."
        else:
            test_stacks = _running_lan_homes()
            if test_stacks:
                homes = " or ".join(f"--home {home.name}" for home in test_stacks)
                hint = f"Test stacks run here; add {homes}."
        return MeshError(f"No daemon answers on {self.socket_path()}.", code="no_daemon", hint=hint)


def _running_lan_homes() -> list[Path]:
    """The first homes of test stacks with a socket, for a hint; they are numbered without gaps."""
    found: list[Path] = []
    for _number, home in lan_homes():
        if not home.is_dir() or len(found) == 3:
            break
        if socket_path(home).exists():
            found.append(home)
    return found


def where_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--home`, `--socket` and `--json` to a command."""
    options = (
        click.option(
            "--home",
            type=click.Path(path_type=Path),
            help="The home folder of the stack, or the name of a test stack's, such as lan-2.",
        ),
        click.option("--socket", type=click.Path(path_type=Path), help="The socket of its daemon."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else."),
    )
    for option in reversed(options):
        function = option(function)
    return function


class Verb(click.Command):
    """A command that also reads a last word `json` as `--json` and a lone `help` as `--help`."""

    bare_json = True

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args == ["help"]:
            args = ["--help"]
        if self.bare_json and args[-1:] == ["json"]:
            try:
                return super().parse_args(ctx, [*args[:-1], "--json"])
            except click.MissingParameter:
                # Then the word was the argument, as in `tektonmesh trace json`.
                ctx.params.clear()
        return super().parse_args(ctx, args)


class WordyVerb(Verb):
    """A verb whose last argument is free text, in which `json` is a word like any other."""

    bare_json = False


def verb(
    *, example: str, cls: type[Verb] = Verb, **settings: Any
) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a command of a function that takes `where` and its own parameters, and returns None or
    an exit code. Its docstring is the help; `example` is shown below it."""

    def wrap(function: Callable[..., Any]) -> click.Command:
        def run(home: Path | None, socket: Path | None, as_json: bool, **params: Any) -> int | None:
            where = click.get_current_context().ensure_object(Where)
            where.home = home or where.home
            where.socket = socket or where.socket
            where.json = as_json or where.json
            result: int | None = function(where=where, **params)
            return result

        run.__doc__ = function.__doc__
        # Where click keeps the options that decorators gave a function.
        vars(run)["__click_params__"] = getattr(function, "__click_params__", [])
        context = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
        context |= settings.pop("context_settings", {})
        return click.command(
            cls=cls, epilog=f"Example: {example}", context_settings=context, **settings
        )(where_options(run))

    return wrap
