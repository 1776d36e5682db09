"""One authenticated connection to a peer: TLS, handshake, frames, and a queue to write from.

`open_link` and `accept_link` return only links that both ends want. Reading gives all messages of
one read as a tuple; sending never waits and is bounded. When to open, whom to admit and what a
message means is decided elsewhere; this module decides how a connection begins and ends.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from dataclasses import field

import trio

from tektonmesh.core.envelope import CLASS_AT
from tektonmesh.core.frozen import frozen
from tektonmesh.core.messages import SEND_CLASS, Bye, Forward, Message, Spread
from tektonmesh.core.types import Identity, StackId
from tektonmesh.errors import LocalError, RemoteError
from tektonmesh.net.addresses import join_address, split_address
from tektonmesh.net.tls import Leaf, PeerLeaf, SeenLeaves, TlsStream
from tektonmesh.wire import limits
from tektonmesh.wire.codec import KIND, decode_message, encode_message, size_max
from tektonmesh.wire.frames import Assembler, SendQueue
from tektonmesh.wire.handshake import (
    Channel,
    Handshake,
    Judge,
    JudgeInvite,
    Local,
    Peer,
    Refused,
    Role,
    State,
)
from tektonmesh.wire.keys import Keys

_CLASS_LAST = limits.CLASSES - 1
_SLICE = 128
"""Messages that are dealt with before others have a turn. A read brings 64 KiB: sixty messages of a
kibibyte, and three thousand pings of a flood, which take 30 ms."""
_AT_ONCE_MAX = 2
"""Writes on the spot between two turns of the link's tasks: an answer and an acknowledgement."""


@frozen
class LinkContext:
    """What every link of this daemon is made with.

    `listen` gives the dialable addresses to tell peers, `judge` decides admission (`Node.judge`),
    `seen` remembers the newest leaf of every admitted identity. Times in seconds.
    """

    identity: Identity
    keys: Keys
    leaf: Leaf
    mesh_keys: tuple[bytes, ...]
    listen: Callable[[], Iterable[str]]
    judge: Judge
    judge_invite: JudgeInvite | None = None
    invite_for: Callable[[StackId], tuple[bytes, bytes] | None] = lambda _stack_id: None
    seen: SeenLeaves = field(default_factory=SeenLeaves)
    handshake_s: float = limits.HANDSHAKE_S
    connect_s: float = limits.CONNECT_S
    turns: trio.StrictFIFOLock = field(default_factory=trio.StrictFIFOLock)
    """Held for each step of a handshake: one of all of them at a time."""


class LinkRefused(Exception):
    """No link came about. An outcome of dialling, not an error of this program.

    `code` is "unreachable", "protocol", "self", "wrong_identity", or why one end did not want the
    other: "mesh", "version", "stale_leaf", "not_admitted", "refused". `by_peer` tells whose word
    that is. `peer` is set once the other end has signed for itself; a peer that refuses us has
    said nothing of itself, then `stack_id` is the one we expected, if any.
    """

    def __init__(self, code: str, detail: str, peer: Peer | None = None) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.peer = peer
        self.stack_id: StackId | None = peer.stack_id if peer else None
        self.name = peer.name if peer else ""
        self.address = ""
        self.outbound = False
        self.by_peer = False
        self.highest = 0


async def open_link(address: str, context: LinkContext, *, expect: StackId | None) -> Link:
    """Dial `host:port` and shake hands. Raises LinkRefused; with `expect`, another identity at
    that address is refused with `wrong_identity`."""
    try:
        sock = await _connect(address, context.connect_s)
        link = await _shake_hands(sock, context, Role.CLIENT, address=address, expect=expect)
    except LinkRefused as refused:
        refused.address = address
        refused.outbound = True
        refused.stack_id = refused.stack_id or expect
        raise
    return link


async def accept_link(sock: trio.socket.SocketType, context: LinkContext) -> Link:
    """Shake hands with whoever has connected. Raises LinkRefused. The socket is taken over."""
    plain = socket.socket(fileno=sock.detach())
    address = _address_of(plain)
    try:
        return await _shake_hands(plain, context, Role.SERVER, address=address, expect=None)
    except LinkRefused as refused:
        refused.address = address
        raise


async def _connect(address: str, connect_s: float) -> socket.socket:
    try:
        host, port = split_address(address)
        with trio.fail_after(connect_s):
            stream = await trio.open_tcp_stream(host, port)
    except trio.TooSlowError:
        raise LinkRefused("unreachable", f"No connection within {connect_s:g} s.") from None
    except (OSError, LocalError) as error:
        raise LinkRefused("unreachable", f"{error}") from None
    return socket.socket(fileno=stream.socket.detach())


