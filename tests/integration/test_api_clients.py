"""Both Python clients against a running daemon: the same names, the same meaning."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tektonmesh import Client, MeshError, Request
from tektonmesh.sync import Client as SyncClient
from tektonmesh.sync import Message
from tests.doors import open_stack, socket_of, until


async def shout(message: Request) -> str:
    return message.body.upper()


async def spell(message: Request) -> AsyncIterator[str]:
    for letter in message.body:
        yield letter


async def test_ten_lines_make_a_ci(tmp_path: Path) -> None:
    async with (
        open_stack(tmp_path) as doors,
        Client(socket_of(doors)) as ci,
        Client(socket_of(doors)) as user,
        trio.open_nursery() as nursery,
    ):
        done = await ci.register("numa", type="echo", specialties=["chat"])
        assert done["success"] and done["stack"] == "west"
        nursery.start_soon(ci.serve, shout)
        reply = await user.send("numa", "hi", timeout=5)
        assert (reply.body, reply.path, reply.to) == ("HI", ("west",), "numa@west")
        assert reply.ms >= 0 and len(reply.id) == 32
        assert (await user.message(reply.id))["state"] == "answered"
        assert [row["address"] for row in await user.cis(specialty="chat")] == ["numa@west"]
        assert [row["name"] for row in await user.find("chat")] == ["numa"]
        assert (await user.status())["cis"]["local"] == 1
        assert [row["state"] for row in await user.stacks()] == ["self"]
        assert [row["name"] for row in await user.stacks("west")] == ["west"]
        assert (await user.route("numa"))["state"] == "self"
        assert await user.peers() == []
        assert (await user.heartbeat("numa"))["success"]
        assert (await user.deregister("numa"))["success"]
        assert await user.cis() == []
        nursery.cancel_scope.cancel()


async def test_a_stream_is_text_as_it_comes_and_then_the_whole_reply(tmp_path: Path) -> None:
    async with (
        open_stack(tmp_path) as doors,
        Client(socket_of(doors)) as ci,
        Client(socket_of(doors)) as user,
        trio.open_nursery() as nursery,
    ):
        await ci.register("numa")
        nursery.start_soon(ci.serve, spell)
        async with user.stream("numa", "grüße") as stream:
            assert "".join([text async for text in stream]) == "grüße"
            assert stream.reply is not None and stream.reply.body == "grüße"
        # Without a stream the chunks come as one body.
        assert (await user.send("numa", "abc")).body == "abc"
        nursery.cancel_scope.cancel()


async def test_leaving_a_stream_early_or_being_cancelled_cancels_the_handler(
    tmp_path: Path,
) -> None:
    cancelled = 0
    begun = 0

    async def endless(_message: Request) -> AsyncIterator[str]:
        nonlocal cancelled, begun
        begun += 1
        try:
            yield "one"
            await trio.sleep_forever()
        finally:
            cancelled += 1

    async with (
        open_stack(tmp_path) as doors,
        Client(socket_of(doors)) as ci,
        Client(socket_of(doors)) as user,
        trio.open_nursery() as nursery,
    ):
        await ci.register("numa")
        nursery.start_soon(ci.serve, endless)
        async with user.stream("numa", "x") as stream:
            async for text in stream:
                assert text == "one"
                break
        await until(lambda: cancelled == 1)
        with trio.move_on_after(30) as scope:

            async def cancel_when_begun() -> None:
                await until(lambda: begun == 2)
                scope.cancel()

            nursery.start_soon(cancel_when_begun)
            await user.send("numa", "x")
        await until(lambda: cancelled == 2)
        nursery.cancel_scope.cancel()


async def test_handlers_run_as_many_at_once_as_they_were_allowed(tmp_path: Path) -> None:
    running = most = 0

    async def slow(_message: Request) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(0.02)
        running -= 1
        return "done"

    async with (
        open_stack(tmp_path) as doors,
        Client(socket_of(doors)) as ci,
        Client(socket_of(doors)) as user,
        trio.open_nursery() as nursery,
    ):
        await ci.register("numa")

        async def serve() -> None:
            await ci.serve(slow, parallel=3)

        nursery.start_soon(serve)
        async with trio.open_nursery() as senders:
            for _ in range(8):
                senders.start_soon(user.send, "numa", "x")
        assert most == 3
        nursery.cancel_scope.cancel()


async def test_failures_have_their_codes(tmp_path: Path) -> None:
    async def broken(_message: Request) -> str:
        raise ValueError("no such tool")

    async with (
        open_stack(tmp_path) as doors,
        Client(socket_of(doors)) as ci,
        Client(socket_of(doors)) as user,
        trio.open_nursery() as nursery,
    ):
        await ci.register("numa")
        nursery.start_soon(ci.serve, broken)
        with pytest.raises(MeshError, match="no such tool") as failure:
            await user.send("numa", "x")
        assert failure.value.code.name == "ci_failed"
        with pytest.raises(MeshError) as failure:
            await user.send("nobody", "x")
        assert failure.value.code.exit == 4
        with pytest.raises(MeshError, match="Did you mean 'status'") as failure:
            await user.call("statsu")
        assert failure.value.code.name == "unknown_method"
        nursery.cancel_scope.cancel()


async def test_no_daemon_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(MeshError) as failure:
        async with Client(tmp_path / "s"):
            raise AssertionError("It connected.")
    assert failure.value.code.name == "no_daemon"
    with pytest.raises(MeshError) as failure, SyncClient(tmp_path / "s"):
        raise AssertionError("It connected.")
    assert failure.value.code.name == "no_daemon"


async def test_a_daemon_that_ends_fails_whoever_waits(tmp_path: Path) -> None:
    failures: list[str] = []

    async def wait_for(act: object) -> None:
        try:
            await act  # type: ignore[misc]
        except MeshError as error:
            failures.append(error.code.name)

    async def never(_message: Request) -> str:
        await trio.sleep_forever()
        return ""

    end = trio.Event()

    async def run_daemon(task_status: Any) -> None:
        async with open_stack(tmp_path) as doors:
            task_status.started(doors)
            await end.wait()

    async with trio.open_nursery() as nursery:
        doors = await nursery.start(run_daemon)
        async with Client(socket_of(doors)) as ci, Client(socket_of(doors)) as user:
            await ci.register("numa")
            async with trio.open_nursery() as waiting:
                waiting.start_soon(wait_for, ci.serve(never, reconnect=False))
                waiting.start_soon(wait_for, user.send("numa", "x"))
                await until(lambda: doors.daemon.node.deliveries.open == 1)
                end.set()
            with pytest.raises(MeshError) as failure:
                await user.status()
            assert failure.value.code.name == "no_daemon"
    assert len(failures) == 2
    # The message fails with the connection of the CI or with its own, whichever ends first.
    assert failures.count("no_daemon") >= 1 and set(failures) <= {"no_daemon", "ci_failed"}


async def test_watching_yields_notices(tmp_path: Path) -> None:
    async with (
        open_stack(tmp_path) as doors,
        Client(socket_of(doors)) as watcher,
        Client(socket_of(doors)) as ci,
    ):
        notices = watcher.watch("ci")
        seen: list[str] = []

        async def watch() -> None:
            async for notice in notices:
                seen.append(notice["kind"])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await until(lambda: doors.daemon.notices._subscribers)
            await ci.register("numa", attach=False)
            await ci.deregister("numa")
            await until(lambda: len(seen) == 2)
            nursery.cancel_scope.cancel()
        assert seen == ["ci_registered", "ci_deregistered"]


async def test_both_clients_explain_a_stack(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors:
        path = socket_of(doors)
        async with Client(path) as user:
            shown = await user.explain("west")
            with pytest.raises(MeshError) as failure:
                await user.explain("nobody")
        assert failure.value.code.name == "not_found"

        def use() -> dict[str, Any]:
            with SyncClient(path) as user:
                return user.explain("west")

        assert set(await trio.to_thread.run_sync(use)) == set(shown)
        assert shown["why"].startswith("This is the stack that you ask.")


async def test_a_message_to_another_stack_is_counted_as_cross_stack(tmp_path: Path) -> None:
    async with open_stack(tmp_path, "west") as west:
        seeds = tuple(west.daemon.listen)
        async with (
            open_stack(tmp_path, "east", seeds=seeds) as east,
            Client(socket_of(east)) as ci,
            Client(socket_of(west)) as user,
            trio.open_nursery() as nursery,
        ):
            await ci.register("numa", specialties=["chat"])
            nursery.start_soon(ci.serve, spell)
            await until(lambda: west.cis({"stack": "east"}) if len(west.stacks({})) > 1 else False)
            reply = await user.send("numa@east", "far")
            assert (reply.body, reply.path) == ("far", ("west", "east"))
            assert west.figures.cross_stack.count == 1
            async with user.stream("numa@east", "away") as stream:
                assert "".join([text async for text in stream]) == "away"
            assert west.figures.remote == 2 and east.figures.remote == 0
            hops = (await user.trace("numa@east"))["hops"]
            assert [hop["stack"] for hop in hops] == ["east"]
            assert (await user.find("chat"))[0]["address"] == "numa@east"
            nursery.cancel_scope.cancel()


# --- the blocking client -------------------------------------------------------------------------


def echo(message: Message) -> str:
    return f"{message.sender or 'somebody'}: {message.body}"


def letters(message: Message) -> Iterator[str]:
    yield from message.body


async def test_the_blocking_client_does_the_same(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors:
        path = socket_of(doors)

        def use() -> None:
            with SyncClient(path) as ci, SyncClient(path) as user:
                ci.register("numa", specialties=["chat"])
                thread = threading.Thread(target=serve_until_closed, args=(ci, echo))
                thread.start()
                reply = user.send("numa", "hi", timeout=5)
                assert reply.body.endswith(": hi")
                assert reply.as_dict()["path"] == ["west"]
                assert user.message(reply.id)["state"] == "answered"
                assert [row["name"] for row in user.cis(local=True)] == ["numa"]
                assert user.find("chat")[0]["name"] == "numa"
                assert user.status()["name"] == "west"
                assert user.stacks()[0]["state"] == "self"
                assert user.route("numa")["state"] == "self"
                assert user.trace("numa")["path"] == ["west"]
                assert user.peers() == []
                assert user.heartbeat("numa")["success"]
                assert user.deregister("numa")["success"]
                with pytest.raises(MeshError) as failure:
                    user.heartbeat("numa")
                assert failure.value.code.name == "unknown_ci"
                ci.close()
                thread.join(10)
                assert not thread.is_alive()

        await trio.to_thread.run_sync(use)


def serve_until_closed(ci: SyncClient, handler: object, parallel: int = 1) -> None:
    with pytest.raises(MeshError, match="closed the connection"):
        ci.serve(handler, parallel=parallel)  # type: ignore[arg-type]


async def test_the_blocking_client_streams_and_cancels(tmp_path: Path) -> None:
    stopped = threading.Event()

    def handler(message: Message) -> Iterator[str]:
        if message.body != "endless":
            yield from letters(message)
            return
        yield "one"
        message.cancelled.wait(10)
        stopped.set()

    async with open_stack(tmp_path) as doors:
        path = socket_of(doors)

        def use() -> None:
            with SyncClient(path) as ci, SyncClient(path) as user:
                ci.register("numa")
                thread = threading.Thread(target=serve_until_closed, args=(ci, handler))
                thread.start()
                stream = user.stream("numa", "grüße")
                assert "".join(stream) == "grüße"
                assert stream.reply is not None and stream.reply.body == "grüße"
                with user.stream("numa", "endless") as stream:
                    assert next(iter(stream)) == "one"
                assert stopped.wait(10)
                # The same connection goes on after a stream that was left.
                assert user.send("numa", "abc").body == "abc"
                ci.close()
                thread.join(10)

        await trio.to_thread.run_sync(use)


async def test_a_handler_may_use_its_own_client(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors:
        path = socket_of(doors)

        def use() -> None:
            with SyncClient(path) as ci, SyncClient(path) as user:
                ci.register("numa")
                thread = threading.Thread(
                    target=serve_until_closed, args=(ci, lambda _m: ci.status()["name"], 2)
                )
                thread.start()
                assert user.send("numa", "who?").body == "west"
                ci.close()
                thread.join(10)

        await trio.to_thread.run_sync(use)


async def test_the_blocking_client_watches(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors:
        path = socket_of(doors)

        def use() -> None:
            with SyncClient(path) as watcher, SyncClient(path) as user:
                notices = watcher.watch("ci")
                # The first `next` subscribes; until then nothing is watched.
                found: list[str] = []
                thread = threading.Thread(target=lambda: found.append(next(notices)["kind"]))
                thread.start()
                while not doors.daemon.notices._subscribers:
                    pass
                user.register("numa", attach=False)
                thread.join(10)
                assert found == ["ci_registered"]

        await trio.to_thread.run_sync(use)


async def test_a_daemon_that_does_not_answer_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors, Client(socket_of(doors)) as ci:
        await ci.register("numa")  # and never serves

        def use() -> None:
            with SyncClient(socket_of(doors)) as user:
                with pytest.raises(MeshError) as failure:
                    user.send("numa", "x", timeout=0.1)
                assert failure.value.code.name == "timeout"

        await trio.to_thread.run_sync(use)


def test_the_blocking_client_imports_no_trio() -> None:
    program = "import sys, tektonmesh.sync; assert 'trio' not in sys.modules, 'trio'"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_package_names_its_clients_and_nothing_else() -> None:
    import tektonmesh

    assert tektonmesh.Client is Client
    assert tektonmesh.__version__
    with pytest.raises(AttributeError):
        _ = tektonmesh.nothing
