"""Delivery to HTTP endpoints on real sockets: formats, failures, limits, forbidden targets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core.large import Large
from tektonmesh.errors import PolicyError
from tektonmesh.net.endpoints import REPLY_SIZE_MAX, Endpoints
from tektonmesh.net.health import HealthChecks, health_url
from tektonmesh.net.reach import Reach


@dataclass
class Server:
    """A CI's web server that says what it was told to say and keeps what it was asked."""

    answers: list[bytes]
    port: int = 0
    asked: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    async def serve(self, stream: trio.abc.Stream) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            part = await stream.receive_some()
            if not part:
                return
            data += part
        head, body = data.split(b"\r\n\r\n", 1)
        first, *lines = head.decode().split("\r\n")
        headers = {key.lower(): value for key, value in (line.split(": ", 1) for line in lines)}
        while len(body) < int(headers.get("content-length", "0")):
            body += await stream.receive_some()
        self.asked.append((first, headers, body))
        answer = self.answers[min(len(self.asked), len(self.answers)) - 1]
        if not answer:
            await trio.sleep_forever()
        try:
            await stream.send_all(answer)
        except trio.BrokenResourceError:
            return
        await stream.aclose()


def answer(
    body: bytes, status: str = "200 OK", kind: str = "application/json", **headers: str
) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    lines += [f"{key}: {value}" for key, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\nConnection: close\r\n\r\n" + body


def chunked(*parts: bytes, kind: str) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@dataclass
class World:
    """Endpoints whose events are collected."""

    endpoints: Endpoints
    health: HealthChecks
    events: list[ev.Event]
    changed: list[trio.Event]

    async def until(self, count: int) -> list[ev.Event]:
        """The first `count` events."""
        with trio.fail_after(10):
            while len(self.events) < count:
                await self.changed[0].wait()
        return self.events[:count]


@asynccontextmanager
async def open_world() -> AsyncIterator[World]:
    events: list[ev.Event] = []
    changed = [trio.Event()]

    def inject(event: ev.Event) -> None:
        events.append(event)
        changed[0].set()
        changed[0] = trio.Event()

    reach = Reach()
    async with trio.open_nursery() as nursery:
        spawn = nursery.start_soon
        yield World(
            Endpoints(inject, reach, spawn), HealthChecks(inject, reach, spawn), events, changed
        )
        nursery.cancel_scope.cancel()
    await reach.aclose()


@asynccontextmanager
async def open_server(*answers: bytes) -> AsyncIterator[Server]:
    server = Server(list(answers))
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            lambda task_status: trio.serve_tcp(
                server.serve, 0, host="127.0.0.1", task_status=task_status
            )
        )
        server.port = listeners[0].socket.getsockname()[1]
        yield server
        nursery.cancel_scope.cancel()


def deliver(url: str, *, body: bytes = b"hello", deadline_s: float = 5.0, **how: Any) -> fx.Deliver:
    return fx.Deliver(
        delivery=7,
        ci="numa",
        how={"kind": "http", "url": url, "format": "json_simple", "headers": {}} | how,
        msg_id=b"\x01" * 16,
        sender="athena@east",
        body=body,
        content_type="text/plain",
        deadline_s=deadline_s,
        attempt=1,
    )


async def exchange(given: bytes, **options: Any) -> tuple[list[ev.Event], Server]:
    """Everything that comes of one delivery to a server that gives this answer."""
    async with open_server(given) as server, open_world() as world:
        world.endpoints.deliver(deliver(f"http://127.0.0.1:{server.port}/api/message", **options))
        while True:
            events = await world.until(len(world.events) + 1)
            if isinstance(events[-1], ev.ReplyDone | ev.ReplyFailed):
                return events, server


async def test_json_simple_posts_the_message_and_reads_the_response() -> None:
    events, server = await exchange(answer(b'{"response": "hi there"}'))
    assert events == [ev.ReplyDone(7, b"hi there", "text/plain")]
    ((first, headers, body),) = server.asked
    assert first == "POST /api/message HTTP/1.1"
    assert headers["host"] == f"127.0.0.1:{server.port}"
    assert json.loads(body) == {"message": "hello"}


