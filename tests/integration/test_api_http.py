"""HTTP on the Unix socket and on loopback TCP, as `curl` and other programs use it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from tektonmesh import Client, Request
from tektonmesh.api.doors import open_doors
from tektonmesh.api.http.families import FAMILIES
from tektonmesh.api.http.guard import make_token
from tektonmesh.api.operations import Caller, Operations
from tektonmesh.errors import LocalError
from tektonmesh.net.daemon import open_daemon
from tests.doors import config_of, open_stack, socket_of, until
from tests.integration.daemons import addresses_of_cis, attach_echo


@asynccontextmanager
async def http_to(doors: Operations) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.AsyncHTTPTransport(uds=socket_of(doors))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        yield http


class Reader:
    """An HTTP/1.1 reader by hand, who may hang up at any time."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._seen = b""

    async def read_to(self, mark: bytes) -> str:
        """Everything up to the first `mark`."""
        with trio.fail_after(10):
            while mark not in self._seen:
                data = await self.stream.receive_some(65536)
                assert data, self._seen
                self._seen += data
        head, _, self._seen = self._seen.partition(mark)
        return (head + mark).decode()


@asynccontextmanager
async def by_hand(
    doors: Operations, method: str, path: str, accept: str = "*/*"
) -> AsyncIterator[Reader]:
    body = json.dumps({"message": "x"}) if method == "POST" else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    async with await trio.open_unix_socket(socket_of(doors)) as stream:
        await stream.send_all((head + body).encode())
        yield Reader(stream)


async def echo(message: Request) -> str:
    return f"you said {message.body}"


async def spell(message: Request) -> AsyncIterator[str]:
    for letter in message.body:
        yield letter


@asynccontextmanager
async def serving(
    doors: Operations, handler: Any = echo, name: str = "numa"
) -> AsyncIterator[None]:
    async with Client(socket_of(doors)) as ci, trio.open_nursery() as nursery:
        await ci.register(name, specialties=["chat"])
        nursery.start_soon(ci.serve, handler)
        yield
        nursery.cancel_scope.cancel()


