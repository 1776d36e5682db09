"""Links over real TLS on loopback: how they begin, what they carry, how they end."""

from __future__ import annotations

import socket
import struct

import pytest
import trio
import trio.testing

from tektonmesh.core.messages import Bye, Delta, Forward, HopAck, Message, Ping, Pong
from tektonmesh.core.types import SignedHead
from tektonmesh.errors import RemoteError
from tektonmesh.net.link import Link, LinkRefused, accept_link, open_link
from tektonmesh.wire import limits
from tektonmesh.wire.frames import cut
from tests.links import linked, make_context, meet, open_door, tcp_pair, turn_away
from tests.support import make_keys

NORMAL = b"\x01\x01\x02"
BULK = b"\x01\x01\x03"


async def collect(link: Link, count: int) -> list[Message]:
    """The first `count` messages."""
    got: list[Message] = []
    async for messages in link:
        got += messages
        if len(got) >= count:
            break
    return got


# --- beginning -----------------------------------------------------------------------------------


async def test_both_ends_know_who_is_there_and_where_it_listens() -> None:
    async with linked() as (client, server):
        assert (client.peer.name, server.peer.name) == ("stack2", "stack1")
        assert client.peer.stack_id == make_keys(2)[1].stack_id
        assert server.peer.keydoc == make_keys(1)[1].keydoc
        assert client.peer.addresses == ("127.0.0.1:7702",)
        assert server.peer.addresses == ("127.0.0.1:7701",)
        assert (client.outbound, server.outbound) == (True, False)
        assert server.address.startswith("127.0.0.1:")


async def test_a_refused_client_and_the_refusing_server_both_know() -> None:
    client, server = await meet(make_context(1), make_context(2, judge=turn_away))
    assert isinstance(client, LinkRefused) and isinstance(server, LinkRefused)
    assert (client.code, client.by_peer, client.peer) == ("not_admitted", True, None)
    assert (client.outbound, client.stack_id) == (True, None)
    assert (server.code, server.by_peer, server.outbound) == ("not_admitted", False, False)
    assert (server.stack_id, server.name) == (make_keys(1)[1].stack_id, "stack1")
    assert server.address.startswith("127.0.0.1:")


async def test_a_server_that_the_client_does_not_admit_gets_no_link() -> None:
    client, server = await meet(make_context(1, judge=turn_away), make_context(2))
    assert isinstance(client, LinkRefused) and isinstance(server, LinkRefused)
    assert (client.stack_id, client.by_peer) == (make_keys(2)[1].stack_id, False)
    assert (server.stack_id, server.by_peer) == (make_keys(1)[1].stack_id, True)


async def test_a_connection_to_ourselves_is_refused_as_self_at_both_ends() -> None:
    context = make_context(1)
    client, server = await meet(context, context)
    assert isinstance(client, LinkRefused) and isinstance(server, LinkRefused)
    assert (client.code, server.code) == ("self", "self")


async def test_another_identity_than_expected_is_refused() -> None:
    wanted = make_keys(3)[1].stack_id
    client, server = await meet(make_context(1), make_context(2), expect=wanted)
    assert isinstance(client, LinkRefused) and isinstance(server, LinkRefused)
    assert (client.code, client.stack_id) == ("wrong_identity", make_keys(2)[1].stack_id)
    assert (server.code, server.by_peer) == ("refused", True)


async def test_the_expected_identity_is_linked() -> None:
    client, server = await meet(make_context(1), make_context(2), expect=make_keys(2)[1].stack_id)
    assert isinstance(client, Link) and isinstance(server, Link)
    client.close("done", "")
    server.close("done", "")


@pytest.mark.hostile("old-leaf")
async def test_a_leaf_of_an_earlier_start_is_dead_once_a_later_one_was_seen() -> None:
    memory: dict[bytes, int] = {}
    server = make_context(2)
    server.seen._save = memory.__setitem__
    for issued_at, code in ((5, ""), (6, ""), (5, "stale_leaf"), (6, "")):
        ends = await meet(make_context(1, issued_at=issued_at), server)
        for end in ends:
            if code:
                assert isinstance(end, LinkRefused)
                assert (end.code, end.highest) == (code, 6)
            else:
                assert isinstance(end, Link)
                end.close("done", "")
    assert memory == {make_keys(1)[0].op_public: 6}


async def test_nobody_at_the_address_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    for target in (address, "nonsense:port"):
        with pytest.raises(LinkRefused) as caught:
            await open_link(target, make_context(1), expect=b"i" * 32)
        assert caught.value.code == "unreachable"
        assert (caught.value.address, caught.value.stack_id) == (target, b"i" * 32)