@pytest.mark.parametrize(
    ("given", "body", "kind"),
    [
        (answer(b'{"message": "m"}'), b"m", "text/plain"),
        (answer(b'{"response": "r", "message": "m"}'), b"r", "text/plain"),
        (answer(b'{"other": 1}'), b'{"other": 1}', "application/json"),
        (answer(b'{"response": {"a": 1}}'), b'{"a": 1}', "application/json"),
        (answer(b"plain", kind="text/plain"), b"plain", "text/plain"),
        (answer(b"{broken"), b"{broken", "application/json"),
        (answer(b""), b"", "application/json"),
    ],
)
async def test_a_reply_is_the_response_else_the_message_else_the_whole_body(
    given: bytes, body: bytes, kind: str
) -> None:
    events, _server = await exchange(given)
    assert events == [ev.ReplyDone(7, body, kind)]


async def test_mcp_posts_the_message_as_content() -> None:
    _events, server = await exchange(answer(b'{"response": "ok"}'), format="mcp")
    assert json.loads(server.asked[0][2]) == {"content": {"message": "hello"}, "context": {}}


async def test_tekton_federated_says_who_it_is_from() -> None:
    _events, server = await exchange(answer(b'{"response": "ok"}'), format="tekton_federated")
    sent = json.loads(server.asked[0][2])
    assert sent["message"] == "hello"
    assert (sent["from"], sent["target"], sent["id"]) == ("athena@east", "numa", "01" * 16)


@pytest.mark.parametrize("style", ["json_simple", "mcp", "tekton_federated"])
async def test_a_large_body_is_posted_as_the_same_object(tmp_path: Path, style: str) -> None:
    text = 'größer "quoted" \n\ue000the body\ue000 ' * 40_000
    (tmp_path / "x.in").write_text(text)
    async with open_world() as world, open_server(answer(b'{"response": "ok"}')) as server:
        world.endpoints.file = lambda name: tmp_path / name
        url = f"http://127.0.0.1:{server.port}/api"
        large = Large("x.in", len(text.encode()), bytes(32))
        world.endpoints.deliver(replace(deliver(url, body=b"", format=style), large=large))
        assert await world.until(1) == [ev.ReplyDone(7, b"ok", "text/plain")]
        _first, headers, body = server.asked[0]
        assert int(headers["content-length"]) == len(body)
        shown = json.loads(body)
        assert (shown.get("content") or shown)["message"] == text


async def test_a_large_body_that_is_no_text_is_a_failure_of_its_ci(tmp_path: Path) -> None:
    (tmp_path / "x.in").write_bytes(b"text" * 100_000 + b"\xff")
    async with open_world() as world, open_server(answer(b"{}")) as server:
        world.endpoints.file = lambda name: tmp_path / name
        url = f"http://127.0.0.1:{server.port}/api"
        large = Large("x.in", 400_001, bytes(32))
        world.endpoints.deliver(replace(deliver(url, body=b""), large=large))
        [failed] = await world.until(1)
        assert isinstance(failed, ev.ReplyFailed) and "text only" in failed.detail
        assert server.asked == []


async def test_the_headers_of_the_registration_are_sent() -> None:
    _events, server = await exchange(answer(b"{}"), headers={"X-Tekton-Stack": "west"})
    assert server.asked[0][1]["x-tekton-stack"] == "west"


async def test_server_sent_events_stream_as_chunks_without_the_end_mark() -> None:
    told = [
        b"data: one\n\n",
        b": a comment\n\nda",
        b"ta: two\ndata: lines\n\n",
        b"data: [DONE]\n\n",
    ]
    events, _server = await exchange(chunked(*told, kind="text/event-stream"))
    assert events == [
        ev.ReplyChunk(7, b"one"),
        ev.ReplyChunk(7, b"two\nlines"),
        ev.ReplyDone(7, b"", "text/plain"),
    ]


async def test_chunked_text_streams_as_it_comes() -> None:
    events, _server = await exchange(chunked(b"to", b"ken", kind="text/plain; charset=utf-8"))
    *chunks, done = events
    assert b"".join(chunk.data for chunk in chunks if isinstance(chunk, ev.ReplyChunk)) == b"token"
    assert done == ev.ReplyDone(7, b"", "text/plain")


