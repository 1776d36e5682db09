"""A large body on its way to the daemon, in Trio; what is said is `largeparts'."""

from __future__ import annotations

import trio

from tektonmesh.api import largeparts

READ_SIZE = 65_536


async def hand_in(link: trio.SocketStream, body: largeparts.Body) -> str:
    """Give the daemon at the other end of a fresh connection a large body; its name."""
    answer, parts = b"", largeparts.parts_of(body)
    async with link:
        try:
            await link.send_all(largeparts.HEAD)
            while part := await trio.to_thread.run_sync(next, parts, b""):
                await link.send_all(largeparts.framed(part))
            await link.send_all(largeparts.END)
        except trio.BrokenResourceError:
            pass  # The daemon may have said why before it hung up; reading tells.
        try:
            while data := await link.receive_some(READ_SIZE):
                answer += data
        except trio.BrokenResourceError:
            pass
    return largeparts.ref_of(answer)
