"""Calls of old servers that ask back, parked until their caller has answered."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from mcp.shared.exceptions import MCPError

from tektonmesh.mcp.parked import (
    PARKED_MAX,
    PARKED_S,
    QUESTION,
    ParkingPlace,
    can_answer,
    may_be_asked,
)

ANSWER = {"inputResponses": {QUESTION: {"action": "accept"}}}


async def asks_twice(ask: Any) -> dict[str, Any]:
    first = await ask("elicitation/create", {"message": "one"})
    second = await ask("elicitation/create", {"message": "two"})
    return {"answers": [first, second]}


async def test_each_question_ends_a_call_and_the_next_call_answers_it(
    nursery: trio.Nursery,
) -> None:
    place = ParkingPlace(nursery)
    one = await place.begin("west", asks_twice)
    assert one["resultType"] == "input_required"
    asked = one["inputRequests"][QUESTION]
    assert asked == {"method": "elicitation/create", "params": {"message": "one"}}
    two = await place.go_on("west", ANSWER | {"requestState": one["requestState"]})
    assert two["inputRequests"][QUESTION]["params"] == {"message": "two"}
    done = await place.go_on("west", ANSWER | {"requestState": two["requestState"]})
    assert done == {"answers": [{"action": "accept"}] * 2}


async def test_two_questions_at_once_are_one_too_many(nursery: trio.Nursery) -> None:
    async def asks_at_once(ask: Any) -> dict[str, Any]:
        refused: list[str] = []

        async def one(words: str) -> None:
            try:
                await ask("elicitation/create", {"message": words})
            except MCPError as error:
                refused.append(str(error))

        async with trio.open_nursery() as both:
            both.start_soon(one, "one")
            both.start_soon(one, "two")
        return {"refused": refused}

    place = ParkingPlace(nursery)
    asked = await place.begin("west", asks_at_once)
    done = await place.go_on("west", ANSWER | {"requestState": asked["requestState"]})
    assert done == {"refused": ["One question at a time."]}


async def test_nobody_else_can_go_on_with_a_call(nursery: trio.Nursery) -> None:
    place = ParkingPlace(nursery)
    one = await place.begin("west", asks_twice)
    for owner, state in (("east", one["requestState"]), ("west", "guessed"), ("west", None)):
        with pytest.raises(MCPError, match="unknown or over"):
            await place.go_on(owner, ANSWER | {"requestState": state})
    assert await place.go_on("west", ANSWER | {"requestState": one["requestState"]})


async def test_an_answer_that_is_none_leaves_the_call_parked(nursery: trio.Nursery) -> None:
    place = ParkingPlace(nursery)
    one = await place.begin("west", asks_twice)
    state = {"requestState": one["requestState"]}
    for responses in ({}, {"inputResponses": {}}, {"inputResponses": {QUESTION: 7}}):
        with pytest.raises(MCPError, match="missing"):
            await place.go_on("west", state | responses)
    assert await place.go_on("west", ANSWER | state)


async def test_a_call_that_asks_nothing_just_ends(nursery: trio.Nursery) -> None:
    async def act(_ask: Any) -> dict[str, Any]:
        return {"content": []}

    assert await ParkingPlace(nursery).begin("west", act) == {"content": []}


async def test_what_a_call_raises_is_its_caller_s(nursery: trio.Nursery) -> None:
    async def act(_ask: Any) -> dict[str, Any]:
        raise MCPError(-1, "It failed.")

    with pytest.raises(MCPError, match="It failed"):
        await ParkingPlace(nursery).begin("west", act)


async def test_a_question_that_nobody_answers_ends(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    seen: list[str] = []

    async def act(ask: Any) -> dict[str, Any]:
        try:
            return dict(await ask("elicitation/create", {}))
        except MCPError as error:
            seen.append(str(error))
            raise

    await ParkingPlace(nursery).begin("west", act)
    await trio.sleep(PARKED_S + 1.0)
    assert len(seen) == 1 and "not answered in time" in seen[0]


async def test_the_oldest_goes_when_too_many_are_parked(nursery: trio.Nursery) -> None:
    place = ParkingPlace(nursery)
    states = [
        (await place.begin("west", asks_twice))["requestState"] for _ in range(PARKED_MAX + 1)
    ]
    with pytest.raises(MCPError):
        await place.go_on("west", ANSWER | {"requestState": states[0]})
    assert await place.go_on("west", ANSWER | {"requestState": states[1]})


def test_only_what_the_caller_can_do_is_asked_of_it() -> None:
    assert may_be_asked({"sampling": {}}, "sampling/createMessage")
    assert not may_be_asked({"sampling": {}}, "elicitation/create")
    assert not may_be_asked(None, "roots/list")
    assert not may_be_asked({"x": {}}, "tools/list")
    assert can_answer({"roots": {}}) and not can_answer({}) and not can_answer(None)
