"""How the explanation of a message reads: where it is, what was tried, what it waits for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from tektonmesh.cli.render import duration, milliseconds, safe_text, table

_COPIES = ("left", "way", "past", "what became of it")
_STAGES = {
    "writing": "is being written to the disk",
    "waiting": "waits",
    "leased": "is in the hands of its CI",
    "answered": "is answered",
    "done": "is done with",
}
_STATES = {
    "accepted": "safe on the disk here",
    "sent": "on its way",
    "received": "at its stack",
    "parked": "safe on the disk here, and kept by another stack until its own returns",
    "answered": "answered",
    "failed": "failed",
    "expired": "expired: its time was over before its end",
}


def show(found: dict[str, Any]) -> None:
    """Print an explanation for people: in words first, then the copies."""
    for line in lines(found):
        print(safe_text(line))
    attempts = found.get("origin", {}).get("attempts")
    if attempts:
        print()
        table(_COPIES, (_copy(attempt) for attempt in attempts), empty="")


def lines(found: dict[str, Any]) -> Iterator[str]:
    origin, there = found.get("origin"), found.get("destination")
    if found["state"] is not None or origin is not None:
        yield _headline(found, origin or {})
    error = found.get("error")
    if error:
        yield f"{error['code']}: {error['detail']}"
    if origin is not None:
        yield from _waits(origin)
        yield from _receipt(origin, "It came there by")
    if there is not None:
        yield f"Here it {_STAGES[there['stage']]}; it is from {there['from']}{_tries(there)}."
        yield from _waits(there)
        yield from _receipt(there, "It came by")
        yield from _answer(there["answer"])
    for relayed in found.get("relay", []):
        yield f"Passes here from {relayed['from']} to {relayed['to']}, by {relayed['via']}."
        yield from _waits(relayed)


def _headline(found: dict[str, Any], origin: dict[str, Any]) -> str:
    to = found.get("to") or origin.get("to")
    state = found["state"] or "sent"
    left = origin.get("left_s")
    return (
        f"The message{f' to {to}' if to else ''} is {_STATES.get(state, state)}"
        f"{f'; it has {duration(left)} left' if left is not None else ''}."
    )


def _waits(part: dict[str, Any]) -> Iterator[str]:
    waits = part["waits"]
    if waits:
        following = waits["next_s"]
        after = f" Next in {duration(following)}." if following is not None else ""
        yield f"It waits for {waits['for']}. {waits['why']}{after}"


def _tries(there: dict[str, Any]) -> str:
    attempt, losses = there.get("attempt", 0), there.get("losses", 0)
    if not attempt:
        return ""
    return f", given to its CI {attempt} times before" + (f" and lost {losses}" if losses else "")


def _receipt(part: dict[str, Any], words: str) -> Iterator[str]:
    if part["receipt"]:
        hops = part["receipt"]["hops"]
        way = ", ".join(f"{hop['stack']} ({milliseconds(hop['dwell_ms'])})" for hop in hops)
        yield f"{words} {way}; in brackets how long each had it."


def _answer(answer: dict[str, Any] | None) -> Iterator[str]:
    if answer:
        count = answer["copies"]
        yield f"Its answer left {count} time{'s' if count != 1 else ''}."


def _copy(attempt: dict[str, Any]) -> tuple[str, ...]:
    left = time.strftime("%H:%M:%S", time.localtime(attempt["at"]))
    took = attempt["after_ms"]
    fate = attempt["fate"] if took is None else f"{attempt['fate']} after {milliseconds(took)}"
    return left, " > ".join(attempt["path"]), " ".join(attempt["avoids"]), fate
