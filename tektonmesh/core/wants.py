"""The blobs that are referred to and lacking: which of them to look at next, and when again.

A want is ready, put off, or being fetched. It is put off for ever longer after each round in which
no neighbour had it, so that what nobody has costs next to nothing, and for a while when it would
not be kept. What being looked at comes to is for `core/blobs`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from tektonmesh.core.machine import Env
from tektonmesh.core.references import Blob
from tektonmesh.core.types import LinkId
from tektonmesh.core.wheel import Waiting, Wheel

WANTS_MAX = 65_536
"""Blobs remembered as lacking. What is referred to beyond that is fetched when somebody waits for
it only; with 256 of each owner it takes 256 owners who refer to nothing but what nobody has."""
PAUSE_S = 0.5
PAUSE_MAX_S = 3600.0
"""After the first round without success, and at most. A blob that is on its way to the neighbours
is there after the first pauses."""
NO_ROOM_S = 300.0
"""What would not be kept is looked at again after this."""


class Want(Waiting):
    """A lacking blob. `via` is the link on which its reference came; `asked` says that a neighbour
    asked for it, `full` that there was no room for it."""

    __slots__ = ("asked", "blob", "full", "pause_s", "via")

    def __init__(self, blob: Blob) -> None:
        super().__init__()
        self.blob = blob
        self.via: LinkId | None = None
        self.pause_s = PAUSE_S
        self.asked = self.full = False


class Wants:
    """All wants of one node. `news` is called when one gets ready."""

    def __init__(self, env: Env, news: Callable[[], None]) -> None:
        self._env = env
        self._news = news
        self._all: dict[Blob, Want] = {}
        self._ready: dict[Blob, Want] = {}
        self._wheel: Wheel[Want] = Wheel(env, "blobs", self.wake, slot_s=0.1)

    def __len__(self) -> int:
        return len(self._all)

    def get(self, blob: Blob) -> Want | None:
        return self._all.get(blob)

    def all(self) -> list[Want]:
        return list(self._all.values())

    def ready(self, most: int) -> list[Want]:
        """The first of those to be looked at."""
        return list(islice(self._ready.values(), most))

    def add(self, blob: Blob, via: LinkId | None) -> Want | None:
        """Lack this from now on, or anew; None when there are too many wants."""
        want = self._all.get(blob)
        if want is None:
            if len(self._all) >= WANTS_MAX:
                return None
            want = self._all[blob] = Want(blob)
        want.via = want.via if via is None else via
        want.pause_s = PAUSE_S
        return want

    def remove(self, blob: Blob) -> None:
        """It is not lacking any more; harmless if it was not."""
        want = self._all.pop(blob, None)
        if want is not None:
            self.take(want)

    def take(self, want: Want) -> None:
        """It is being looked at or fetched: neither ready nor put off."""
        self._ready.pop(want.blob, None)
        self._wheel.disarm(want)

    def wake(self, want: Want) -> None:
        """Have it looked at, after those that are ready."""
        self._wheel.disarm(want)
        want.full = False
        self._ready[want.blob] = want
        self._news()

    def failed(self, want: Want) -> None:
        """No neighbour had it."""
        want.asked = False
        self._put_off(want, want.pause_s)
        want.pause_s = min(2.0 * want.pause_s, PAUSE_MAX_S)

    def no_room(self, want: Want) -> None:
        """It would not be kept."""
        want.full = True
        self._put_off(want, NO_ROOM_S)

    def _put_off(self, want: Want, pause_s: float) -> None:
        self.take(want)
        self._wheel.arm(want, self._env.after(self._env.jitter(pause_s)))
