"""`tektonmesh attach`: a CI from any command; the daemon gets what the command prints."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import click

from tektonmesh.api import dialect
from tektonmesh.cli.commands.register import description_options, description_params
from tektonmesh.cli.common import Where, WordyVerb, verb
from tektonmesh.cli.failures import say
from tektonmesh.errors import LocalError, MeshError

if TYPE_CHECKING:
    from tektonmesh.api.sync import Client


@verb(
    example="tektonmesh attach shout -- tr a-z A-Z",
    cls=WordyVerb,
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": True},
)
@click.argument("name")
@click.argument("words", metavar="-- COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--parallel", type=click.IntRange(1, 256), default=1, show_default=True,
              metavar="N", help="How many messages the command may work on at once.")  # fmt: skip
@description_options
def command(
    where: Where, name: str, words: tuple[str, ...], parallel: int, **described: Any
) -> int:
    """Make the CI NAME of COMMAND, until you press Ctrl-C.

    For each message the command runs with the body on stdin; its stdout is streamed back as the
    reply, and a non-zero exit is a failure reply with the last line of its stderr. It finds the
    sender and the message id in $TEKTONMESH_FROM and $TEKTONMESH_ID.
    """
    if shutil.which(words[0]) is None:
        raise LocalError(
            f"There is no command '{words[0]}'.", hint="Check the spelling after `--`."
        )
    from tektonmesh.cli.attached import run_command

    def serve(client: Client) -> None:
        client.call("subscribe", kinds=["ci_deregistered"])
        client.serve(
            lambda message: run_command(words, message),
            parallel=parallel,
            reconnect=False,
            on_notice=lambda notice: end_if_removed(name, notice),
        )

    params = description_params(**described) | {"stream": True}
    with _ended_by_signals():
        _Attachment(where, name, params, serve).keep()


def end_if_removed(name: str, notice: Mapping[str, Any]) -> None:
    """Raises MeshError when the CI was removed by somebody else: then nothing more will come."""
    ours = str(notice.get("ci", "")).lower() == name.lower()
    if ours and notice.get("kind") == "ci_deregistered":
        raise MeshError(f"{name} was deregistered by somebody else.", code="ci_failed")


class _Attachment:
    """One CI over one connection after the other; the first one must be there at once."""

    def __init__(
        self, where: Where, name: str, params: dict[str, Any], serve: Callable[[Client], None]
    ) -> None:
        self._where = where
        self._name = name
        self._params = params
        self._serve = serve
        self._pauses: Iterator[float] | None = None

    def keep(self) -> NoReturn:
        """Serve for ever. Raises MeshError for whatever a daemon's restart does not mend."""
        while True:
            try:
                with self._where.client() as client:
                    self._once(client)
            except MeshError as error:
                if "token" not in self._params or error.code.name not in dialect.PASSING:
                    raise
                if self._pauses is None:
                    say(f"{error.detail} Trying until it is back.")
            self._pauses = self._pauses or dialect.pauses()
            time.sleep(next(self._pauses))

    def _once(self, client: Client) -> None:
        """Register and serve until the connection ends; the token is kept for the next time."""
        registered = False
        try:
            result = client.register(self._name, **self._params)
            registered = True
            self._params["token"] = result["token"]
            self._pauses = None
            say(f"{result['name']}@{result['stack']} is attached.")
            self._serve(client)
        except (KeyboardInterrupt, SystemExit):
            # An end on purpose: the CI leaves at once, not after the grace of a lost connection.
            if registered:
                client.deregister(self._name)
            raise


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, so that the CI says goodbye."""

    def end(number: int, _frame: object) -> NoReturn:
        raise SystemExit(0 if number == signal.SIGTERM else 130)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