async def test_chunked_json_is_read_whole() -> None:
    events, _server = await exchange(chunked(b'{"respon', b'se": "x"}', kind="application/json"))
    assert events == [ev.ReplyDone(7, b"x", "text/plain")]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("500 Internal Server Error", "ci_failed"),
        ("404 Not Found", "ci_failed"),
        ("429 Too Many Requests", "busy"),
        ("503 Service Unavailable", "ci_offline"),
        ("504 Gateway Timeout", "timeout"),
    ],
)
async def test_a_status_over_299_is_a_typed_failure_that_shows_nothing_of_the_endpoint(
    status: str, code: str
) -> None:
    events, server = await exchange(answer(b"secret stack trace", status=status))
    (failed,) = events
    assert isinstance(failed, ev.ReplyFailed)
    assert failed.code == code
    assert "secret" not in failed.detail
    assert str(server.port) not in failed.detail


@pytest.mark.hostile("redirect")
async def test_a_redirect_is_not_followed() -> None:
    async with open_server(answer(b"{}")) as other:
        there = f"http://127.0.0.1:{other.port}/"
        events, _server = await exchange(answer(b"", status="307 Temporary", Location=there))
        (failed,) = events
        assert isinstance(failed, ev.ReplyFailed)
        assert failed.code == "ci_failed"
        assert other.asked == []


@pytest.mark.hostile("endless-endpoint")
async def test_a_reply_over_the_limit_is_refused() -> None:
    events, _server = await exchange(answer(b"x" * (REPLY_SIZE_MAX + 1), kind="text/plain"))
    (failed,) = events
    assert isinstance(failed, ev.ReplyFailed)
    assert failed.code == "too_large"


@pytest.mark.hostile("endless-endpoint")
async def test_an_endpoint_that_never_answers_times_out_at_the_deadline() -> None:
    events, _server = await exchange(b"", deadline_s=0.2)
    (failed,) = events
    assert isinstance(failed, ev.ReplyFailed)
    assert failed.code == "timeout"


async def test_an_endpoint_that_is_not_there_is_an_offline_ci() -> None:
    async with open_server(answer(b"{}")) as server:
        port = server.port
    async with open_world() as world:
        world.endpoints.deliver(deliver(f"http://127.0.0.1:{port}/"))
        (failed,) = await world.until(1)
    assert isinstance(failed, ev.ReplyFailed)
    assert failed.code == "ci_offline"


async def test_noise_instead_of_http_is_the_cis_failure() -> None:
    events, _server = await exchange(b"\x00\x01\x02 this is no HTTP\r\n\r\n")
    (failed,) = events
    assert isinstance(failed, ev.ReplyFailed)
    assert failed.code == "ci_failed"


async def test_a_body_that_is_no_text_is_refused_before_anybody_is_called() -> None:
    async with open_server(answer(b"{}")) as server, open_world() as world:
        world.endpoints.deliver(deliver(f"http://127.0.0.1:{server.port}/", body=b"\xff\xfe"))
        (failed,) = await world.until(1)
        assert isinstance(failed, ev.ReplyFailed)
        assert server.asked == []


async def test_a_cancelled_delivery_tells_nothing_any_more() -> None:
    async with open_server(b"") as server, open_world() as world:
        world.endpoints.deliver(deliver(f"http://127.0.0.1:{server.port}/"))
        with trio.fail_after(10):
            while not server.asked:
                await trio.lowlevel.checkpoint()
        assert world.endpoints.cancel(fx.CancelDelivery(7, "nobody waits"))
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert world.events == []
        assert not world.endpoints.cancel(fx.CancelDelivery(7, "twice"))


