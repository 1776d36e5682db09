"""The Unix socket by hand: lines in, lines out, and everything that may be wrong with them."""

from __future__ import annotations

import base64
import json
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
import trio

from tektonmesh.api import unix
from tektonmesh.api.connection import CALLS_MAX
from tektonmesh.core import events as ev
from tektonmesh.core.messages import Ping
from tektonmesh.errors import LocalError
from tests.doors import lines_to, open_stack, until


def code_of(answer: dict[str, Any] | None) -> str:
    assert answer is not None
    return str(answer["error"]["data"]["code"])


async def test_a_ci_registers_answers_and_streams_over_its_connection(tmp_path: Path) -> None:
    async with (
        open_stack(tmp_path) as doors,
        lines_to(doors.daemon) as ci,
        lines_to(doors.daemon) as user,
    ):
        done = await ci.call(1, "register", name="Numa", type="echo", specialties=["chat"])
        assert done["result"]["success"] and done["result"]["stack"] == "west"
        await user.write({"id": "q", "method": "send", "params": {"to": "numa", "body": "hi"}})
        asked = await ci.read()
        assert asked is not None and asked["method"] == "message"
        params = asked["params"]
        assert (params["body"], params["attempt"]) == ("hi", 0)
        assert 0 < params["deadline_ms"] <= 60_000
        for text in ("one ", "two "):
            await ci.write({"method": "reply.chunk", "params": {"id": asked["id"], "data": text}})
        # People type `jsonrpc` as seldom as the contract's own example does.
        await ci.write({"id": asked["id"], "result": {"body": "three"}})
        answer = await user.read()
        assert answer is not None and answer["id"] == "q"
        assert answer["result"]["body"] == "one two three"
        assert answer["result"]["path"] == ["west"]


async def test_a_streamed_reply_comes_as_notifications_before_the_response(tmp_path: Path) -> None:
    async with (
        open_stack(tmp_path) as doors,
        lines_to(doors.daemon) as ci,
        lines_to(doors.daemon) as user,
    ):
        await ci.call(1, "register", name="numa")
        await user.write(
            {"id": 5, "method": "send", "params": {"to": "numa", "body": "", "stream": True}}
        )
        asked = await ci.read()
        assert asked is not None
        odd = base64.b64encode(b"\xff").decode()
        await ci.write({"method": "reply.chunk", "params": {"id": asked["id"], "data": "a"}})
        await ci.write({"method": "reply.chunk", "params": {"id": asked["id"], "data_b64": odd}})
        await ci.write({"id": asked["id"], "result": {}})
        first, second, last = [await user.read() for _ in range(3)]
        assert first is not None and first["method"] == "reply.chunk"
        assert first["params"] == {"id": 5, "data": "a"}
        assert second is not None and second["params"] == {"id": 5, "data_b64": odd}
        assert last is not None and last["id"] == 5 and last["result"]["path"] == ["west"]


async def test_bytes_that_are_no_text_pass_unchanged(tmp_path: Path) -> None:
    encoded = base64.b64encode(bytes(range(256))).decode()
    async with (
        open_stack(tmp_path) as doors,
        lines_to(doors.daemon) as ci,
        lines_to(doors.daemon) as user,
    ):
        await ci.call(1, "register", name="numa")
        await user.write({"id": 1, "method": "send", "params": {"to": "numa", "body_b64": encoded}})
        asked = await ci.read()
        assert asked is not None and asked["params"]["body_b64"] == encoded
        await ci.write({"id": asked["id"], "result": {"body_b64": encoded}})
        answer = await user.read()
        assert answer is not None and answer["result"]["body_b64"] == encoded


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ({"error": {"code": 1, "message": "I broke."}}, "ci_failed"),
        ({"error": {"code": 1, "message": "Full.", "data": {"code": "busy"}}}, "busy"),
        ({"error": {"code": 1, "message": "Odd.", "data": {"code": "internal"}}}, "ci_failed"),
        ({"result": {"body": 7}}, "ci_failed"),
        ({"result": [1]}, "ci_failed"),
        ({"result": {"body_b64": "%"}}, "ci_failed"),
        ({"result": {"body": "x", "content_type": 7}}, "ci_failed"),
        ({"result": {"body": "x", "content_type": "\ud800"}}, "ci_failed"),
        ({"method": "reply.chunk", "data": 7}, "ci_failed"),
    ],
)
async def test_what_a_ci_does_wrong_is_a_typed_failure(
    tmp_path: Path, answer: dict[str, Any], code: str
) -> None:
    async with (
        open_stack(tmp_path) as doors,
        lines_to(doors.daemon) as ci,
        lines_to(doors.daemon) as user,
    ):
        await ci.call(1, "register", name="numa")
        await user.write({"id": 1, "method": "send", "params": {"to": "numa", "body": "x"}})
        asked = await ci.read()
        assert asked is not None
        if "method" in answer:
            params = {"id": asked["id"], "data": answer["data"]}
            await ci.write({"method": answer["method"], "params": params})
        else:
            await ci.write(answer | {"id": asked["id"]})
        assert code_of(await user.read()) == code


