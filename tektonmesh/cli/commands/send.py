"""`tektonmesh send`: a message to a CI; the reply is printed as it streams."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from tektonmesh.api.dialect import bytes_of
from tektonmesh.cli.common import Where, WordyVerb, verb
from tektonmesh.cli.failures import say
from tektonmesh.cli.render import emit_json, on_terminal, safe_text
from tektonmesh.errors import LocalError

if TYPE_CHECKING:
    from tektonmesh.api.dialect import Reply
    from tektonmesh.api.sync import ReplyStream


@verb(example='tektonmesh send numa@west "hello"', cls=WordyVerb)
@click.argument("target")
@click.argument("text", nargs=-1)
@click.option("--timeout", type=click.FloatRange(0.01), default=60.0, show_default=True,
              metavar="S", help="Seconds to wait for the reply.")  # fmt: skip
@click.option("--no-wait", is_flag=True, help="Do not wait for the reply; print the message id.")
@click.option(
    "--conversation",
    metavar="WORD",
    default="",
    help="With a selector: stay with the CI that got the first message of WORD.",
)
@click.option(
    "--idempotent",
    is_flag=True,
    help="With a selector: it may go to another CI though one may have had it.",
)
def command(
    where: Where, target: str, text: tuple[str, ...], timeout: float, **options: Any
) -> int:
    """Send TEXT (or stdin) to the CI TARGET and print its reply as it comes.

    A bare name is a CI of this stack; `numa@west` is one of the stack west. Whoever is free of
    those that fit gets what is sent to `specialty:WORD`, `capability:WORD` or `ci:NAME@*`; each
    member gets what is sent to `team:WORD`. `--json` prints one object with the reply, its path and
    the time spent at each hop. A message has at most 258,048 bytes.
    """
    body = " ".join(text).encode() if text else _read_stdin()
    no_wait = options.pop("no_wait")
    options = {key: value for key, value in options.items() if value} | {"timeout": timeout}
    with where.client() as client:
        if no_wait:
            _print_id(where, client.send(target, body, no_reply=True, **options).id)
        elif where.json or target.startswith("team:"):
            return _print_whole(where, client.send(target, body, **options))
        else:
            with client.stream(target, body, **options) as reply:
                _print_reply(reply)
    return 0


def _print_whole(where: Where, reply: Reply) -> int:
    """Of a team each member's answer, failures on stderr; exit code 1 if there are any."""
    failed = [row for row in reply.targets if not row["ok"]]
    if where.json:
        emit_json(reply.as_dict())
    else:
        for row in reply.targets:
            if row["ok"]:
                print(safe_text(f"{row['to']}: {_told(row)}"))
        for row in failed:
            say(safe_text(f"{row['to']}: {row['error']['detail']}"))
    return 1 if failed else 0


def _told(row: dict[str, Any]) -> str:
    """What a member answered, as text."""
    if "omitted" in row:
        return f"({row['omitted']} bytes, left out: the answers were too long together)"
    if row.get("accepted"):
        return "has it."
    return bytes_of(row).decode(errors="replace")


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
