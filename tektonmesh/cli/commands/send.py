"""`tektonmesh send`: a message to a CI; the reply is printed as it streams."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from tektonmesh.cli.common import Where, WordyVerb, verb
from tektonmesh.cli.render import emit_json, on_terminal, safe_text
from tektonmesh.errors import LocalError

if TYPE_CHECKING:
    from tektonmesh.api.sync import ReplyStream


@verb(example='tektonmesh send numa@west "hello"', cls=WordyVerb)
@click.argument("target")
@click.argument("text", nargs=-1)
@click.option("--timeout", type=click.FloatRange(0.01), default=60.0, show_default=True,
              metavar="S", help="Seconds to wait for the reply.")  # fmt: skip
@click.option("--no-wait", is_flag=True, help="Do not wait for the reply; print the message id.")
def command(
    where: Where, target: str, text: tuple[str, ...], timeout: float, no_wait: bool
) -> None:
    """Send TEXT (or stdin) to the CI TARGET and print its reply as it comes.

    A bare name is a CI of this stack; `numa@west` is one of the stack west. `--json` prints one
    object with the reply, its path and the time spent at each hop. A message has at most 258,048
    bytes.
    """
    body = " ".join(text).encode() if text else _read_stdin()
    with where.client() as client:
        if no_wait:
            _print_id(where, client.send(target, body, timeout=timeout, no_reply=True).id)
        elif where.json:
            emit_json(client.send(target, body, timeout=timeout).as_dict())
        else:
            with client.stream(target, body, timeout=timeout) as reply:
                _print_reply(reply)


def _read_stdin() -> bytes:
    if sys.stdin is None or sys.stdin.isatty():
        raise LocalError("There is no message.", hint="Give a TEXT, or pipe one in.")
    return sys.stdin.buffer.read()


def _print_id(where: Where, message_id: str) -> None:
    if where.json:
        emit_json({"id": message_id})
    else:
        print(message_id)


def _print_reply(reply: ReplyStream) -> None:
    """As it comes: the very bytes into a pipe or file; to a terminal text without control
    characters, and a line end after it."""
    terminal, written, last = on_terminal(), 0, ""
    for text in reply:
        if terminal:
            sys.stdout.write(safe_text(text))
            last = text[-1]
        else:
            data = reply.received
            sys.stdout.buffer.write(data[written:])
            written = len(data)
        sys.stdout.flush()
    if not terminal:
        sys.stdout.buffer.write(reply.received[written:])
    elif last not in ("", "\n"):
        print()