async def test_an_endpoint_behind_a_unix_socket_is_reached(tmp_path: Path) -> None:
    server = Server([answer(b'{"response": "by path"}')])
    path = tmp_path / "ci.sock"
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(str(path))
    sock.listen(1)
    async with trio.open_nursery() as nursery, open_world() as world:
        nursery.start_soon(trio.serve_listeners, server.serve, [trio.SocketListener(sock)])
        quoted = str(path).replace("/", "%2F")
        world.endpoints.deliver(deliver(f"http+unix://{quoted}/api/message"))
        assert await world.until(1) == [ev.ReplyDone(7, b"by path", "text/plain")]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "url",
    [
        "http://2130706433:7000/",
        "http://0x7f.1:7000/",
        "http://0x7f000001/",
        "http://127.1/",
        "http://[::ffff:169.254.169.254]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://0.0.0.0:7000/",
        "http://[::]:7000/",
        "http://224.0.0.1/",
        "http://192.168.1.10/",
        "http://8.8.8.8/",
        "http://user:word@127.0.0.1/",
        "http://@127.0.0.1/",
        "http:///nowhere",
        "http://[::1/",
        "http://127.0.0.1:99999/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "http+unix://relative.sock/x",
    ],
)
@pytest.mark.hostile("ssrf")
async def test_what_is_not_plainly_this_machine_is_never_called(url: str) -> None:
    with pytest.raises(PolicyError):
        await Reach().check(url)


@pytest.mark.parametrize(
    ("url", "called", "host"),
    [
        ("http://127.0.0.1:8000/a?b=c", "http://127.0.0.1:8000/a?b=c", "127.0.0.1:8000"),
        ("http://[::1]:8000", "http://[::1]:8000/", "[::1]:8000"),
        ("http://127.9.9.9/x#frag", "http://127.9.9.9/x", "127.9.9.9"),
    ],
)
async def test_loopback_is_called_by_the_address_that_was_checked(
    url: str, called: str, host: str
) -> None:
    target = await Reach().check(url)
    assert (target.url, target.host) == (called, host)


@pytest.mark.hostile("ssrf")
async def test_a_name_is_resolved_once_and_its_address_is_called() -> None:
    target = await Reach().check("http://localhost:8000/x")
    assert target.url in ("http://127.0.0.1:8000/x", "http://[::1]:8000/x")
    assert target.host == "localhost:8000"


@pytest.mark.hostile("ssrf")
async def test_an_allowed_host_may_be_called_but_never_its_link_local_address() -> None:
    reach = Reach(("192.168.7.7", "169.254.1.1"))
    assert (await reach.check("http://192.168.7.7/")).url == "http://192.168.7.7/"
    with pytest.raises(PolicyError):
        await reach.check("http://169.254.1.1/")
    with pytest.raises(PolicyError):
        await reach.check("http://192.168.7.8/")


@pytest.mark.parametrize(
    ("given", "healthy"),
    [(answer(b"ok"), True), (answer(b"", status="404 Not Found"), True)],
)
async def test_an_endpoint_with_any_answer_under_500_is_healthy(
    given: bytes, healthy: bool
) -> None:
    async with open_server(given) as server, open_world() as world:
        world.health.watch(fx.WatchEndpoint("numa", f"http://127.0.0.1:{server.port}/deep/path"))
        (told,) = await world.until(1)
        assert told == ev.CiHealth("numa", healthy, "")
        assert server.asked[0][0] == "GET /health HTTP/1.1"


def test_the_health_page_is_at_the_base_of_the_endpoint() -> None:
    assert health_url("http://127.0.0.1:8000/api/message?x=1") == "http://127.0.0.1:8000/health"


async def test_a_ci_is_unhealthy_after_three_misses_and_healthy_again_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    told: list[ev.Event] = []
    found = iter(["status 500", "status 500", "", "status 500", "status 500", "status 500", "", ""])

    class Checked(HealthChecks):
        async def _check(self, url: str) -> str:
            return next(found)

    async with trio.open_nursery() as nursery:
        checks = Checked(told.append, Reach(), nursery.start_soon)
        checks.watch(fx.WatchEndpoint("numa", "http://127.0.0.1:1/"))
        await trio.sleep(100)
        checks.watch(fx.WatchEndpoint("numa", None))
    assert told == [
        ev.CiHealth("numa", True, ""),
        ev.CiHealth("numa", False, "status 500"),
        ev.CiHealth("numa", True, ""),
    ]