async def test_half_of_a_surrogate_pair_in_what_a_ci_says_is_replaced(tmp_path: Path) -> None:
    async with (
        open_stack(tmp_path) as doors,
        lines_to(doors.daemon) as ci,
        lines_to(doors.daemon) as user,
    ):
        await ci.call(1, "register", name="numa")
        await user.write({"id": 1, "method": "send", "params": {"to": "numa", "body": "x"}})
        asked = await ci.read()
        assert asked is not None
        await ci.write({"id": asked["id"], "error": {"code": 1, "message": "I broke \ud83d."}})
        answer = await user.read()
        assert answer is not None and answer["error"]["message"] == "I broke ?."


async def test_answers_that_nobody_asked_for_are_ignored(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors, lines_to(doors.daemon) as ci:
        await ci.write({"id": 99, "result": {"body": "x"}}, {"id": "99", "result": {}})
        await ci.write({"method": "reply.chunk", "params": {"id": 99, "data": "x"}})
        await ci.write({"method": "reply.chunk", "params": {}})
        assert (await ci.call(1, "ping"))["result"] == {}


async def test_a_ci_whose_connection_ends_fails_what_it_owes(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors, lines_to(doors.daemon) as user:
        async with lines_to(doors.daemon) as ci:
            await ci.call(1, "register", name="numa")
            await user.write({"id": 1, "method": "send", "params": {"to": "numa", "body": "x"}})
            assert (await ci.read() or {})["method"] == "message"
        assert code_of(await user.read()) == "ci_failed"


async def test_a_cancelled_call_cancels_the_message_at_the_ci(tmp_path: Path) -> None:
    async with (
        open_stack(tmp_path) as doors,
        lines_to(doors.daemon) as ci,
        lines_to(doors.daemon) as user,
    ):
        await ci.call(1, "register", name="numa")
        await user.write({"id": 8, "method": "send", "params": {"to": "numa", "body": "x"}})
        asked = await ci.read()
        assert asked is not None
        await user.write({"id": 9, "method": "cancel", "params": {"id": 8}})
        answers = {
            answer["id"]: answer for answer in [await user.read(), await user.read()] if answer
        }
        assert answers[9]["result"] == {"cancelled": True}
        assert code_of(answers[8]) == "cancelled"
        told = await ci.read()
        assert told is not None and told["method"] == "message.cancel"
        assert told["params"]["id"] == asked["id"]
        assert (await user.call(10, "cancel", id=8))["result"] == {"cancelled": False}


async def test_a_caller_who_hangs_up_cancels_its_message(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors, lines_to(doors.daemon) as ci:
        await ci.call(1, "register", name="numa")
        async with lines_to(doors.daemon) as user:
            await user.write({"id": 8, "method": "send", "params": {"to": "numa", "body": "x"}})
            assert (await ci.read() or {})["method"] == "message"
        assert (await ci.read() or {})["method"] == "message.cancel"


async def test_a_caller_who_only_stops_sending_gets_its_answer(tmp_path: Path) -> None:
    async with (
        open_stack(tmp_path) as doors,
        lines_to(doors.daemon) as ci,
        lines_to(doors.daemon) as user,
    ):
        await ci.call(1, "register", name="numa")
        # As `printf '{...}' | nc -N -U socket` does: no line end, then the end of the stream.
        send = {"id": 8, "method": "send", "params": {"to": "numa", "body": "x"}}
        await user.write(json.dumps(send).encode())
        await user.stream.send_eof()
        asked = await ci.read()
        assert asked is not None
        await ci.write({"id": asked["id"], "result": "done"})
        assert (await user.read() or {})["result"]["body"] == "done"
        assert await user.read() is None


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b'{"id":1,"id":2,"method":"ping"}', "bad_json"),
        (b'{"id":1,"method":"ping","params":{"x":NaN}}', "bad_json"),
        (b'{"id":1,"method":"ping"', "bad_json"),
        (b'{"id":1,"method":"ping","params":[]}', "bad_request"),
        (b'{"id":1,"method":7}', "bad_request"),
        (b'{"id":1.5,"method":"ping"}', "bad_request"),
        (b'{"id":1}', "bad_request"),
        (b'[{"id":1,"method":"ping"}]', "bad_request"),
        (b'{"id":1,"method":"pong"}', "unknown_method"),
        (b'{"id":1,"method":"send","params":{"body":"x"}}', "bad_request"),
        (b'{"id":1,"method":"send","params":{"to":"numa","body":7}}', "bad_request"),
        (b'{"id":1,"method":"send","params":{"to":"numa","body":"\\ud800"}}', "bad_request"),
        (b'{"id":1,"method":"send","params":{"to":"numa","timeout_s":-1}}', "bad_request"),
        (b'{"id":1,"method":"send","params":{"to":"numa","body":"x","from":"me"}}', "unknown_ci"),
        (b'{"id":1,"method":"send","params":{"to":"numa@nowhere","body":"x"}}', "not_found"),
        (b'{"id":1,"method":"register","params":{"name":"a b"}}', "bad_request"),
        (b'{"id":1,"method":"heartbeat","params":{"name":"numa"}}', "unknown_ci"),
        (b'{"id":1,"method":"deregister","params":{}}', "bad_request"),
        (b'{"id":1,"method":"get","params":{"address":"numa"}}', "not_found"),
        (b'{"id":1,"method":"find","params":{}}', "bad_request"),
        (b'{"id":1,"method":"message","params":{"id":"00"}}', "not_found"),
        (b'{"id":1,"method":"list","params":{"local":"yes"}}', "bad_request"),
        (b'{"id":1,"method":"peers","params":{"approve":"nobody"}}', "bad_request"),
        (b'{"id":1,"method":"subscribe","params":{"kinds":7}}', "bad_request"),
    ],
)
async def test_a_wrong_line_is_answered_and_the_connection_lives_on(
    tmp_path: Path, line: bytes, code: str
) -> None:
    async with open_stack(tmp_path) as doors, lines_to(doors.daemon) as user:
        assert (await user.call(0, "ping"))["result"] == {}
        await user.write(line + b"\n")
        assert code_of(await user.read()) == code
        assert (await user.call(2, "ping"))["result"] == {}


