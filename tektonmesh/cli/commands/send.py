"""`tektonmesh send`: a message to a CI; the reply is printed as it streams."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tektonmesh.api.dialect import bytes_of
from tektonmesh.api.largeparts import Body, begun, plain_of
from tektonmesh.cli.common import Where, WordyVerb, verb
from tektonmesh.cli.failures import say
from tektonmesh.cli.render import emit_json, on_terminal, safe_text
from tektonmesh.errors import LocalError

if TYPE_CHECKING:
    from tektonmesh.api.dialect import Reply
    from tektonmesh.api.replies_sync import ReplyStream


@verb(example='tektonmesh send numa@west "hello"', cls=WordyVerb)
@click.argument("target")
@click.argument("text", nargs=-1)
@click.option("--file", "path", type=click.Path(path_type=Path), metavar="PATH",
              help="Send what is in this file.")  # fmt: skip
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
@click.option(
    "--may-park",
    is_flag=True,
    help="With --no-wait: a stack that consents may keep it while its destination is away.",
)
@click.option("--key", metavar="KEY",
              help="Sending again with the same key is the same message again.")  # fmt: skip
@click.option(
    "--conversation",
    metavar="WORD",
    help="With a selector: stay with the CI that got the first message of WORD.",
)
@click.option(
    "--idempotent",
    is_flag=True,
    help="With a selector: it may go to another CI though one may have had it.",
)
def command(where: Where, target: str, text: tuple[str, ...], **options: Any) -> int:
    """Send TEXT (or stdin) to the CI TARGET and print its reply as it comes.

    A bare name is a CI of this stack; `numa@west` is one of the stack west. Whoever is free of
    those that fit gets what is sent to `specialty:WORD`, `capability:WORD` or `ci:NAME@*`; each
    member gets what is sent to `team:WORD`. `--json` prints one object with the reply, its path and
    the time spent at each hop. A message has at most 1 GiB; over 258,048 bytes it goes by the disk.
    `tektonmesh message ID` shows what became of one that was sent with `--no-wait`.
    """
    no_wait, ttl, key = options["no_wait"], options["ttl"], options["key"]
    if ttl is not None and not no_wait:
        raise LocalError("--ttl is only for --no-wait.", hint="--timeout is how long to wait.")
    if options["may_park"] and not no_wait:
        raise LocalError("--may-park is only for --no-wait.")
    body = _body_of(text, options["path"])
    chosen = {name: options[name] for name in ("timeout", "conversation", "idempotent")}
    with where.client() as client:
        if no_wait:
            kept = {"durable": True, "ttl_s": ttl, "idempotency_key": key}
            kept["may_park"] = options["may_park"]
            _print_id(where, client.send(target, body, **chosen, **kept).id)
        elif where.json or key or target.startswith("team:"):
            # A reply that may have come before cannot be streamed.
            return _print_whole(where, client.send(target, body, **chosen, idempotency_key=key))
        else:
            with client.stream(target, body, **chosen) as reply:
                _print_reply(reply)
    return 0


def _print_whole(where: Where, reply: Reply) -> int:
    """Of a team each member's answer, failures on stderr; exit code 1 if there are any."""
    failed = [row for row in reply.targets if not row["ok"]]
    if where.json:
        emit_json(reply.as_dict())
    elif not reply.targets:
        print(safe_text(reply.body) if on_terminal() else reply.body)
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


def _body_of(text: tuple[str, ...], path: Path | None) -> Body:
    """The words, the file, or stdin; bytes unless it is large."""
    if text and path is not None:
        raise LocalError("There are two messages.", hint="Give a TEXT or a --file, not both.")
    if text:
        body: Body = " ".join(text).encode()
    elif path is not None:
        body = path
    elif sys.stdin is None or sys.stdin.isatty():
        raise LocalError("There is no message.", hint="Give a TEXT, or pipe one in.")
    else:
        body = begun(sys.stdin.buffer)
    plain = plain_of(body)
    return body if plain is None else plain


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
