"""Whole daemons in one process, over loopback: they find one another, share, talk, leave, fail."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core.ids import show_id
from tektonmesh.errors import LocalError, MeshError
from tektonmesh.net.daemon import open_daemon
from tektonmesh.net.lock import home_is_locked
from tektonmesh.net.notices import SUBSCRIBER_ITEMS_MAX
from tests.integration.daemons import (
    addresses_of_cis,
    attach_echo,
    config_of,
    message,
    open_pair,
    spec_of,
    state_of,
    until,
)


async def test_a_ci_of_one_stack_is_seen_and_spoken_to_from_another(tmp_path: Path) -> None:
    async with open_pair(tmp_path) as (west, east):
        await attach_echo(west)
        await until(lambda: "numa@west" in addresses_of_cis(east), within_s=2)
        answer = await east.ask(message("numa@west"))
        assert answer["body"] == b"HELLO"
        assert answer["path"] == ["east", "west"]


async def test_a_message_reaches_a_stack_that_is_not_linked(tmp_path: Path) -> None:
    """west - middle - east, where east and west may link with nobody but middle."""
    async with AsyncExitStack() as stack:
        middle = await stack.enter_async_context(open_daemon(config_of(tmp_path, "middle")))
        seeds = (middle.listen[0],)
        west, east = [
            await stack.enter_async_context(
                open_daemon(config_of(tmp_path, name, seeds=seeds, seeds_only=True))
            )
            for name in ("west", "east")
        ]
        # middle would dial nobody either: its replica has what they need.
        await until(lambda: state_of(west, "east") == state_of(east, "west") == "up")
        await attach_echo(west)
        await until(lambda: "numa@west" in addresses_of_cis(east))
        answer = await east.ask(message("numa@west"))
        assert answer["path"] == ["east", "middle", "west"]


async def test_a_large_body_and_many_messages_at_once_come_through(tmp_path: Path) -> None:
    async with open_pair(tmp_path) as (west, east):
        await attach_echo(west)
        await until(lambda: "numa@west" in addresses_of_cis(east))
        answers: list[bytes] = []

        async def ask(body: bytes) -> None:
            answers.append((await east.ask(message("numa@west", body)))["body"])

        bodies = [b"x" * 200_000] + [b"number %d" % number for number in range(200)]
        async with trio.open_nursery() as nursery:
            for body in bodies:
                nursery.start_soon(ask, body)
        assert sorted(answers) == sorted(body.upper() for body in bodies)


async def test_a_reply_streams_chunk_by_chunk(tmp_path: Path) -> None:
    async with open_pair(tmp_path) as (west, east):

        def deliver(effect: fx.Deliver) -> None:
            for word in (b"one ", b"two ", b"three"):
                west.inject(ev.ReplyChunk(effect.delivery, word))
            west.inject(ev.ReplyDone(effect.delivery, b"", "text/plain"))

        connection = west.attach(deliver, lambda _effect: None)
        spec = spec_of("numa", stream=True)
        await west.ask(lambda ticket: ev.RegisterCi(ticket, spec, connection, None, True))
        await until(lambda: "numa@west" in addresses_of_cis(east))
        make = message("numa@west")
        async with east.stream(lambda ticket: replace(make(ticket), stream=True)) as parts:
            got = [part async for part in parts]
        assert b"".join(part for part in got if isinstance(part, bytes)) == b"one two three"
        assert isinstance(got[-1], dict)


async def test_a_stack_that_leaves_is_left_everywhere_within_a_second(tmp_path: Path) -> None:
    async with open_pair(tmp_path) as (west, east):
        await attach_echo(east)
        await until(lambda: "numa@east" in addresses_of_cis(west))
        with trio.fail_after(5):
            await east.leave(5)
        await until(lambda: state_of(west, "east") == "left", within_s=1)
        assert east.stopping.is_set()


async def test_a_stack_that_dies_is_unreachable_and_back_after_its_restart(tmp_path: Path) -> None:
    async with open_daemon(config_of(tmp_path, "west")) as west:
        seeds = (west.listen[0],)
        async with open_daemon(config_of(tmp_path, "east", seeds=seeds)):
            await until(lambda: state_of(west, "east") == "up")
        await until(lambda: state_of(west, "east") == "unreachable", within_s=6)
        async with open_daemon(config_of(tmp_path, "east", seeds=seeds)) as east:
            await until(lambda: state_of(west, "east") == "up", within_s=3)
            assert state_of(east, "west") == "up"


async def test_a_persistent_registration_survives_a_restart(tmp_path: Path) -> None:
    spec = spec_of("numa", persist=True, how={"kind": "none"})
    async with open_daemon(config_of(tmp_path, "west")) as west:
        me = west.identity.stack_id
        await west.ask(lambda ticket: ev.RegisterCi(ticket, spec, None, None, True))
        assert addresses_of_cis(west) == ["numa@west"]
    async with open_daemon(config_of(tmp_path, "west")) as west:
        assert west.identity.stack_id == me
        assert addresses_of_cis(west) == ["numa@west"]


async def test_a_stranger_is_refused_named_in_both_logs_and_listed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "tektonmesh.net.links")
    other = ("another secret of more than thirty-two characters",)
    async with (
        open_daemon(config_of(tmp_path, "west")) as west,
        open_daemon(config_of(tmp_path, "odd", secret=other, seeds=(west.listen[0],))) as odd,
    ):
        await until(lambda: len(caplog.messages) >= 2)
        west_says, odd_says = sorted(caplog.messages, key=lambda line: "refused by" in line)
        stranger = show_id(odd.identity.stack_id)
        assert f"refused 'odd' (id {stranger}) from 127.0.0.1:" in west_says
        assert f"tektonmesh peers approve {stranger}" in west_says
        assert f"at {west.listen[0]}" in odd_says
        assert f"tektonmesh peers approve {stranger}" in odd_says
        (listed,) = west.node.trust.peers()
        assert (listed["id"], listed["state"]) == (stranger, "pending")
        assert state_of(odd, "west") is None, "who is not admitted learns nothing"
        assert state_of(west, "odd") is None
        await west.ask(lambda ticket: ev.AdmitPeer(ticket, odd.identity.stack_id))
        assert west.node.trust.peers()[0]["state"] == "admitted"


async def test_stacks_find_each_other_by_multicast_on_one_machine(tmp_path: Path) -> None:
    async with (
        open_daemon(config_of(tmp_path, "west", mdns=True)) as west,
        open_daemon(config_of(tmp_path, "east", mdns=True)) as east,
    ):
        await until(lambda: state_of(west, "east") == state_of(east, "west") == "up", within_s=5)


@pytest.mark.hostile("two-daemons")
async def test_a_home_has_one_daemon_and_the_error_names_the_other(tmp_path: Path) -> None:
    config = config_of(tmp_path, "west")
    assert not home_is_locked(config.home)
    async with open_daemon(config):
        assert home_is_locked(config.home)
        with pytest.raises(LocalError, match=r"in use by the daemon with process id \d+"):
            async with open_daemon(config):
                pass
    assert not home_is_locked(config.home)


async def test_an_address_that_is_taken_is_named(tmp_path: Path) -> None:
    async with open_daemon(config_of(tmp_path, "west")) as west:
        with pytest.raises(LocalError, match=f"Cannot listen on {west.listen[0]}"):
            async with open_daemon(config_of(tmp_path, "east", listen=(west.listen[0],))):
                pass


async def test_without_a_wish_the_next_free_port_is_taken_on_all_interfaces(tmp_path: Path) -> None:
    async with (
        open_daemon(config_of(tmp_path, "west", listen=None, lan=True)) as west,
        open_daemon(config_of(tmp_path, "east", listen=None, lan=True)) as east,
    ):
        ports = [
            {int(address.rpartition(":")[2]) for address in daemon.listen}
            for daemon in (west, east)
        ]
        assert [len(of_one) for of_one in ports] == [1, 1]
        assert ports[0] != ports[1]
        assert any(address.startswith("127.0.0.1:") for address in west.listen)
        assert not any("0.0.0.0" in address or "[::]" in address for address in west.listen)


async def run_with_a_fault(home: Path) -> None:
    async with open_daemon(config_of(home, "west")) as west:
        west.node._events[ev.WallClock] = lambda event: event.no_such_field
        west.inject(ev.WallClock(0.0))
        with trio.fail_after(5):
            await west.stopping.wait()
        with pytest.raises(MeshError):
            await west.ask(ev.Leave)


async def test_a_fault_in_the_core_stops_the_daemon_and_is_raised(tmp_path: Path) -> None:
    with pytest.raises(MeshError, match="fault of its own") as caught:
        await run_with_a_fault(tmp_path)
    assert isinstance(caught.value.__cause__, AttributeError)


async def test_an_error_inside_the_block_comes_out_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_daemon(config_of(tmp_path, "west")):
            raise ZeroDivisionError


async def test_whoever_stops_waiting_cancels_the_command(tmp_path: Path) -> None:
    cancelled: list[fx.CancelDelivery] = []
    async with open_daemon(config_of(tmp_path, "west")) as west:
        connection = west.attach(lambda _effect: None, cancelled.append)
        spec = spec_of("slow")
        await west.ask(lambda ticket: ev.RegisterCi(ticket, spec, connection, None, True))
        with trio.move_on_after(0.2) as scope:
            await west.ask(message("slow"))
        assert scope.cancelled_caught
        assert len(cancelled) == 1
        assert west.counters["commands_waiting"] == 0


async def test_subscribers_get_notices_and_slow_ones_are_told_what_they_missed(
    tmp_path: Path,
) -> None:
    async with open_daemon(config_of(tmp_path, "west")) as west:
        with west.subscribe() as quick, west.subscribe() as slow:
            west.notices.say("test", body=b"never shown", number=1)
            item = await quick.receive()
            assert (item["kind"], item["number"]) == ("test", 1)
            assert "body" not in item
            for number in range(SUBSCRIBER_ITEMS_MAX + 10):
                west.notices.say("test", number=number)
            items = [slow.receive_nowait() for _ in range(SUBSCRIBER_ITEMS_MAX)]
            assert sum(item.get("dropped", 0) for item in items) == 11
            assert items[-1]["number"] == SUBSCRIBER_ITEMS_MAX + 9
            with pytest.raises(trio.WouldBlock):
                slow.receive_nowait()
