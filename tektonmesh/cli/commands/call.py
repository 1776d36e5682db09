"""`tektonmesh call`: call a tool of any CI and print its result."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from tektonmesh.cli.common import Where, WordyVerb, verb
from tektonmesh.cli.failures import EXIT_FAILED
from tektonmesh.cli.render import emit_json, on_terminal, safe_text
from tektonmesh.errors import LocalError

PATIENCE_S = 930.0
"""A call takes at most 15 minutes."""


@verb(example="""tektonmesh call files@west/read_file '{"path": "/srv/notes"}'""", cls=WordyVerb)
@click.argument("ref")
@click.argument("arguments", metavar="[ARGS-JSON]", required=False)
def command(where: Where, ref: str, arguments: str | None) -> int | None:
    """Call the tool REF (`ci@stack/tool`) with ARGS-JSON, an object, or `-` to read it from stdin.

    A prompt or a resource in place of a tool is got or read. Texts are printed, other content is
    described; `--json` prints the whole result. A tool that says it failed is exit 1.
    """
    given = sys.stdin.read() if arguments == "-" else arguments
    with where.client() as client:
        client.timeout = PATIENCE_S
        result = client.call("call", ref=ref, arguments=_object(given))
    if where.json:
        emit_json(result)
    else:
        _print(result)
    return EXIT_FAILED if result.get("isError") else None


def _object(text: str | None) -> dict[str, Any]:
    if text is None or not text.strip():
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise LocalError(f"ARGS-JSON is not valid JSON: {error}.") from None
    if not isinstance(found, dict):
        raise LocalError('ARGS-JSON must be an object, such as {"text": "hello"}.')
    return found


def _print(result: dict[str, Any]) -> None:
    parts = [
        *(result.get("content") or []),
        *(result.get("contents") or []),
        *(one.get("content") or {} for one in result.get("messages") or []),
    ]
    for part in parts:
        inner = part.get("resource") if isinstance(part.get("resource"), dict) else part
        text = inner.get("text")
        if text is None:
            kind = inner.get("mimeType") or inner.get("uri") or "no text"
            text = f"[{part.get('type', 'resource')}: {kind}]"
        click.echo(safe_text(text) if on_terminal() else text)
    if not parts:
        emit_json(result)
