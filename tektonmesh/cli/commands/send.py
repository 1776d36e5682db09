"""`tektonmesh send`: a message to a CI; the reply is printed as it streams."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

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
@click.option(
    "--no-wait",
    is_flag=True,
    help="Print the id once the message is safe on disk; it then outlives the daemon.",
)
@click.option(
    "--ttl",
    type=click.FloatRange(1.0),
    metavar="S",
    help="With --no-wait: seconds it is worth delivering (a day; at most 7).",
)
@click.option("--key", metavar="KEY",
              help="Sending again with the same key is the same message again.")  # fmt: skip
def command(where: Where, target: str, text: tuple[str, ...], **options: Any) -> None:
    """Send TEXT (or stdin) to the CI TARGET and print its reply as it comes.

    A bare name is a CI of this stack; `numa@west` is one of the stack west. `--json` prints one
    object with the reply, its path and the time spent at each hop. A message has at most 258,048
    bytes. `tektonmesh message ID` shows what became of one that was sent with `--no-wait`.
    """
    timeout, no_wait = options["timeout"], options["no_wait"]
    if options["ttl"] is not None and not no_wait:
        raise LocalError("--ttl is only for --no-wait.", hint="--timeout is how long to wait.")
    body = " ".join(text).encode() if text else _read_stdin()
    with where.client() as client:
        if no_wait:
            kept = {"durable": True, "ttl_s": options["ttl"], "idempotency_key": options["key"]}
            _print_id(where, client.send(target, body, timeout=timeout, **kept).id)
        elif where.json:
            whole = client.send(target, body, timeout=timeout, idempotency_key=options["key"])
            emit_json(whole.as_dict())
        elif options["key"]:
            # A reply that may have come before cannot be streamed.
            whole = client.send(target, body, timeout=timeout, idempotency_key=options["key"])
            print(safe_text(whole.body) if on_terminal() else whole.body)
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