def _address_of(sock: socket.socket) -> str:
    try:
        host, port = sock.getpeername()[:2]
    except OSError:
        return ""
    return join_address(host, port)


async def _shake_hands(
    sock: socket.socket,
    context: LinkContext,
    role: Role,
    *,
    address: str,
    expect: StackId | None,
) -> Link:
    """TLS and handshake under one deadline. The socket is closed unless a link comes of it."""
    side = context.leaf.server if role is Role.SERVER else context.leaf.client
    try:
        stream = TlsStream(sock, side, server_side=role is Role.SERVER)
    except OSError as error:
        # The peer reset the connection before TLS could look at it.
        sock.close()
        raise LinkRefused("unreachable", f"{error}") from None
    link = None
    try:
        with trio.fail_after(context.handshake_s):
            link = await _greet(stream, context, role, address=address, expect=expect)
    except trio.TooSlowError:
        slow = f"The handshake was not done within {context.handshake_s:g} s."
        raise LinkRefused("unreachable", slow) from None
    except RemoteError as error:
        raise LinkRefused("protocol", error.detail) from None
    finally:
        if link is None:
            stream.close()
    return link


async def _greet(
    stream: TlsStream,
    context: LinkContext,
    role: Role,
    *,
    address: str,
    expect: StackId | None,
) -> Link:
    leaf = await stream.handshake(context.turns)
    handshake = Handshake(
        role,
        Local(
            context.identity,
            context.keys,
            context.mesh_keys,
            tuple(context.listen()),
            invite=context.invite_for(expect) if expect is not None else None,
            judge_invite=context.judge_invite if role is Role.SERVER else None,
        ),
        _channel(role, context.leaf, leaf),
        judge=context.judge,
        highest=context.seen.highest,
        expect=expect,
    )
    peer = await _exchange(stream, handshake, context.turns)
    context.seen.note(leaf.identity_key, leaf.issued_at)
    return Link(stream, peer, address, outbound=role is Role.CLIENT, rest=handshake.rest)


def _channel(role: Role, own: Leaf, peer: PeerLeaf) -> Channel:
    leaves = (own.public, peer.public) if role is Role.CLIENT else (peer.public, own.public)
    return Channel(*leaves, peer.identity_key, peer.issued_at)


async def _exchange(stream: TlsStream, handshake: Handshake, turns: trio.StrictFIFOLock) -> Peer:
    """Run the handshake on the stream. Raises LinkRefused, after the peer was told."""
    try:
        reply = handshake.start()
        while True:
            if reply:
                await stream.write(reply)
            if handshake.state is State.DONE:
                break
            data = await stream.read()
            if not data:
                raise RemoteError("The other end left during the handshake.")
            async with turns:
                reply = handshake.receive(data)
    except Refused as refused:
        await _tell(stream, refused.reply)
        raise _link_refused(refused) from None
    except OSError as error:
        raise RemoteError(f"The connection broke during the handshake ({error}).") from None
    assert handshake.peer is not None
    return handshake.peer


async def _tell(stream: TlsStream, reply: bytes) -> None:
    """Say why, if the other end still takes it."""
    if reply:
        with trio.move_on_after(limits.CLOSE_FLUSH_S):
            try:
                await stream.write(reply)
            except OSError:
                return


def _link_refused(refused: Refused) -> LinkRefused:
    code = refused.code
    if refused.by_peer and code in ("self", "wrong_identity"):
        # What an address leads to is for us to find out, not for whoever answers there to say.
        code = "refused"
    result = LinkRefused(code, refused.detail, refused.peer)
    result.by_peer = refused.by_peer
    result.highest = refused.highest
    return result