async def test_a_server_that_says_nothing_is_given_up_after_the_cap() -> None:
    context = make_context(1, handshake_s=0.05)
    async with open_door() as door:
        with pytest.raises(LinkRefused, match=r"0\.05 s") as caught:
            await open_link(door.address, context, expect=None)
    assert caught.value.code == "unreachable"


async def test_cancelling_a_handshake_closes_the_socket() -> None:
    dialled, accepted = await tcp_pair()
    with trio.move_on_after(0.01) as scope:
        await accept_link(trio.socket.from_stdlib_socket(accepted), make_context(2))
    assert scope.cancelled_caught
    with dialled:
        assert dialled.recv(1) == b""


# --- carrying ------------------------------------------------------------------------------------


async def test_messages_arrive_in_order_and_those_sent_together_come_together() -> None:
    async with linked() as (client, server):
        client.send([Forward(seq, NORMAL + b"x" * 100) for seq in range(100)])
        got = await collect(server, 100)
        assert [message.seq for message in got if isinstance(message, Forward)] == list(range(100))
        assert client.queued == 0


async def test_what_is_sent_in_one_turn_leaves_in_at_most_three_writes() -> None:
    async with linked() as (client, server):
        await trio.testing.wait_all_tasks_blocked()
        for seq in range(50):
            client.send((HopAck(seq),))
        reads = [len(messages) for messages in await reads_of(server, 50)]
        assert len(reads) <= 3


async def reads_of(link: Link, count: int) -> list[tuple[Message, ...]]:
    reads = []
    async for messages in link:
        reads.append(messages)
        if sum(map(len, reads)) >= count:
            break
    return reads


@pytest.mark.hostile("inbox-flood")
async def test_thousands_of_messages_in_one_read_are_dealt_with_a_few_at_a_time() -> None:
    """Others have a turn in between, and what is closed meanwhile brings nothing more."""
    async with linked() as (client, server):
        client.send(Ping(n, 0, b"") for n in range(5000))
        sizes, got, turns = [], [], 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(count_turns)
            async for messages in server:
                sizes.append(len(messages))
                got += messages
                if len(got) == 5000:
                    break
            nursery.cancel_scope.cancel()
        assert [ping.nonce for ping in got if isinstance(ping, Ping)] == list(range(5000))
        # The first slices may come before the other task has begun, or as it ends.
        assert max(sizes) <= 128 and turns >= len(sizes) - 2
        client.send(Ping(n, 0, b"") for n in range(1000))
        first = await anext(server)
        server.close("busy", "Enough.")
        assert len(first) <= 128
        with pytest.raises(StopAsyncIteration):
            await anext(server)


@pytest.mark.hostile("half-open")
async def test_a_step_of_a_handshake_waits_for_its_turn() -> None:
    context = make_context(1)
    stranger, ours = await tcp_pair()
    with stranger:
        await context.turns.acquire()
        async with trio.open_nursery() as nursery:
            accepted = trio.socket.from_stdlib_socket(ours)
            nursery.start_soon(accept_link, accepted, context)
            await trio.testing.wait_all_tasks_blocked()
            assert context.turns.statistics().tasks_waiting == 1
            nursery.cancel_scope.cancel()
        context.turns.release()
        assert context.turns.statistics().tasks_waiting == 0
        assert stranger.recv(1) == b""


async def test_large_messages_cross_in_both_directions_at_once() -> None:
    delta = Delta(SignedHead(b"h", b"s" * 64), None, ((1, "k", bytes(900_000)),), (), None)
    envelope = NORMAL + bytes(200_000)
    async with linked() as (client, server):

        async def one_way(sender: Link, receiver: Link) -> None:
            for seq in range(20):
                sender.send((Forward(seq, envelope), delta))
            got = await collect(receiver, 40)
            assert got.count(delta) == 20
            assert [m.seq for m in got if isinstance(m, Forward)] == list(range(20))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one_way, client, server)
            nursery.start_soon(one_way, server, client)


async def test_a_ping_overtakes_a_queue_of_bulk() -> None:
    async with linked() as (client, server):
        client.send([Forward(seq, BULK + bytes(200_000)) for seq in range(50)])
        client.send((Ping(7, 0, b""),))
        got = await collect(server, 51)
        at = got.index(Ping(7, 0, b""))
        assert at < 40
        assert len(got) == 51


async def test_kinds_of_a_later_version_are_skipped() -> None:
    async with linked() as (client, server):
        client._queue.push(200, 1, b"from the future")
        client.send((Pong(1, 2),))
        assert await collect(server, 1) == [Pong(1, 2)]


