"""The log of a daemon on stderr: one line per entry, for people, or one JSON object per line.

It decides how a notice of the core reads and what is never written: bodies, tokens, headers and
control characters that came from elsewhere. Which notices exist is decided by the core.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from tektonmesh.core.ids import show_id
from tektonmesh.core.types import ID_SIZE

ROOT_LOGGER = "tektonmesh"
_NEVER = frozenset({"body", "data", "headers", "metadata", "secret", "token", "text"})
_VALUE_SIZE_MAX = 300

_WARNINGS = frozenset(
    {
        "audit_went_back",
        "ci_not_published",
        "ci_row_damaged",
        "clock_alarm",
        "clone_fenced",
        "clock_memory_discarded",
        "epoch_exhausted",
        "link_error",
        "link_not_published",
        "name_taken",
        "peer_struck",
        "seal_refused",
        "self_contradicted",
        "stack_equivocated",
        "store_failed",
    }
)
_DETAILS = frozenset(
    {
        "converged",
        "envelope_ignored",
        "hop_silent",
        "message_done",
        "not_converged",
        # `links` has said these two in a sentence, with what to do about them.
        "peer_pending",
        "peer_refused",
    }
)
"""Too frequent for a log that people read; they are on `watch` and in the metrics."""


def log_to(stream: TextIO, level: str, *, as_json: bool = False) -> None:
    """Send everything of the package to `stream` from now on, at `level` and above."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_JsonLines() if as_json else _PlainLines())
    logger = logging.getLogger(ROOT_LOGGER)
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False


def log_to_stderr(level: str, *, as_json: bool = False) -> None:
    """What `run` does: the log goes to stderr, stdout stays free for results."""
    log_to(sys.stderr, level, as_json=as_json)


def level_of(kind: str) -> int:
    """How loud a notice of this kind is."""
    if kind in _WARNINGS:
        return logging.WARNING
    return logging.DEBUG if kind in _DETAILS else logging.INFO


def sentence(kind: str, data: Mapping[str, Any]) -> str:
    """`kind` and its values as one line: `stack up: name=west rtt_ms=1.2`."""
    shown = plain(data)
    pairs = " ".join(f"{key}={_quoted(value)}" for key, value in shown.items())
    words = kind.replace("_", " ")
    return f"{words}: {pairs}" if pairs else words


def plain(data: Mapping[str, Any]) -> dict[str, Any]:
    """`data` as JSON can carry it and without what is never shown; ids as their 52 characters."""
    return {key: _plain(value) for key, value in data.items() if key not in _NEVER}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return show_id(value) if len(value) == ID_SIZE else value.hex()
    if isinstance(value, Mapping):
        return plain({str(key): item for key, item in value.items()})
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return clean(str(value))


def clean(text: str) -> str:
    """`text` on one line and of bounded length: names and reasons of peers are input of theirs."""
    kept = "".join(character if character.isprintable() else "?" for character in text)
    return kept if len(kept) <= _VALUE_SIZE_MAX else kept[:_VALUE_SIZE_MAX] + "..."


def _quoted(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else json.dumps(value)
    return json.dumps(text, ensure_ascii=False) if " " in text or not text else text


class _PlainLines(logging.Formatter):
    """`10:42:07.123 warning net.links: peer refused: ...`, the traceback after it."""

    default_msec_format = "%s.%03d"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(level)s %(room)s: %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        record.level = record.levelname.lower()
        record.room = record.name.removeprefix(f"{ROOT_LOGGER}.")
        return super().format(record)


class _JsonLines(logging.Formatter):
    """One object per line: at, level, logger, message, and the notice's own values."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        kind = getattr(record, "notice_kind", None)
        if kind is not None:
            line |= {"kind": kind, "values": getattr(record, "notice_values", {})}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