class Link:
    """A link that both ends admitted. One task iterates over it, one runs `run`.

    `address` is where it goes to or comes from, `reason` why it ended, for people.
    """

    def __init__(
        self, stream: TlsStream, peer: Peer, address: str, *, outbound: bool, rest: bytes = b""
    ) -> None:
        self.peer = peer
        self.address = address
        self.outbound = outbound
        self.reason = ""
        self.bytes_in = 0
        self.bytes_out = 0
        self._stream = stream
        self._early = rest
        self._more: list[tuple[int, bytes]] = []
        self._assembler = Assembler(size_max)
        self._queue = SendQueue()
        self._pending = b""
        self._idle = False
        self._at_once = 0
        self._closing = False
        self._writer = trio.CancelScope()
        self._running = False
        self._ended = trio.Event()
        self._wake = trio.Event()

    @property
    def queued(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return self._queue.size + len(self._pending)

    # --- reading ---------------------------------------------------------------------------------

    def __aiter__(self) -> Link:
        return self

    async def __anext__(self) -> tuple[Message, ...]:
        """The messages that one read brought, or of thousands the next few. Ends when the link is
        closed or lost; raises RemoteError when the peer broke the protocol, after it was told."""
        while not self._closing:
            if self._more:
                await trio.lowlevel.checkpoint()
            data = b"" if self._more else await self._read()
            if not data and not self._more:
                self._end("The other end closed the connection.")
                break
            try:
                messages = self._decode(data)
            except RemoteError as error:
                self.close(error.code.name, error.detail)
                await self._ended.wait()
                raise
            if messages:
                return messages
        await self._ended.wait()
        raise StopAsyncIteration

    async def _read(self) -> bytes:
        if self._early:
            data, self._early = self._early, b""
            return data
        try:
            return await self._stream.read()
        except trio.ClosedResourceError:
            return b""
        except OSError as error:
            self.reason = self.reason or f"The connection is lost ({error.strerror or error})."
            return b""

    def _decode(self, data: bytes) -> tuple[Message, ...]:
        self.bytes_in += len(data)
        self._at_once = _AT_ONCE_MAX
        came = self._assembler.feed(data) if data else self._more
        now, self._more = came[:_SLICE], came[_SLICE:]
        decoded = [decode_message(kind, body) for kind, body in now]
        return tuple([message for message in decoded if message is not None])

    # --- writing ---------------------------------------------------------------------------------

    def send(self, messages: Iterable[Message]) -> None:
        """Queue messages and begin to write; never waits. Without effect once the link is closing.
        A queue over its bound closes the link."""
        self.queue(messages)
        self.flush()

    def queue(self, messages: Iterable[Message]) -> None:
        """As `send`; whoever calls it sees to a `flush`."""
        if self._closing:
            return
        push = self._queue.push
        for message in messages:
            if type(message) is Forward:
                send_class = min(message.envelope[CLASS_AT], _CLASS_LAST)
            elif type(message) is Spread:
                send_class = min(message.heads[0][CLASS_AT], _CLASS_LAST)
            else:
                send_class = SEND_CLASS[type(message)]
            push(KIND[type(message)], send_class, encode_message(message))
        if self._queue.size > limits.LINK_QUEUE_BYTES_MAX:
            self.close("busy", "The peer does not take what is sent to it.")

    def flush(self) -> None:
        """Begin to write what is queued."""
        if self._idle and self._at_once > 0:
            self._write_now()
        if self._queue.size or self._pending:
            self._idle = False
            self._wake.set()

    def _write_now(self) -> None:
        """Write without waking the writer, which saves a round of the scheduler. Few times only
        before somebody else had a turn: what is sent then leaves together, in one write."""
        self._at_once -= 1
        self._pending = self._queue.take()
        if self._pending and self._stream.write_now(self._pending):
            self.bytes_out += len(self._pending)
            self._pending = b""

    async def run(self) -> None:
        """Write what is queued until the link is closed or lost. Closes the connection in the end,
        cancelled or not."""
        self._running = True
        try:
            with self._writer:
                await self._write_all()
        finally:
            self._end("The link was closed.")

    async def _write_all(self) -> None:
        while True:
            self._pending = self._pending or self._queue.take()
            if self._pending:
                if not await self._write():
                    return
            elif self._closing:
                return
            else:
                self._idle = True
                self._at_once = _AT_ONCE_MAX
                self._wake = trio.Event()
                await self._wake.wait()

    async def _write(self) -> bool:
        """Write what is pending; False when the connection is lost."""
        try:
            await self._stream.write(self._pending)
        except (OSError, trio.ClosedResourceError) as error:
            self.reason = self.reason or f"The connection is lost ({error})."
            return False
        self.bytes_out += len(self._pending)
        self._pending = b""
        if self._queue.size:
            # The reader must not starve while there is more to write.
            await trio.lowlevel.checkpoint()
        return True

    # --- ending ----------------------------------------------------------------------------------

    def close(self, code: str, detail: str) -> None:
        """Drop what is queued, tell the peer why (it has 1 s to take that), and close."""
        if self._closing:
            return
        self.reason = self.reason or detail
        self._closing = True
        self._idle = False
        self._queue.clear()
        detail = detail[: limits.REFUSED_DETAIL_MAX]
        self._queue.push(KIND[Bye], SEND_CLASS[Bye], encode_message(Bye(code, detail)))
        if not self._running:
            # Nothing was written on it yet, so the kernel has room for one small frame.
            self._stream.write_now(self._queue.take())
            self._end(detail)
            return
        self._writer.deadline = trio.current_time() + limits.CLOSE_FLUSH_S
        self._wake.set()

    def _end(self, reason: str) -> None:
        """The connection is over for both tasks."""
        self.reason = self.reason or reason
        self._closing = True
        self._queue.clear()
        self._pending = b""
        self._idle = False
        self._stream.close()
        self._ended.set()
        self._wake.set()