async def test_a_message_is_answered_with_its_response(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors, serving(doors), http_to(doors) as http:
        answer = await http.post("/api/message/numa", json={"message": "hi"})
        assert answer.status_code == 200
        shown = answer.json()
        assert shown["response"] == "you said hi"
        assert (shown["from"], shown["path"]) == ("numa@west", ["west"])
        history = await http.get(f"/api/messages/{shown['id']}")
        assert history.json()["state"] == "answered"


async def test_any_body_may_be_a_message(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors, serving(doors), http_to(doors) as http:
        for kind in ("text/plain", "application/x-www-form-urlencoded"):
            answer = await http.post(
                "/api/message/numa", content=b"plain", headers={"content-type": kind}
            )
            assert answer.json()["response"] == "you said plain"
        # `curl -d` says "form" and means JSON; JSON without a `message` is the message itself.
        form = {"content-type": "application/x-www-form-urlencoded"}
        answer = await http.post("/api/message/numa", content=b'{"message":"hi"}', headers=form)
        assert answer.json()["response"] == "you said hi"
        answer = await http.post("/api/message/numa", json={"question": 1})
        assert answer.json()["response"] == 'you said {"question":1}'


async def test_a_reply_streams_as_server_sent_events(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors, serving(doors, spell), http_to(doors) as http:
        accept = {"accept": "text/event-stream"}
        answer = await http.post("/api/message/numa", json={"message": "abc"}, headers=accept)
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = events_of(answer.text)
        assert [data["data"] for kind, data in events if kind == "chunk"] == ["a", "b", "c"]
        assert events[-1][0] == "reply" and events[-1][1]["path"] == ["west"]
        answer = await http.post("/api/message/nobody", json={"message": "x"}, headers=accept)
        assert events_of(answer.text)[-1] == ("error", answer_error(answer.text))
        answer = await http.post("/api/message/%20", json={"message": "x"}, headers=accept)
        assert answer.status_code == 422


def events_of(text: str) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "event" in lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


def answer_error(text: str) -> dict[str, Any]:
    shown = events_of(text)[-1][1]
    assert shown["code"] in ("not_found", "unknown_ci")
    return shown


async def test_a_reader_who_hangs_up_cancels_the_message(tmp_path: Path) -> None:
    cancelled = 0

    async def endless(_message: Request) -> AsyncIterator[str]:
        nonlocal cancelled
        try:
            yield "one"
            await trio.sleep_forever()
        finally:
            cancelled += 1

    async with open_stack(tmp_path) as doors, serving(doors, endless):
        accept = "text/event-stream"
        async with by_hand(doors, "POST", "/api/message/numa", accept=accept) as reader:
            await reader.read_to(b"data: ")
        await until(lambda: cancelled == 1)
        async with by_hand(doors, "POST", "/api/message/numa"):
            await until(lambda: doors.daemon.node.deliveries.open == 1)
        await until(lambda: cancelled == 2)


async def test_respond_async_answers_when_the_message_is_taken_over(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors, serving(doors), http_to(doors) as http:
        answer = await http.post(
            "/api/message/numa", json={"message": "x"}, headers={"prefer": "respond-async"}
        )
        assert answer.status_code == 202
        assert answer.headers["location"] == f"/api/messages/{answer.json()['id']}"


async def test_the_seeds_registration_is_listed_beaten_and_removed(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors, http_to(doors) as http:
        given = {
            "name": "athena",
            "type": "ai_specialist",
            "port": 45013,
            "message_endpoint": "/api/message",
            "message_format": "json_simple",
            "colour": "blue",
        }
        done = (await http.post("/api/registry/register", json=given)).json()
        assert done["success"] and done["stack"] == "west" and done["token"]
        assert (done["lease_s"], done["heartbeat_s"]) == (90.0, 30.0)
        again = (await http.post("/api/registry/register", json=given)).json()
        assert again["id"] == done["id"]
        for key in ("name", "id"):
            beat = await http.post("/api/registry/heartbeat", json={key: done[key]})
            assert beat.status_code == 200
        listed = await http.get("/api/registry", params={"type": "AI_specialist", "local": "true"})
        assert [row["address"] for row in listed.json()] == ["athena@west"]
        assert (await http.get("/api/registry?local=false")).json() == []
        assert (await http.get("/api/registry/athena@west")).json()["name"] == "athena"
        assert (await http.delete("/api/registry/athena")).status_code == 200
        gone = await http.post("/api/registry/heartbeat", json={"name": "athena"})
        assert gone.status_code == 404 and gone.json()["code"] == "unknown_ci"


async def test_the_seeds_stack_is_taken_and_pending(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors, http_to(doors) as http:
        given = {
            "name": "tekton-west-coast",
            "type": "tekton",
            "host": "tekton-west.company.com",
            "port": 443,
            "protocol": "https",
            "headers": {"Authorization": "Bearer shared-secret"},
            "capabilities": {"version": "1.0", "ci_count": 17, "specialties": ["nlp"]},
        }
        answer = await http.post("/api/registry/register", json=given)
        assert answer.status_code == 200
        rows = (await http.get("/api/registry?type=tekton")).json()
        assert [row["specialties"] for row in rows] == [["nlp"]]
        assert "shared-secret" not in json.dumps(rows)
        assert "company.com" not in json.dumps(rows)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/api/registry/register", {"name": "a b"}, 422, "bad_request"),
        ("POST", "/api/registry/register", {}, 422, "bad_request"),
        ("POST", "/api/registry/register", b"[]", 422, "bad_request"),
        ("POST", "/api/registry/register", b'{"name":"a","name":"b"}', 400, "bad_json"),
        ("POST", "/api/registry/register", b"{", 400, "bad_json"),
        ("POST", "/api/registry/register", b"\xff", 400, "bad_json"),
        ("POST", "/api/message/nobody", {"message": "x"}, 404, "not_found"),
        ("POST", "/api/message/numa@nowhere", {"message": "x"}, 404, "not_found"),
        ("POST", "/api/message/numa", {"message": 7}, 422, "bad_request"),
        ("POST", "/api/message/numa?timeout_s=soon", {"message": "x"}, 422, "bad_request"),
        ("POST", "/api/message/numa", b"{" + b"x" * 1_100_000, 413, "too_large"),
        ("POST", "/api/federated/message", {"message": "x", "target": "n"}, 401, "unauthorized"),
        ("GET", "/api/registry?local=perhaps", None, 422, "bad_request"),
        ("GET", "/api/registry/nobody", None, 404, "not_found"),
        ("GET", "/api/stacks/nowhere", None, 404, "not_found"),
        ("GET", "/api/messages/00", None, 404, "not_found"),
        ("GET", "/api/find", None, 422, "bad_request"),
        ("GET", "/api/nothing", None, 404, "unknown_method"),
        ("PUT", "/api/status", None, 405, "unknown_method"),
    ],
)
async def test_errors_have_a_detail_a_code_and_the_status_of_the_table(
    tmp_path: Path, method: str, path: str, body: Any, status: int, code: str
) -> None:
    async with open_stack(tmp_path) as doors, http_to(doors) as http:
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        answer = await http.request(method, path, content=content)
        assert answer.status_code == status, answer.text
        shown = answer.json()
        assert shown["code"] == code and shown["detail"].endswith((".", "?"))
        if code == "bad_request" and body == {}:
            assert shown["field"] == "name"


async def test_reads_show_the_daemon(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors, serving(doors), http_to(doors) as http:
        status = (await http.get("/api/status")).json()
        assert (status["name"], status["http"]) == ("west", None)
        assert status["socket"] == socket_of(doors)
        assert (await http.get("/api/stacks/west")).json()["id"] == status["id"]
        assert len((await http.get("/api/stacks")).json()) == 1
        assert (await http.get("/api/route/numa")).json()["state"] == "self"
        assert (await http.get("/api/trace/numa")).json()["path"] == ["west"]
        assert (await http.get("/api/find?words=chat")).json()[0]["name"] == "numa"
        assert (await http.get("/api/peers")).json() == []
        page = (await http.get("/openapi.json")).json()
        assert page["openapi"].startswith("3.1") and "/api/message/{target}" in page["paths"]


async def test_health_speaks_tektons_words_and_ready_says_when_it_is_over(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors, http_to(doors) as http:
        health = (await http.get("/health")).json()
        assert health["status"] == "healthy" and health["component"] == "tektonmesh"
        assert {"version", "timestamp", "uptime", "port", "registeredWithHermes"} <= set(health)
        assert {"dependencies", "metrics", "details"} <= set(health)
        assert (await http.get("/ready")).status_code == 200
        doors.daemon.stopping.set()
        answer = await http.get("/ready")
        assert answer.status_code == 503 and answer.headers["retry-after"] == "1"


async def test_the_metrics_page_has_the_four_success_metrics(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors, serving(doors), http_to(doors) as http:
        await http.post("/api/message/numa", json={"message": "x"})
        await http.post("/api/message/nobody", json={"message": "x"})
        answer = await http.get("/metrics")
        found = {family.name: family for family in text_string_to_metric_families(answer.text)}
        for name in ("federated_stacks", "cross_stack_message_seconds", "shared_uses"):
            assert f"tektonmesh_{name}" in found
        assert found["tektonmesh_uptime_seconds"].samples[0].value >= 0
        outcomes = {
            sample.labels["outcome"]: sample.value
            for sample in found["tektonmesh_messages"].samples
        }
        assert outcomes["local"] == 1 and sum(outcomes.values()) == 2
        assert {"tektonmesh_links", "tektonmesh_cis", "tektonmesh_queue"} <= set(found)
        assert found["tektonmesh_converged"].samples[0].value == 1


async def test_the_metrics_page_shows_every_metric_that_is_documented_and_no_other(
    tmp_path: Path,
) -> None:
    async with open_stack(tmp_path) as west:
        seeds = tuple(west.daemon.listen)
        async with open_stack(tmp_path, "east", seeds=seeds) as east, http_to(east) as http:
            await until(lambda: east.daemon.node.graph.state(west.daemon.identity.stack_id) == "up")
            await until(lambda: east.status({})["converged"])
            text = (await http.get("/metrics")).text
    found = {family.name: family for family in text_string_to_metric_families(text)}
    # This text format knows no infos: they are gauges whose value is 1.
    infos = {name for name, family in FAMILIES.items() if family.kind == "info"}
    names = {name: f"tektonmesh_{name}{'_info' * (name in infos)}" for name in FAMILIES}
    assert set(found) == set(names.values())
    for name, family in FAMILIES.items():
        shown = found[names[name]]
        assert shown.type == ("gauge" if name in infos else family.kind)
        assert shown.documentation == family.text
        labels = {key for sample in shown.samples for key in sample.labels} - {"le"}
        assert labels <= {family.label} or name in infos


async def test_the_metrics_of_the_registry_add_up(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as west:
        seeds = tuple(west.daemon.listen)
        async with open_stack(tmp_path, "east", seeds=seeds) as east, http_to(east) as http:
            await until(lambda: east.daemon.node.graph.state(west.daemon.identity.stack_id) == "up")
            async with serving(west):
                await until(lambda: east.cis({"stack": "west"}))
                registry = east.status({})["registry"]
                text = (await http.get("/metrics")).text
    found = {family.name: family for family in text_string_to_metric_families(text)}
    heads = {s.labels["outcome"]: s.value for s in found["tektonmesh_heads_in"].samples}
    assert sum(heads.values()) >= registry["heads_in"] >= 2
    assert heads["applied"] >= 2 and heads["broken"] == 0
    counts = [s for s in found["tektonmesh_apply_latency_seconds"].samples if "count" in s.name]
    assert counts[0].value >= registry["apply_latency_ms"]["count"] >= 1
    kinds = {s.labels["kind"]: s.value for s in found["tektonmesh_link_messages_in"].samples}
    assert kinds["Delta"] == sum(heads.values()) and "Forward" not in kinds
    assert found["tektonmesh_heads_out"].samples[0].value >= 1
    assert found["tektonmesh_bodies_in_bytes"].samples[0].value >= registry["body_bytes_in"] > 0
    assert found["tektonmesh_local_health"].samples[0].value <= 1


async def test_a_stack_is_explained_over_http(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as west:
        seeds = tuple(west.daemon.listen)
        async with open_stack(tmp_path, "east", seeds=seeds) as east, http_to(east) as http:
            await until(lambda: east.daemon.node.graph.state(west.daemon.identity.stack_id) == "up")
            answer = await http.get("/api/stacks/west/explain")
            assert answer.status_code == 200
            shown = answer.json()
            assert (shown["name"], shown["state"]) == ("west", "up")
            assert "linked to it" in shown["why"]
            assert shown["changes"][-1]["from"] == "west"
            (row,) = [
                row for row in (await http.get("/api/stacks")).json() if row["name"] == "west"
            ]
            assert row["why"].startswith("This stack is linked to it")
            answer = await http.get("/api/stacks/nobody/explain")
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_events_are_sent_as_they_happen(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors:
        async with by_hand(doors, "GET", "/api/events?kinds=ci") as reader:
            await reader.read_to(b": still here")
            async with serving(doors):
                text = await reader.read_to(b"}\n\n")
        kind, notice = events_of(text[text.index("id: ") :])[0]
        assert kind == notice["kind"] == "ci_registered"
        assert notice["ci"] == "numa"


# --- TCP -----------------------------------------------------------------------------------------


@asynccontextmanager
async def tcp_to(doors: Operations, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=f"http://{doors.daemon.http}", headers=headers, trust_env=False
    ) as http:
        yield http


def bearer_of(doors: Operations) -> str:
    return "Bearer " + (doors.daemon.config.home / "http-token").read_text().strip()


async def test_tcp_needs_the_token_of_the_home(tmp_path: Path) -> None:
    async with open_stack(tmp_path, http="127.0.0.1:0") as doors:
        assert doors.status({})["http"] == doors.daemon.http
        async with tcp_to(doors) as http:
            assert (await http.get("/health")).status_code == 200
            answer = await http.get("/api/status")
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
            assert (await http.get("/nothing")).status_code == 401
        async with tcp_to(doors, authorization=bearer_of(doors)) as http:
            assert (await http.get("/api/status")).json()["name"] == "west"
            assert (await http.get("/nothing")).status_code == 404
            page = await http.get("/api/status", headers={"origin": "http://evil.example"})
            assert page.status_code == 403
            rebound = await http.get("/api/status", headers={"host": "evil.example"})
            assert rebound.status_code == 403


async def test_the_federated_entry_takes_an_api_key(tmp_path: Path) -> None:
    async with open_stack(tmp_path, http="[::1]:0") as doors, serving(doors):
        given = {"message": "hi", "from": "rhetor", "target": "numa", "extra": 1}
        key = bearer_of(doors).removeprefix("Bearer ")
        async with tcp_to(doors) as http:
            assert (await http.post("/api/federated/message", json=given)).status_code == 401
            answer = await http.post(
                "/api/federated/message", json=given, headers={"x-api-key": key}
            )
            assert answer.json()["response"] == "you said hi"
            missing = await http.post(
                "/api/federated/message", json={"target": "numa"}, headers={"x-api-key": key}
            )
            assert missing.json()["field"] == "message"
        async with http_to(doors) as http:
            assert (await http.post("/api/federated/message", json=given)).status_code == 401


async def test_tcp_is_served_on_loopback_only(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="open to the network"):
        async with open_stack(tmp_path, http="0.0.0.0:0"):
            raise AssertionError("It started.")
    config = config_of(tmp_path, "east", socket=tmp_path / "s")
    async with open_stack(tmp_path, http="127.0.0.1:0") as doors:
        taken = config_of(tmp_path, "east", http=doors.daemon.http)
        async with open_daemon(taken) as daemon:
            with pytest.raises(LocalError, match="cannot be served") as refusal:
                async with open_doors(daemon):
                    raise AssertionError("It started.")
            assert refusal.value.code.name == "conflict"
    assert not config.socket.exists()


async def test_a_repeated_key_gets_the_stored_answer(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors, serving(doors), http_to(doors) as http:
        key = {"idempotency-key": "k"}
        first = await http.post("/api/message/numa", json={"message": "a"}, headers=key)
        again = await http.post("/api/message/numa", json={"message": "a"}, headers=key)
        assert first.status_code == 200 and first.json() == again.json()
        other = await http.post("/api/message/numa", json={"message": "b"}, headers=key)
        assert other.status_code == 409 and other.json()["code"] == "conflict"


async def test_the_federated_entry_shows_who_sent_and_from_which_stack(tmp_path: Path) -> None:
    async def who(message: Request) -> str:
        return message.sender

    async with open_stack(tmp_path) as doors, serving(doors, who):
        await doors.register({"name": "rhetor.taken", "attach": False}, Caller("http"))
        key = make_token(doors.daemon.config.home)
        async with http_to(doors) as http:
            for said, stack, status, shown in (
                ("rhetor", "east", 200, "rhetor.east"),
                ("rhetor@east", "", 200, "rhetor.east"),
                ("numa", "", 200, "numa.external"),
                ("", "east", 200, "someone.east"),
                ("", "", 200, "west"),
                ("rhetor", "taken", 403, ""),
                ("no name", "east", 422, ""),
                ("r" * 60, "east", 422, ""),
            ):
                answer = await http.post(
                    "/api/federated/message",
                    json={"message": "x", "target": "numa", "from": said},
                    headers={"x-api-key": key} | ({"x-tekton-stack": stack} if stack else {}),
                )
                assert answer.status_code == status, answer.text
                assert answer.json().get("response", "") == shown


async def test_a_message_is_explained_over_http_at_both_ends(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as west:
        seeds = tuple(west.daemon.listen)
        await attach_echo(west.daemon, "numa")
        async with open_stack(tmp_path, "east", seeds=seeds) as east:
            async with http_to(east) as http:
                await until(lambda: "numa@west" in addresses_of_cis(east.daemon))
                sent = await http.post("/api/message/numa@west", json={"message": "hello"})
                where = f"/api/messages/{sent.json()['id']}/explain"
                found = (await http.get(where)).json()
                assert found["state"] == "answered" and found["origin"]["waits"] is None
                assert found["origin"]["attempts"][0]["path"] == ["east", "west"]
                for unknown in ("00" * 16, "00", "nothing"):
                    answer = await http.get(f"/api/messages/{unknown}/explain")
                    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
            async with http_to(west) as http:
                found = (await http.get(where)).json()
                assert (found["state"], found["destination"]["from"]) == (None, "east")
