"""Durable messages through the doors of a real daemon: accepted, lent, lost, given again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tektonmesh.api.operations import Caller
from tektonmesh.errors import LocalError
from tests.doors import lines_to, open_stack, until
from tests.integration.test_api_http import http_to

MINE: dict[str, Any] = {"to": "numa", "body": "hello", "durable": True}


async def test_an_accepted_message_waits_for_its_ci_which_hears_of_its_registration_first(
    tmp_path: Path,
) -> None:
    async with open_stack(tmp_path) as doors, lines_to(doors.daemon) as user:
        async with lines_to(doors.daemon) as ci:
            token = (await ci.call(1, "register", name="numa"))["result"]["token"]
        accepted = (await user.call(1, "send", **MINE))["result"]
        assert accepted["accepted"] is True
        async with lines_to(doors.daemon) as ci:
            await ci.write(
                {"id": 1, "method": "register", "params": {"name": "numa", "token": token}}
            )
            first, second = await ci.read(), await ci.read()
            assert first is not None and first["result"]["success"]
            assert second is not None and second["method"] == "message"
            assert second["params"]["id"] == accepted["id"]
            await ci.write({"id": second["id"], "result": {"body": "done"}})
            await until(lambda: state_of(doors, accepted["id"]) == "answered")
        shown = (await user.call(2, "message", id=accepted["id"]))["result"]
        assert shown["body"] == "done"


async def test_a_ci_that_ends_with_a_message_gets_it_again_with_its_attempt_raised(
    tmp_path: Path,
) -> None:
    async with open_stack(tmp_path) as doors, lines_to(doors.daemon) as user:
        token = None
        for attempt in range(2):
            async with lines_to(doors.daemon) as ci:
                answer = await ci.call(1, "register", name="numa", token=token)
                token = answer["result"]["token"]
                if not attempt:
                    await user.call(1, "send", **MINE)
                asked = await ci.read()
                assert asked is not None and asked["params"]["attempt"] == attempt


async def test_respond_async_is_durable_and_its_place_tells_what_became_of_it(
    tmp_path: Path,
) -> None:
    async with (
        open_stack(tmp_path) as doors,
        http_to(doors) as http,
        lines_to(doors.daemon) as ci,
    ):
        await ci.call(1, "register", name="numa")
        answer = await http.post(
            "/api/message/numa?ttl_s=60",
            json={"message": "x"},
            headers={"prefer": "respond-async"},
        )
        assert answer.status_code == 202
        asked = await ci.read()
        assert asked is not None and asked["params"]["deadline_ms"] <= 60_000
        shown = (await http.get(answer.headers["location"])).json()
        assert [step["state"] for step in shown["transitions"]] == ["accepted", "received"]


async def test_a_refused_message_says_when_to_try_again(tmp_path: Path) -> None:
    async with (
        open_stack(tmp_path) as doors,
        http_to(doors) as http,
        lines_to(doors.daemon) as ci,
    ):
        await ci.call(1, "register", name="numa")
        doors.daemon.node.durable.commits.refusing = True
        answer = await http.post(
            "/api/message/numa", json={"message": "x"}, headers={"prefer": "respond-async"}
        )
        assert (answer.status_code, answer.json()["code"]) == (507, "store")
        assert answer.headers["retry-after"] == "30"


@pytest.mark.parametrize(
    "wrong",
    [{"ttl_s": 5}, {"durable": True, "ttl_s": 10**9}, {"durable": "yes"}],
    ids=["a time without durable", "over a week", "no flag"],
)
async def test_what_cannot_be_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    async with open_stack(tmp_path) as doors:
        with pytest.raises(LocalError):
            await doors.send({"to": "numa", "body": "x"} | wrong, Caller("socket"))


def state_of(doors: Any, msg_id: str) -> str:
    return str(doors.message({"id": msg_id})["state"])
