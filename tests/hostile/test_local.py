"""Hostile programs of the own machine, and strangers at its doors."""

from __future__ import annotations

import os
import socket
import warnings
from pathlib import Path

import pytest
import trio
from zeroconf import DNSIncoming

from tektonmesh.api import unix
from tektonmesh.core import events as ev
from tektonmesh.errors import LocalError
from tektonmesh.net.gate import WAITING_MAX, WAITING_PER_ADDRESS_MAX, Gate
from tests.doors import lines_to, open_stack, socket_of
from tests.network import Network, spec


@pytest.mark.hostile("half-open")
def test_ten_thousand_half_open_strangers_get_a_handful_of_places() -> None:
    gate = Gate()
    taken = [
        not gate.enter(f"192.0.{n // 200}.{n % 200}", n / 1000.0, local=False)
        for n in range(10_000)
    ]
    assert sum(taken) == WAITING_MAX
    one = Gate()
    assert sum(not one.enter("192.0.2.1", n / 10.0, local=False) for n in range(10_000)) == (
        WAITING_PER_ADDRESS_MAX
    )


@pytest.mark.hostile("mdns-pointers")
@pytest.mark.parametrize("pointer", [b"\xc0\x0c", b"\xc0\x0e\xc0\x0c", b"\x01a\xc0\x0c"])
def test_pointers_that_lead_in_circles_end_the_packet(pointer: bytes) -> None:
    header = b"\x00\x00\x84\x00\x00\x01\x00\x00\x00\x00\x00\x00"
    packet = DNSIncoming(header + pointer + b"\x00\x0c\x00\x01")
    assert not packet.valid or not packet.questions


@pytest.mark.hostile("socket-link")
async def test_a_link_in_the_sockets_place_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("mine")
    place = tmp_path / "s"
    place.symlink_to(target)
    with pytest.raises(LocalError, match="is no socket"):
        async with unix.bound_socket(place):
            raise AssertionError("It was bound.")
    assert place.is_symlink() and target.read_text() == "mine"


def as_nobody(path: str) -> str:
    """What a process of another user gets of a socket: it begins as a copy of this one, since
    nobody may be allowed to run the interpreter."""
    reads, writes = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(path)
                os.write(writes, b"connected")
        except OSError as error:
            os.write(writes, str(error.strerror).encode())
        finally:
            os._exit(0)
    os.close(writes)
    os.waitpid(child, 0)
    with os.fdopen(reads) as said:
        return said.read()


@pytest.mark.hostile("other-user")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
async def test_another_user_cannot_open_the_socket(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors:
        assert as_nobody(socket_of(doors)) == "Permission denied"
        assert doors.status({})["name"] == "west"


@pytest.mark.hostile("idle-clients")
async def test_programs_that_say_nothing_are_bounded_and_the_owner_is_served_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unix, "CONNECTIONS_MAX", 40)
    async with open_stack(tmp_path) as doors:
        idle = []
        for _ in range(120):
            sock = socket.socket(socket.AF_UNIX)
            sock.setblocking(False)
            try:
                sock.connect(socket_of(doors))
            except BlockingIOError:
                sock.close()  # the queue of the kernel is full: nobody was let in
                continue
            idle.append(sock)
            await trio.sleep(0)
        assert doors.status({})["name"] == "west"
        for sock in idle:
            sock.close()
        with trio.fail_after(10):
            async with lines_to(doors.daemon) as lines:
                assert (await lines.call(1, "status"))["result"]["name"] == "west"


SMUGGLED = b"GET /api/peers HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.hostile("smuggling")
@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 4\r\nContent-Length: 40\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Content-Length: +4\r\n",
        b"Transfer-Encoding: xchunked\r\n",
    ],
)
async def test_two_requests_in_one_are_never_answered_as_two(tmp_path: Path, head: bytes) -> None:
    body = b"0\r\n\r\n" + SMUGGLED
    async with open_stack(tmp_path, http="127.0.0.1:0") as doors:
        host, _, port = str(doors.daemon.http).rpartition(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            first = b"POST /api/registry/register HTTP/1.1\r\nHost: 127.0.0.1:" + port.encode()
            await stream.send_all(first + b"\r\n" + head + b"\r\n" + body)
            answer = b""
            with trio.move_on_after(5):
                async for data in stream:
                    answer += data
        # The reset of the connection may overtake the refusal; a second answer never comes.
        assert answer.count(b"HTTP/1.1 ") <= 1, answer
        assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5")), answer
        assert doors.status({})["name"] == "west"


@pytest.mark.hostile("registrations")
def test_ten_thousand_registrations_and_then_silence_are_bounded_and_gone_after_a_lease() -> None:
    network = Network("a", "b", ci_max=300)
    network.join("a", "b")
    a = network["a"]
    how = {"kind": "http", "url": "http://127.0.0.1:1/x", "format": "json_simple", "headers": {}}
    for number in range(10_000):
        made = spec(f"ci{number}", how=how, via="http", lease_s=90.0)
        a.do(lambda ticket, made=made: ev.RegisterCi(ticket, made, None, None, False))
        if number % 1000 == 0:
            a.effects.clear()
    assert len(a.node.cis.all()) == 300
    network.run(200.0)
    assert a.node.cis.all() == []
    assert network["b"].node.replica.owners[a.id].keys("ci") == []
