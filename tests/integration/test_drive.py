"""The drive around a scripted node: order of turns, the one timer, stalls, and faults."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import cast

import pytest
import trio
import trio.testing

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core.node import Node
from tektonmesh.net import watchdog
from tektonmesh.net.drive import Drive, describe
from tektonmesh.net.watchdog import BEAT_S, Pulse, keep_beating

Script = Callable[[ev.Event], list[fx.Effect]]


class ScriptedNode:
    """Answers each event as the script says and remembers when it came."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.deadline = math.inf
        self.seen: list[tuple[float, ev.Event]] = []

    def start(self, _now: float) -> list[fx.Effect]:
        return []

    def handle(self, event: ev.Event, now: float) -> list[fx.Effect]:
        self.seen.append((now, event))
        return self.script(event)

    @property
    def events(self) -> list[ev.Event]:
        return [event for _now, event in self.seen]


def make_drive(script: Script) -> tuple[Drive, ScriptedNode]:
    node = ScriptedNode(script)
    return Drive(lambda _now: cast(Node, node)), node


def quiet(_event: ev.Event) -> list[fx.Effect]:
    return []


async def test_effects_are_carried_out_before_inject_returns() -> None:
    done: list[fx.Effect] = []
    drive, _node = make_drive(lambda event: [fx.Answer(1, {}), fx.Answer(2, {})])
    drive.start({fx.Answer: done.append})
    drive.inject(ev.WallClock(1.0))
    assert done == [fx.Answer(1, {}), fx.Answer(2, {})]


async def test_an_event_from_inside_an_effect_waits_until_the_turn_is_over() -> None:
    """One event is fully dealt with before the next: no recursion, no interleaving."""
    order: list[str] = []

    def script(event: ev.Event) -> list[fx.Effect]:
        order.append(f"handle {type(event).__name__}")
        return [fx.Answer(1, {}), fx.Answer(2, {})] if isinstance(event, ev.Leave) else []

    drive, _node = make_drive(script)

    def answer(effect: fx.Answer) -> None:
        order.append(f"begin {effect.ticket}")
        drive.inject(ev.Saved(effect.ticket))
        order.append(f"end {effect.ticket}")

    drive.start({fx.Answer: answer})
    drive.inject(ev.Leave(9))
    assert order == [
        "handle Leave",
        "begin 1",
        "end 1",
        "begin 2",
        "end 2",
        "handle Saved",
        "handle Saved",
    ]


async def test_a_tick_comes_at_the_deadline(autojump_clock: trio.testing.MockClock) -> None:
    drive, node = make_drive(quiet)
    node.deadline = trio.current_time() + 7.0

    def tick(event: ev.Event) -> list[fx.Effect]:
        node.deadline = math.inf
        return []

    node.script = tick
    drive.start({})
    begun = trio.current_time()
    with trio.move_on_after(100):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drive.keep_time)
            nursery.start_soon(keep_beating, drive.beat)
    assert node.seen == [(begun + 7.0, ev.Tick())]


async def test_an_event_moves_the_timer_earlier(autojump_clock: trio.testing.MockClock) -> None:
    drive, node = make_drive(quiet)
    begun = trio.current_time()
    node.deadline = begun + 50.0
    drive.start({})

    def script(event: ev.Event) -> list[fx.Effect]:
        node.deadline = begun + 3.0 if isinstance(event, ev.WallClock) else math.inf
        return []

    node.script = script
    with trio.move_on_after(100):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drive.keep_time)
            nursery.start_soon(keep_beating, drive.beat)
            await trio.sleep(2.0)
            drive.inject(ev.WallClock(1.0))
    ticks = [now for now, event in node.seen if isinstance(event, ev.Tick)]
    assert ticks == [begun + 3.0]


async def test_after_a_pause_of_the_process_the_node_hears_of_it_first(
    mock_clock: trio.testing.MockClock,
) -> None:
    """A tick that piled up during a SIGSTOP must not let the node accuse others of silence."""
    drive, node = make_drive(quiet)
    drive.start({})
    mock_clock.jump(10.0)
    drive.inject(ev.Tick())
    stalled, tick = node.events
    assert isinstance(stalled, ev.Stalled)
    assert stalled.seconds == pytest.approx(10.0 - BEAT_S)
    assert tick == ev.Tick()
    drive.inject(ev.Tick())
    assert len(node.events) == 3


async def test_after_a_sleep_of_the_machine_the_node_hears_how_long_and_what_time_it_is(
    mock_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive, node = make_drive(quiet)
    drive.start({})
    slept = watchdog.slept_s()
    monkeypatch.setattr(watchdog, "slept_s", lambda: slept + 3600.0)
    mock_clock.jump(BEAT_S)
    drive.beat()
    stalled, wall = node.events
    assert isinstance(stalled, ev.Stalled)
    assert stalled.seconds == stalled.suspended == pytest.approx(3600.0, abs=0.1)
    assert isinstance(wall, ev.WallClock)
    mock_clock.jump(BEAT_S)
    drive.beat()
    assert len(node.events) == 2


async def test_a_beating_loop_is_never_called_stalled(
    autojump_clock: trio.testing.MockClock,
) -> None:
    drive, node = make_drive(quiet)
    drive.start({})
    with trio.move_on_after(60):
        await keep_beating(drive.beat)
    assert node.events == []


def test_a_pulse_reports_a_pause_once() -> None:
    pulse = Pulse(100.0)
    assert pulse.missed(100.4) == 0.0
    assert pulse.missed(105.0) == pytest.approx(4.5)
    assert pulse.missed(105.1) == 0.0
    assert pulse.lag_max_s == pytest.approx(4.5)


async def test_a_fault_in_the_core_stops_the_node_for_good(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def script(event: ev.Event) -> list[fx.Effect]:
        raise ZeroDivisionError("a bug")

    drive, node = make_drive(script)
    drive.start({})
    secret = b"a body that belongs in no log"
    event = ev.SendMessage(3, "numa@west", secret, "text/plain", "", 5.0, False, {})
    with caplog.at_level(logging.CRITICAL):
        drive.inject(event)
    assert isinstance(drive.failure, ZeroDivisionError)
    assert drive.failed.is_set()
    assert "SendMessage(ticket=3)" in caplog.text
    assert "belongs in no log" not in caplog.text
    drive.inject(ev.Tick())
    assert len(node.events) == 1


async def test_nothing_reaches_the_node_after_closing() -> None:
    drive, node = make_drive(quiet)
    drive.start({})
    drive.close()
    drive.inject(ev.Tick())
    assert node.events == []


def test_an_event_is_described_without_what_people_wrote() -> None:
    shown = describe(ev.ReplyDone(4, b"private words", "text/plain"))
    assert shown == "ReplyDone(delivery=4)"
