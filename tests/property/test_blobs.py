"""Blobs from neighbours that hold them, lack them, stop, die and lie, in every mixture."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tektonmesh.core.effects import Send
from tektonmesh.core.fetches import PATIENCE_AHEAD_S, Fetches
from tektonmesh.core.machine import Env
from tektonmesh.core.messages import BLOB_SIZE_MAX, PIECE_SIZE, Fetch, Lacking, Piece
from tektonmesh.core.references import Blob
from tektonmesh.core.stash import hash_blob
from tektonmesh.errors import RemoteError
from tests.support import make_env

PIECES = 4
DATA = (b"tekton " * 40_000)[: (PIECES - 1) * PIECE_SIZE + 100]
BLOB = hash_blob(DATA)
HONEST = ("holds", "lacks", "silent", "stops", "dies")
LIARS = ("bytes", "longer", "shorter", "cut", "endless")

NEIGHBOURS = st.lists(
    st.tuples(st.sampled_from(HONEST + LIARS), st.integers(0, PIECES - 1)), min_size=1, max_size=5
)
"""(how it behaves, from which piece on) of the links 1, 2 ..."""


class World:
    """A fetch, and the neighbours that answer it."""

    def __init__(self, neighbours: list[tuple[str, int]], *, wanted: bool) -> None:
        self.env: Env = make_env()
        self.neighbours = dict(enumerate(neighbours, 1))
        self.ended: list[tuple[Blob, bytes | None]] = []
        self.blamed: list[str] = []
        self.fetches = Fetches(self.env, lambda blob, data: self.ended.append((blob, data)))
        self.fetches.begin(BLOB, BLOB_SIZE_MAX, list(self.neighbours), wanted=wanted)

    def run(self) -> None:
        """Until the fetch has ended, which takes a bounded time."""
        end = self.env.now + 100.0 * PATIENCE_AHEAD_S
        while not self.ended:
            sends = [it for it in self.env.take() if isinstance(it, Send)]
            for send in sends:
                [message] = send.messages
                assert isinstance(message, Fetch)
                self._answer(send.link, message)
            if not sends:
                self.env.now = self.env.deadlines.earliest()
                assert self.env.now < end, "the fetch ends"
                self.env.deadlines.run_due(self.env.now)

    def _answer(self, link: int, ask: Fetch) -> None:
        kind, since = self.neighbours[link]
        if kind == "holds" or ask.offset // PIECE_SIZE < since:
            data = DATA
        elif kind == "silent":
            return
        elif kind in ("lacks", "stops"):
            self.fetches.on_lacking(link, Lacking(BLOB))
            return
        elif kind == "dies":
            self.fetches.link_down(link)
            return
        else:
            data = false_bytes(kind)
        if ask.offset >= len(data):
            self.fetches.on_lacking(link, Lacking(BLOB))
            return
        size = PIECE_SIZE - (kind == "cut" and data is not DATA)
        piece = data[ask.offset : ask.offset + size]
        total = 2 * BLOB_SIZE_MAX if data is not DATA and kind == "endless" else len(data)
        try:
            self.fetches.on_piece(link, Piece(BLOB, ask.offset, total, piece))
        except RemoteError:
            self.blamed.append(kind)
            self.fetches.link_down(link)


def false_bytes(kind: str) -> bytes:
    """What a liar gives out as the blob."""
    changed = bytes([DATA[0] ^ 1]) + DATA[1:-1] + b"?"
    return {"longer": DATA + DATA, "shorter": DATA[: PIECE_SIZE + 7]}.get(kind, changed)


@settings(deadline=None)
@given(NEIGHBOURS, st.booleans())
def test_a_fetch_gives_the_blob_or_nothing_and_blames_liars_only(
    neighbours: list[tuple[str, int]], wanted: bool
) -> None:
    world = World(neighbours, wanted=wanted)
    world.run()
    [(blob, data)] = world.ended
    assert blob == BLOB
    assert data in (DATA, None)
    assert all(kind in LIARS for kind in world.blamed)
    if "holds" in [kind for kind, _ in neighbours]:
        assert data == DATA, "one that has it is enough, whatever the others do"
    assert len(world.fetches) == 0
    assert len(world.env.deadlines) == 0