async def test_an_endless_line_ends_the_connection_with_a_reason(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors, lines_to(doors.daemon) as user:
        with pytest.raises(trio.BrokenResourceError):
            await user.write(b'{"' + b"x" * 4_000_000)
        assert code_of(await user.read()) == "too_large"
        assert await user.read() is None


async def test_many_lines_in_one_write_are_answered_in_order(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors, lines_to(doors.daemon) as user:
        await user.write(*({"id": number, "method": "ping"} for number in range(5000)))
        assert [(await user.read() or {})["id"] for _ in range(5000)] == list(range(5000))


async def test_more_calls_than_are_allowed_at_once_wait_for_their_turn(tmp_path: Path) -> None:
    count = CALLS_MAX + 200
    async with (
        open_stack(tmp_path) as doors,
        lines_to(doors.daemon) as ci,
        lines_to(doors.daemon) as user,
        trio.open_nursery() as nursery,
    ):
        await ci.call(1, "register", name="numa")

        async def answer() -> None:
            while (asked := await ci.read()) is not None:
                await ci.write({"id": asked["id"], "result": {"body": asked["params"]["body"]}})

        nursery.start_soon(answer)
        params = {"to": "numa", "body": "x"}
        nursery.start_soon(
            user.write,
            *({"id": number, "method": "send", "params": params} for number in range(count)),
        )
        found = [await user.read() for _ in range(count)]
        codes = [code_of(one) for one in found if one and "error" in one]
        assert sorted(one["id"] for one in found if one) == list(range(count))
        assert set(codes) <= {"busy"}  # The core's own bound on one CI's inbox.
        nursery.cancel_scope.cancel()


async def test_two_calls_with_one_id_are_told_apart_by_a_refusal(tmp_path: Path) -> None:
    async with (
        open_stack(tmp_path) as doors,
        lines_to(doors.daemon) as ci,
        lines_to(doors.daemon) as user,
    ):
        await ci.call(1, "register", name="numa")
        send = {"id": 1, "method": "send", "params": {"to": "numa", "body": "x"}}
        await user.write(send, send)
        assert code_of(await user.read()) == "bad_request"
        asked = await ci.read()
        assert asked is not None
        await ci.write({"id": asked["id"], "result": "once"})
        assert (await user.read() or {})["result"]["body"] == "once"


async def test_a_notification_gets_no_answer(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors, lines_to(doors.daemon) as user:
        await user.write({"method": "ping"}, {"method": "register", "params": {"name": "numa"}})
        await user.write({"method": "nonsense"})
        assert (await user.call(1, "ping"))["result"] == {}
        await until(lambda: doors.daemon.node.cis.get("numa") is not None)


@pytest.mark.hostile("ci-as-another")
async def test_a_connection_speaks_for_its_own_cis_only(tmp_path: Path) -> None:
    async with (
        open_stack(tmp_path) as doors,
        lines_to(doors.daemon) as numa,
        lines_to(doors.daemon) as rhetor,
    ):
        await numa.call(1, "register", name="numa")
        await rhetor.call(1, "register", name="rhetor")
        refused = await rhetor.call(2, "send", to="numa", body="x", **{"from": "numa"})
        assert code_of(refused) == "refused"
        await rhetor.write({"id": 3, "method": "send", "params": {"to": "numa", "body": "x"}})
        asked = await numa.read()
        assert asked is not None and asked["params"]["from"].startswith("rhetor")


async def test_a_live_name_cannot_be_taken_over_another_connection(tmp_path: Path) -> None:
    async with (
        open_stack(tmp_path) as doors,
        lines_to(doors.daemon) as first,
        lines_to(doors.daemon) as second,
    ):
        token = (await first.call(1, "register", name="numa"))["result"]["token"]
        assert code_of(await second.call(1, "register", name="NUMA")) == "conflict"
        assert (await second.call(2, "register", name="numa", token=token))["result"]["success"]


async def test_a_registration_by_hand_takes_no_messages_on_its_connection(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors:
        async with lines_to(doors.daemon) as user:
            await user.call(1, "register", name="numa", attach=False, persist=True)
        found = doors.daemon.node.cis.get("numa")
        assert found is not None and found.how == {"kind": "none"} and found.via == "cli"


async def test_watching_shows_what_happens_from_the_answer_on(tmp_path: Path) -> None:
    async with (
        open_stack(tmp_path) as doors,
        lines_to(doors.daemon) as watcher,
        lines_to(doors.daemon) as ci,
    ):
        await watcher.call(1, "subscribe", kinds=["ci"])
        done = await ci.call(1, "register", name="numa")
        event = await watcher.read()
        assert event is not None and event["method"] == "event" and "id" not in event
        assert event["params"]["kind"] == "ci_registered"
        assert event["params"]["ci"] == "numa" and event["params"]["seq"] >= 1
        assert done["result"]["token"] not in json.dumps(event)
        assert code_of(await watcher.call(2, "subscribe")) == "conflict"


async def test_a_stack_is_explained_until_and_after_it_is_gone(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as west, lines_to(west.daemon) as lines:
        seeds = tuple(west.daemon.listen)
        async with open_stack(tmp_path, "east", seeds=seeds) as east:
            graph, east_id = west.daemon.node.graph, east.daemon.identity.stack_id
            await until(lambda: graph.state(east_id) == "up")
            shown = (await lines.call(1, "explain", name="numa@east"))["result"]
            assert (shown["name"], shown["observers"]) == ("east", 1)
            assert "only this stack can tell whether it lives" in shown["why"]
            assert shown["holders"][0]["is"] == "same"
            assert {change["from"] for change in shown["changes"]} == {"east"}
        await until(lambda: graph.state(east_id) == "unreachable")
        shown = (await lines.call(2, "explain", name="east"))["result"]
        assert "The link of this stack to it ended" in shown["why"]
        assert "Its only neighbour, this stack, withdrew its link" in shown["why"]
        assert shown["links"][0]["lost"] == "withdrawn" and shown["path"] == []
        later = (await lines.call(3, "explain", name="east"))["result"]
        assert later["signed"]["heard_s"] >= shown["signed"]["heard_s"]
        own = (await lines.call(4, "explain", name="west"))["result"]
        assert own["why"].endswith("It has no link to any other stack.")


async def test_status_says_with_whom_it_is_not_converged_until_the_prints_agree(
    tmp_path: Path,
) -> None:
    async with open_stack(tmp_path) as west, lines_to(west.daemon) as lines:
        seeds = tuple(west.daemon.listen)
        async with open_stack(tmp_path, "east", seeds=seeds):
            node = west.daemon.node
            await until(lambda: node.neighbours.links and west.status({})["converged"])
            (link,) = node.neighbours.links
            # As if the peer held something else; its next own print says that it does not.
            other = Ping(1, node.clock.now_ms(), bytes(range(16)))
            west.daemon.inject(ev.Received(link, (other,)))
            status = (await lines.call(1, "status"))["result"]
            assert (status["converged"], status["diverged"]) == (False, ["east"])
            (gap,) = status["divergence"]
            assert (gap["stack"], gap["owners"]) == ("east", None) and gap["since_s"] >= 0.0
            await until(lambda: west.status({})["converged"], within_s=20)
            assert west.status({})["divergence"] == []


@pytest.mark.parametrize(
    ("params", "code"),
    [({}, "bad_request"), ({"name": ""}, "bad_request"), ({"name": "numa@"}, "bad_request"),
     ({"name": 5}, "bad_request"), ({"name": "nobody"}, "not_found")],
)  # fmt: skip
async def test_what_names_no_stack_cannot_be_explained(
    tmp_path: Path, params: dict[str, Any], code: str
) -> None:
    async with open_stack(tmp_path) as doors, lines_to(doors.daemon) as lines:
        assert code_of(await lines.call(1, "explain", **params)) == code


async def test_ages_are_those_of_the_moment_in_which_they_are_asked_for(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors, lines_to(doors.daemon) as lines:
        await until(lambda: doors.daemon.node.owner.published)
        for method, params in (("stacks", {}), ("explain", {"name": "west"}), ("status", {})):
            turns = doors.daemon.node.env.now
            await lines.call(method, method, **params)
            assert doors.daemon.node.env.now > turns, method


async def test_the_socket_is_private_and_goes_with_the_daemon(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors:
        path = Path(doors.daemon.socket_path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


async def test_a_socket_left_by_a_killed_daemon_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.path.relpath(path))
    async with unix.bound_socket(Path(os.path.relpath(path))) as listener:
        assert listener.fileno() >= 0
    assert not path.exists()


async def test_a_socket_that_somebody_answers_on_is_left_alone(tmp_path: Path) -> None:
    path = Path(os.path.relpath(tmp_path / "s"))
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(LocalError, match="answers") as refusal:
            async with unix.bound_socket(path):
                raise AssertionError("It was bound.")
        assert refusal.value.code.name == "conflict"
        assert path.exists()


@pytest.mark.hostile("socket-link")
async def test_a_file_in_the_sockets_place_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(LocalError, match="no socket"):
        async with unix.bound_socket(path):
            raise AssertionError("It was bound.")
    assert path.read_text() == "precious"


async def test_a_path_that_no_system_takes_is_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="longer than 100 bytes"):
        async with unix.bound_socket(tmp_path / ("x" * 100)):
            raise AssertionError("It was bound.")


def test_the_kernel_says_who_is_at_the_other_end() -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert unix.peer_uid(one) == os.geteuid()
    with socket.socket(socket.AF_UNIX) as nobody:
        assert unix.peer_uid(nobody) in (-1, 2**32 - 1)


@pytest.mark.parametrize("first", [b"\x16\x03\x01\x02\x00", b"hello\n", b"\n\n"])
async def test_whoever_speaks_neither_dialect_is_told_so_or_left(
    tmp_path: Path, first: bytes
) -> None:
    async with open_stack(tmp_path) as doors, lines_to(doors.daemon) as stranger:
        await stranger.write(first)
        await stranger.stream.send_eof()
        answer = await stranger.read()
        if first.strip():
            assert code_of(answer) == "bad_json"
        else:
            assert answer is None


async def test_tektons_one_shot_and_specialist_lines_are_taken(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors, lines_to(doors.daemon) as ci:
        await ci.call(1, "register", name="numa")
        one_shot = {"from": "aish", "content": "do it", "type": "message", "execute": True}
        async with lines_to(doors.daemon) as tool:
            await tool.write(json.dumps(one_shot | {"to": "numa"}).encode())
        asked = await ci.read()
        assert asked is not None and asked["params"]["body"] == "do it"
        assert "execute" not in json.dumps(asked)
        await ci.write({"id": asked["id"], "result": ""})
        async with lines_to(doors.daemon) as tool:
            await tool.write({"type": "ping"})
            assert await tool.read() == {"type": "pong"}
            await tool.write({"type": "health"}, {"type": "info"})
            assert {(await tool.read() or {})["type"] for _ in range(2)} == {"health", "info"}
            await tool.write({"type": "chat", "content": "hi", "to": "numa"})
            asked = await ci.read()
            assert asked is not None
            await ci.write({"id": asked["id"], "result": "hello"})
            answer = await tool.read()
            assert answer == {"type": "response", "ai_id": "numa", "content": "hello"}


async def test_tektons_forms_without_a_target_are_answered_with_an_error(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors, lines_to(doors.daemon) as tool:
        await tool.write({"type": "chat", "content": "hi"}, {"from": "aish", "content": "x"})
        for _ in range(2):
            answer = await tool.read()
            assert answer is not None and answer["type"] == "error"
            assert '"to"' in answer["error"]


@pytest.mark.hostile("ci-as-another")
async def test_a_connection_with_a_ci_needs_the_token_of_every_other(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors, lines_to(doors.daemon) as user:
        made = await user.call(1, "register", name="athena", attach=False, persist=True)
        token = made["result"]["token"]
        async with lines_to(doors.daemon) as ci:
            await ci.call(1, "register", name="numa")
            other = {"name": "athena", "attach": False, "persist": True}
            assert code_of(await ci.call(2, "register", **other)) == "conflict"
            assert code_of(await ci.call(3, "heartbeat", name="athena")) == "unauthorized"
            assert code_of(await ci.call(4, "deregister", name="athena")) == "unauthorized"
            assert (await ci.call(5, "heartbeat", name="numa"))["result"]["success"]
            assert (await ci.call(6, "heartbeat", name="athena", token=token))["result"]["success"]
            assert code_of(await ci.call(7, "leave")) == "refused"
            assert (await ci.call(8, "deregister", name="numa"))["result"]["success"]
            assert code_of(await ci.call(9, "deregister", name="athena")) == "unauthorized"
        assert (await user.call(2, "deregister", name="athena"))["result"]["success"]


async def test_from_takes_the_token_unless_the_ci_is_attached_there(tmp_path: Path) -> None:
    async with (
        open_stack(tmp_path) as doors,
        lines_to(doors.daemon) as ci,
        lines_to(doors.daemon) as user,
    ):
        token = (await ci.call(1, "register", name="numa"))["result"]["token"]
        sent = {"to": "numa", "body": "x", "from": "numa", "no_reply": True}
        assert code_of(await user.call(1, "send", **sent)) == "refused"
        assert code_of(await user.call(2, "send", **sent, token="tmr_x")) == "refused"
        await user.write({"id": 3, "method": "send", "params": sent | {"token": token}})
        asked = await ci.read()
        assert asked is not None and asked["params"]["from"].startswith("numa")


async def test_a_key_sends_once_whichever_call_repeats_it(tmp_path: Path) -> None:
    async with (
        open_stack(tmp_path) as doors,
        lines_to(doors.daemon) as ci,
        lines_to(doors.daemon) as user,
    ):
        await ci.call(1, "register", name="numa")
        sent = {"to": "numa", "body": "x", "idempotency_key": "k"}
        await user.write({"id": 1, "method": "send", "params": sent})
        asked = await ci.read()
        assert asked is not None
        await ci.write({"id": asked["id"], "result": {"body": "once"}})
        first = await user.read()
        assert first is not None and first["result"]["body"] == "once"
        assert (await user.call(2, "send", **sent))["result"] == first["result"]
        assert code_of(await user.call(3, "send", **(sent | {"body": "y"}))) == "conflict"
        assert code_of(await user.call(4, "send", **sent, stream=True)) == "conflict"
        asked = {"to": "numa", "body": "x", "stream": True, "durable": True}
        assert code_of(await user.call(5, "send", **asked)) == "bad_request"


@pytest.mark.hostile("other-user")
async def test_a_user_whom_the_owner_allowed_is_served_and_is_not_the_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = os.geteuid() + 4711
    monkeypatch.setattr(unix, "peer_uid", lambda _sock: stranger)
    async with open_stack(tmp_path, "no") as doors, lines_to(doors.daemon) as user:
        await user.write({"id": 1, "method": "ping"})
        assert await user.read() is None
    async with (
        open_stack(tmp_path, "yes", allow_uids=(stranger,)) as doors,
        lines_to(doors.daemon) as user,
    ):
        assert stat.S_IMODE(doors.daemon.socket_path.stat().st_mode) == 0o666
        assert (await user.call(1, "ping"))["result"] == {}
        assert code_of(await user.call(2, "leave")) == "refused"
