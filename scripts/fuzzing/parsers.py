"""Every parser that is fuzzed, by name."""

from __future__ import annotations

from scripts.fuzzing import parsers_link, parsers_messages, parsers_signed, parsers_text
from scripts.fuzzing.parser import Parser

_SOURCES = (parsers_messages, parsers_link, parsers_signed, parsers_text)

PARSERS: dict[str, Parser] = {one.name: one for source in _SOURCES for one in source.parsers()}
"""In the order in which they are run."""
