"""What Tekton's components send today, and what they read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tektonmesh import Client
from tektonmesh.api.operations import Operations
from tektonmesh.errors import PolicyError
from tests.doors import open_stack, socket_of

NUMA = {
    "name": "numa",
    "version": "0.1.0",
    "type": "numa",
    "endpoint": "http://localhost:18016",
    "capabilities": ["companion_chat"],
    "metadata": {"port": 18016},
}


@asynccontextmanager
async def hermes_at(doors: Operations) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.AsyncHTTPTransport(uds=socket_of(doors))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        yield http


async def test_a_component_registers_beats_and_unregisters_as_it_does_today(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors, hermes_at(doors) as hermes:
        done = (await hermes.post("/api/register", json=NUMA)).json()
        assert done["success"] is True and done["componentId"] == done["component_id"]
        assert done["token"] and done["message"] == "Component registered successfully"
        # No token, and the name as the id.
        beat = {"component_id": "numa", "status": {"health": "healthy"}}
        answer = await hermes.post("/api/heartbeat", json=beat)
        assert answer.status_code == 200
        assert answer.json()["success"] is True and answer.json()["timestamp"] > 1e9
        assert answer.json()["message"] == "Heartbeat received"
        assert (await hermes.post("/api/unregister", json={"component_name": "numa"})).json()[
            "success"
        ]
        assert (await hermes.post("/api/heartbeat", json=beat)).status_code == 404


async def test_registering_again_updates(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors, hermes_at(doors) as hermes:
        first = (await hermes.post("/api/register", json=NUMA)).json()
        second = (await hermes.post("/api/register", json=NUMA | {"version": "0.2.0"})).json()
        assert first["component_id"] == second["component_id"]
        listed = (await hermes.get("/api/components")).json()
        assert listed["total"] == 1 and listed["components"][0]["version"] == "0.2.0"


async def test_an_older_client_sends_its_token(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors, hermes_at(doors) as hermes:
        done = (await hermes.post("/api/register", json=NUMA)).json()
        beat = {"component_id": done["component_id"], "status": {"healthy": True, "timestamp": 1}}
        header = "X-Authentication-Token"
        good = await hermes.post("/api/heartbeat", json=beat, headers={header: done["token"]})
        assert good.status_code == 200
        bad = await hermes.post("/api/heartbeat", json=beat, headers={header: "tmr_wrong"})
        assert bad.status_code == 401
        gone = await hermes.post(
            f"/api/unregister?component_id={done['component_id']}", headers={header: done["token"]}
        )
        assert gone.status_code == 200


@pytest.mark.parametrize(
    ("given", "name", "endpoint", "capabilities"),
    [
        (
            {"componentName": "numa", "componentType": "x", "endpoint": "http://localhost:1/m"},
            "numa",
            "http://localhost:1/m",
            [],
        ),
        (
            {
                "name": "numa",
                "description": "d",
                "capabilities": {"chat": {"x": 1}},
                "endpoints": {"api": "http://localhost:2"},
            },
            "numa",
            "http://localhost:2",
            ["chat"],
        ),
        (
            {
                "component_id": "numa",
                "host": "localhost",
                "port": 8016,
                "capabilities": [{"id": "chat", "name": "Chat", "methods": []}],
            },
            "numa",
            "http://localhost:8016",
            ["chat"],
        ),
        (NUMA | {"message_endpoint": "/api/say"}, "numa", "http://localhost:18016/api/say", None),
        (NUMA | {"endpoint": "http://10.1.1.1:8"}, "numa", "http://10.1.1.1:8", None),
        ({"name": "Workflow Engine (old)"}, "Workflow-Engine-old", "", []),
    ],
)
async def test_every_form_that_components_send_is_taken(
    tmp_path: Path, given: dict[str, Any], name: str, endpoint: str, capabilities: Any
) -> None:
    async with open_stack(tmp_path) as doors, hermes_at(doors) as hermes:
        answer = await hermes.post("/api/registration/register", json=given)
        assert answer.status_code == 200, answer.text
        row = (await hermes.get(f"/api/components/{name}")).json()
        assert (row["name"], row["endpoint"]) == (name, endpoint)
        if capabilities is not None:
            assert row["capabilities"] == capabilities
        ci = doors.daemon.node.cis.get(name)
        assert ci is not None and ci.via == "hermes"
        assert (ci.how["kind"] == "http") == endpoint.startswith("http://localhost")


async def test_listings_in_both_spellings(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors, hermes_at(doors) as hermes:
        await hermes.post("/api/register", json=NUMA)
        other = {"name": "rhetor", "type": "llm", "capabilities": ["text"]}
        await hermes.post("/api/register", json=other)
        for path in ("/api/components", "/components", "/api/v1/registry/components"):
            shown = (await hermes.get(path, params={"capability": "companion_chat"})).json()
            assert [row["name"] for row in shown["components"]] == ["numa"]
        row = (await hermes.get("/api/components/numa")).json()
        assert (row["port"], row["status"], row["version"]) == (18016, "healthy", "0.1.0")
        assert row["last_heartbeat"] > 1e9 and row["registered_at"] > 1e9
        wanted = {"component_type": "llm", "healthy_only": True}
        found = (await hermes.post("/api/query", json=wanted)).json()
        assert [(row["name"], row["healthy"]) for row in found] == [("rhetor", True)]
        assert "componentId" in found[0] and "lastHeartbeat" in found[0]
        missing = await hermes.get("/api/components/nobody")
        assert missing.status_code == 404
        assert missing.json()["detail"] == "Component 'nobody' not found"


async def test_shutting_down_is_a_leave_and_other_states_are_signs_of_life(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors, hermes_at(doors) as hermes:
        await hermes.post("/api/register", json=NUMA)
        for status, there in (("ready", True), ("shutting_down", False)):
            given = {"component": "numa", "port": 18016, "status": status, "timestamp": 1}
            assert (await hermes.post("/api/components/status", json=given)).status_code == 200
            assert (doors.daemon.node.cis.get("numa") is not None) is there


async def test_a_name_alone_opens_only_what_came_in_by_these_routes(tmp_path: Path) -> None:
    async with (
        open_stack(tmp_path) as doors,
        Client(socket_of(doors)) as client,
        hermes_at(doors) as hermes,
    ):
        await client.register("athena", attach=False, persist=True)
        for path in ("/api/heartbeat", "/api/unregister"):
            answer = await hermes.post(path, json={"component_id": "athena"})
            assert answer.status_code == 401
        taken = await hermes.post("/api/register", json=NUMA | {"name": "athena"})
        assert taken.status_code == 409
        assert doors.daemon.node.cis.get("athena") is not None


async def test_registrations_survive_a_restart_of_the_daemon(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors, hermes_at(doors) as hermes:
        done = (await hermes.post("/api/register", json=NUMA)).json()
    async with open_stack(tmp_path) as doors, hermes_at(doors) as hermes:
        beat = await hermes.post("/api/heartbeat", json={"component_id": done["component_id"]})
        assert beat.status_code == 200
        again = (await hermes.post("/api/register", json=NUMA)).json()
        assert again["component_id"] == done["component_id"]


async def test_no_page_in_a_browser_may_call(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors, hermes_at(doors) as hermes:
        origin = {"origin": "http://localhost"}
        assert (await hermes.post("/api/register", json=NUMA, headers=origin)).status_code == 403
        assert doors.daemon.node.cis.get("numa") is None


async def test_tcp_serves_components_without_a_token_where_tekton_is(tmp_path: Path) -> None:
    for root, status in ((tmp_path, 200), (None, 404)):
        name = "with" if root else "without"
        async with (
            open_stack(tmp_path, name, http="127.0.0.1:0", tekton_root=root) as doors,
            httpx.AsyncClient(base_url=f"http://{doors.daemon.http}", trust_env=False) as http,
        ):
            assert (await http.post("/api/register", json=NUMA)).status_code == status
            page = {"origin": "http://127.0.0.1"}
            refused = await http.post("/api/heartbeat", json={"component_id": "numa"}, headers=page)
            assert refused.status_code in (403, 404)


async def test_what_has_no_name_is_refused_by_its_field(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors, hermes_at(doors) as hermes:
        answer = await hermes.post("/api/register", json={"version": "1"})
        assert answer.status_code == 422 and answer.json()["field"] == "name"


async def test_a_component_cannot_have_the_daemon_speak_to_a_socket(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors, hermes_at(doors) as hermes:
        own = quote(socket_of(doors), safe="")
        for path in (own, "%2Frun%2Fdocker.sock"):
            given = NUMA | {"endpoint": f"http+unix://{path}/api/registry"}
            answer = await hermes.post("/api/register", json=given)
            assert answer.status_code == 422 and answer.json()["field"] == "endpoint"
        given = {"name": "x", "endpoint": f"http+unix://{own}/api/registry"}
        for path in ("/api/register", "/api/registry/register"):
            assert (await hermes.post(path, json=given)).status_code == 422
        assert doors.daemon.node.cis.all() == []
        with pytest.raises(PolicyError, match="own socket"):
            await doors.daemon.reach.check(f"http+unix://{own}/x")


async def test_over_tcp_only_components_are_listed_and_nothing_of_others(tmp_path: Path) -> None:
    async with (
        open_stack(tmp_path, http="127.0.0.1:0", tekton_root=tmp_path) as doors,
        Client(socket_of(doors)) as client,
        hermes_at(doors) as local,
        httpx.AsyncClient(base_url=f"http://{doors.daemon.http}", trust_env=False) as http,
    ):
        secret = {"endpoint": "http://127.0.0.1:4711/hidden", "metadata": {"key": "canary"}}
        await client.register("athena", persist=True, share="private", **secret)
        await local.post("/api/register", json=NUMA)
        shown = (await http.get("/api/components")).json()
        assert [row["name"] for row in shown["components"]] == ["numa"]
        found = (await http.post("/api/query", json={})).json()
        assert [row["name"] for row in found] == ["numa"]
        assert (await http.get("/api/components/athena")).status_code == 404
        both = await local.get("/api/components")
        assert both.json()["total"] == 2
        for text in (both.text, (await local.post("/api/query", json={})).text):
            assert "athena" in text and "4711" not in text and "canary" not in text
