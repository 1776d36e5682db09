"""A daemon whose port is knocked on by strangers, or whose process runs out of descriptors."""

from __future__ import annotations

import logging
import os
import resource
import socket
from pathlib import Path

import pytest
import trio

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core import views
from tektonmesh.core.messages import Ping
from tektonmesh.net.addresses import split_address
from tektonmesh.net.daemon import Daemon, open_daemon
from tektonmesh.net.dial import Dialler
from tektonmesh.net.gate import WAITING_MAX
from tektonmesh.net.link import LinkContext
from tektonmesh.net.links import Links
from tektonmesh.net.notices import Notices
from tektonmesh.net.rounds import Rounds
from tektonmesh.wire.codec import KIND
from tests.integration.daemons import config_of, state_of, until


async def a_peer_finds_it(home: Path, west: Daemon) -> None:
    """The daemon still does its work: another stack links to it."""
    async with open_daemon(config_of(home, "east", seeds=(west.listen[0],))) as east:
        await until(lambda: state_of(east, "west") == "up")


async def knock(west: Daemon, first: bytes = b"") -> trio.SocketStream:
    stream = await trio.open_tcp_stream(*split_address(west.listen[0]))
    if first:
        await stream.send_all(first)
    return stream


async def is_shut(stream: trio.SocketStream) -> bool:
    with trio.move_on_after(0.3):
        try:
            return await stream.receive_some() == b""
        except trio.BrokenResourceError:
            return True
    return False


@pytest.mark.parametrize(
    "noise",
    [
        b"GET / HTTP/1.1\r\nHost: west\r\n\r\n",
        b"\x16\x03\x01" + b"\xff" * 4096,
        b"\x00" * 100_000,
        b'{"jsonrpc": "2.0", "id": 1, "method": "status"}\n',
    ],
)
@pytest.mark.hostile("http-on-the-port")
async def test_noise_on_the_port_is_hung_up_on_and_nothing_else_happens(
    tmp_path: Path, noise: bytes
) -> None:
    async with open_daemon(config_of(tmp_path, "west")) as west:
        stream = await knock(west)
        with trio.fail_after(5):
            try:
                await stream.send_all(noise)
                while await stream.receive_some() != b"":
                    pass
            except trio.BrokenResourceError:
                pass
        await stream.aclose()
        assert len(views.stacks(west.node)) == 1
        await a_peer_finds_it(tmp_path, west)


@pytest.mark.hostile("half-open")
async def test_silent_strangers_get_a_bounded_number_of_places(tmp_path: Path) -> None:
    async with open_daemon(config_of(tmp_path, "west")) as west:
        inside = [await knock(west) for _ in range(WAITING_MAX)]
        outside = await knock(west)
        assert await is_shut(outside)
        assert not await is_shut(inside[0])
        for stream in [*inside, outside]:
            await stream.aclose()
        await a_peer_finds_it(tmp_path, west)


async def test_running_out_of_descriptors_is_said_once_and_survived(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "tektonmesh.net.listen")
    async with open_daemon(config_of(tmp_path, "west")) as west:
        where = split_address(west.listen[0])
        callers = [socket.socket() for _ in range(3)]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        spare = os.open(os.devnull, os.O_RDONLY)
        os.close(spare)
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
        try:
            for caller in callers:
                caller.connect(where)
            assert west.listen, "asked without a descriptor to ask with"
            await until(lambda: caplog.messages)
            await trio.sleep(0.3)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        (said,) = caplog.messages
        assert "cannot accept connections" in said
        for caller in callers:
            caller.close()
        await a_peer_finds_it(tmp_path, west)


@pytest.mark.parametrize(
    ("address", "near_only", "code"),
    [
        ("169.254.169.254:80", False, "unreachable"),
        ("[::ffff:169.254.169.254]:80", False, "unreachable"),
        ("[64:ff9b::a9fe:a9fe]:80", False, "unreachable"),
        ("0.0.0.0:7700", False, "unreachable"),
        ("224.0.0.1:7700", False, "unreachable"),
        ("no-such-name.invalid:7700", False, "unreachable"),
        ("127.0.0.1:0", False, "unreachable"),
        ("west:port", False, "unreachable"),
        ("8.8.8.8:7700", True, "refused"),
    ],
)
@pytest.mark.hostile("dial-targets")
async def test_what_must_not_be_dialled_fails_before_a_packet_leaves(
    address: str, near_only: bool, code: str
) -> None:
    """`near_only` is the well-known test secret, which counts on near addresses only."""
    told: list[ev.Event] = []

    def no_context() -> LinkContext:
        raise AssertionError("a connection was tried")

    async with trio.open_nursery() as nursery:
        links = Links(bytes(32), told.append, lambda _refusal: None, Rounds(), lambda _detail: None)
        dialler = Dialler(told.append, links, no_context, nursery.start_soon, near_only=near_only)
        dialler.dial(fx.Dial(address, None))
    (failed,) = told
    assert isinstance(failed, ev.DialFailed)
    assert (failed.address, failed.code) == (address, code)


async def test_a_dead_seed_peer_is_told_once_until_that_changes() -> None:
    address = "127.0.0.1:0"
    told: list[ev.Event] = []
    problems: list[str] = []

    def no_context() -> LinkContext:
        raise AssertionError("a connection was tried")

    async with trio.open_nursery() as nursery:
        links = Links(bytes(32), told.append, lambda _refusal: None, Rounds(), problems.append)
        dialler = Dialler(told.append, links, no_context, nursery.start_soon, seeds=(address,))
        for place in (address, address, "127.0.0.1:00"):
            dialler.dial(fx.Dial(place, None))
    assert len(told) == 3
    (problem,) = problems
    assert problem.startswith(f"seed peer {address} cannot be dialled (unreachable)")


def test_the_newest_warning_is_kept_as_the_last_problem() -> None:
    notices = Notices()
    notices.say("link_up", name="west")
    assert notices.last_problem is None
    notices.say("store_failed", detail="full")
    assert notices.last_problem is not None
    assert notices.last_problem.startswith("store failed: detail=full (at ")


async def test_a_peer_that_sends_what_is_no_message_is_struck_and_then_held_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    west_config = config_of(tmp_path, "west")
    async with open_daemon(west_config) as west:
        seeds = (west.listen[0],)
        async with open_daemon(config_of(tmp_path, "east", seeds=seeds)) as east:
            for n in range(5):
                await until(lambda: len(east._links) == len(west._links) == 1)
                (link,) = east._links._links.values()
                link._queue.push(KIND[Ping], 0, b"\xc1")
                link.flush()
                await until(lambda n=n: west.node.trust.peers()[0]["strikes"] == n + 1)
            (peer,) = west.node.trust.peers()
            assert peer["state"] == "admitted" and 0.0 < peer["held_off_s"] <= 60.0
            await until(lambda: len(west._links) == 0)
            await until(lambda: "It broke the protocol several times" in caplog.text)
            assert len(west._links) == 0