async def test_what_came_with_the_accept_is_not_lost() -> None:
    """The client may send at once; its first frames can share a record with ACCEPT."""
    client, server = await meet(make_context(1), make_context(2))
    assert isinstance(client, Link) and isinstance(server, Link)
    server._early = b"".join(cut(17, 0, bytes.fromhex("920102")))
    client.close("done", "")
    assert await collect(server, 1) == [Pong(1, 2)]
    server.close("done", "")


# --- ending --------------------------------------------------------------------------------------


async def test_a_closed_link_tells_the_peer_why_and_ends_for_both() -> None:
    async with linked() as (client, server):
        client.send([Forward(seq, BULK + bytes(100_000)) for seq in range(30)])
        client.close("evicted", "This stack was evicted.")
        client.close("again", "Only the first word counts.")
        client.send((Pong(1, 2),))
        got = [message async for messages in server for message in messages]
        assert got[-1] == Bye("evicted", "This stack was evicted.")
        assert len(got) < 31
        assert [messages async for messages in client] == []
        assert client.reason == "This stack was evicted."
        assert client.queued == 0


async def test_a_lost_connection_ends_the_iteration() -> None:
    async with linked() as (client, server):
        client._stream.close()
        assert [messages async for messages in server] == []
        assert server.reason != ""
        assert [messages async for messages in client] == []


async def test_what_came_before_a_reset_is_still_read() -> None:
    client, server = await meet(make_context(1), make_context(2))
    assert isinstance(client, Link) and isinstance(server, Link)
    client.send((Pong(1, 2),))
    client._stream.write_now(client._queue.take())
    client._stream._ssl.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client._stream.close()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        assert [messages async for messages in server] == [(Pong(1, 2),)]


async def test_a_writer_that_finds_the_connection_lost_ends_the_reader_too() -> None:
    async with linked() as (client, server):
        server._stream.close()
        with trio.fail_after(5):
            while not client.reason:
                client.send((Forward(1, NORMAL + bytes(100_000)),))
                await trio.lowlevel.checkpoint()
            assert [messages async for messages in client] == []


async def test_cancelling_the_writer_closes_the_link() -> None:
    client, server = await meet(make_context(1), make_context(2))
    assert isinstance(client, Link) and isinstance(server, Link)
    with trio.CancelScope() as scope:
        scope.cancel()
        await client.run()
    assert [messages async for messages in client] == []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        assert [messages async for messages in server] == []


async def test_a_link_that_is_closed_before_its_writer_starts_still_says_goodbye() -> None:
    client, server = await meet(make_context(1), make_context(2))
    assert isinstance(client, Link) and isinstance(server, Link)
    client.send((Pong(1, 2),))
    client.close("double", "The other dial is kept.")
    await client.run()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        got = [message async for messages in server for message in messages]
    assert got == [Bye("double", "The other dial is kept.")]


async def test_a_peer_that_takes_nothing_costs_32_mebibytes_and_then_its_link() -> None:
    async with linked() as (client, server):
        message = Forward(1, BULK + bytes(200_000))
        with trio.fail_after(10):
            while not client.reason:
                client.send((message,))
                assert client.queued <= limits.LINK_QUEUE_BYTES_MAX + 300_000
        assert "does not take" in client.reason
        assert [messages async for messages in client] == []
        assert server.reason == ""


async def test_closing_waits_a_second_for_a_peer_that_takes_nothing() -> None:
    async with linked() as (client, _server):
        client.send([Forward(seq, BULK + bytes(200_000)) for seq in range(100)])
        # The peer reads nothing, so its kernel and ours fill up before all of this has left.
        await trio.testing.wait_all_tasks_blocked()
        assert client.queued > 0
        before = trio.current_time()
        client.close("busy", "Goodbye.")
        assert [messages async for messages in client] == []
        assert 0.9 <= trio.current_time() - before <= 5


@pytest.mark.parametrize(
    "junk",
    [
        bytes(16),
        b"\xff" * 16,
        b"GET / HTTP/1.1\r\n\r\n",
        cut(17, 0, b"\xc1")[0],
        cut(17, 0, b"\x92\xcd\x00\x01\x02")[0],
    ],
    ids=["length 0", "length 0xFFFFFFFF", "http", "no msgpack", "not canonical"],
)
async def test_bytes_on_a_link_can_do_no_more_than_close_it(junk: bytes) -> None:
    async with linked() as (client, server):
        client._pending = junk
        client._wake.set()
        with pytest.raises(RemoteError):
            await collect(server, 1)
        assert [type(message) for message in await collect(client, 1)] == [Bye]
