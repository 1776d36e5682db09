"""Helper tasks for the length of a block, with plain exceptions.

A nursery wraps what comes out of it in a group, also when only one thing went wrong. Callers of a
client or of a door expect the error itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def helpers() -> AsyncIterator[trio.Nursery]:
    """A nursery whose tasks are cancelled when the block ends; a sole error comes out as it is."""
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        sole = _sole(group)
        if sole is None:
            raise
        raise sole from sole.__cause__


def _sole(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """The one exception inside all the groups; None if there are several."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        if len(found.exceptions) != 1:
            return None
        found = found.exceptions[0]
    return found
