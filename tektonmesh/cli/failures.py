"""From any failure to one line on stderr and an exit code; the one place where both are decided.

A person gets `tektonmesh: <what is wrong>. <what to try>`, never a traceback. Set
`TEKTONMESH_TRACEBACK=1` to see one as well, for a report of a fault in the daemon itself.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from tektonmesh.errors import CODES, MeshError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def exit_code_of(error: BaseException, *, as_json: bool = False) -> int:
    """Say what `error` is, unless it is quiet by nature, and return the exit code."""
    if isinstance(error, BaseExceptionGroup):
        error = telling_one(error)
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else EXIT_FAILED
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return EXIT_INTERRUPTED
    if isinstance(error, BrokenPipeError):
        # The reader has seen enough; that is not our failure.
        return 0
    if isinstance(error, MeshError):
        return _mesh_error(error, as_json=as_json)
    if isinstance(error, click.ClickException):
        say(_usage_sentence(error))
        return EXIT_USAGE
    return _fault(error)


def telling_one(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The leaf of a group that says most: an error made on purpose, else the first one."""
    leaves: list[BaseException] = []
    waiting: list[BaseException] = [group]
    while waiting:
        error = waiting.pop(0)
        if isinstance(error, BaseExceptionGroup):
            waiting.extend(error.exceptions)
        else:
            leaves.append(error)
    for kind in (MeshError, KeyboardInterrupt, Exception):
        for leaf in leaves:
            if isinstance(leaf, kind):
                return leaf
    return leaves[0]


def _mesh_error(error: MeshError, *, as_json: bool) -> int:
    if as_json:
        from tektonmesh.cli.render import emit_json

        emit_json({"error": error_object(error)})
    if error.code.name != "cancelled":
        say(error.sentence() + _candidates(error))
    return error.code.exit


def error_object(error: MeshError) -> dict[str, Any]:
    """The failure as `--json` shows it: outcome and retry always stand."""
    return {"outcome": "released", **error.as_dict()}


def _candidates(error: MeshError) -> str:
    candidates = error.data.get("candidates")
    if not isinstance(candidates, list) or any(str(name) in error.detail for name in candidates):
        return ""
    return " Candidates: " + ", ".join(str(name) for name in candidates) + "."


def _usage_sentence(error: click.ClickException) -> str:
    message = " ".join(error.format_message().split())
    context = error.ctx if isinstance(error, click.UsageError) else None
    verb = context.command_path if context else "tektonmesh"
    if "Did you mean" in message or "tektonmesh help" in message:
        return message
    return f"{message.rstrip('.')}. Try `{verb} --help`."


def _fault(error: BaseException) -> int:
    if os.environ.get("TEKTONMESH_TRACEBACK"):
        import traceback

        traceback.print_exception(error)
    detail = " ".join(str(error).split()) or "no detail"
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        say(f"The system refused: {error.strerror or detail}{where}. Try `tektonmesh doctor`.")
    else:
        say(
            f"A fault of tektonmesh itself: {type(error).__name__}: {detail}."
            " Please report it with the output under TEKTONMESH_TRACEBACK=1."
        )
    return CODES["internal"].exit


def say(sentence: str) -> None:
    """One line to the person, on stderr. A closed stderr is no reason to fail."""
    line = " ".join(sentence.split())
    try:
        print(f"tektonmesh: {line}", file=sys.stderr, flush=True)
    except OSError:
        return
