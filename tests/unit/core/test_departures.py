"""When answers leave."""

from tektonmesh.core.departures import Departures
from tektonmesh.core.effects import Send
from tektonmesh.core.lanes import HEARD_BYTES_MAX, Lane
from tests.support import advance, make_env, only


def make() -> tuple[Departures, Lane]:
    return Departures(make_env()), Lane(1, bytes(32))


def test_an_answer_waits_for_its_delay_and_leaves_alone() -> None:
    out, lane = make()
    lane.settled.append(4)
    out.answer_within(lane, 0.05)
    assert only(advance(out.env, 0.04), Send) == []
    assert len(only(advance(out.env, 0.02), Send)) == 1


def test_what_leaves_this_turn_takes_the_answers_along() -> None:
    out, lane = make()
    lane.settled.append(4)
    out.answer_within(lane, 0.05)
    out.touch(lane)
    out.flush()
    assert len(only(out.env.take(), Send)) == 1
    assert only(advance(out.env, 1.0), Send) == []


def test_an_acknowledgement_of_many_bytes_does_not_wait() -> None:
    out, lane = make()
    lane.settled.append(4)
    lane.heard_bytes = HEARD_BYTES_MAX
    out.answer_within(lane, 0.05)
    assert len(only(advance(out.env, 0.0), Send)) == 1
    assert lane.heard_bytes == 0


def test_nothing_is_sent_on_a_link_that_is_gone() -> None:
    out, lane = make()
    lane.settled.append(4)
    out.answer_within(lane, 0.05)
    out.touch(lane)
    lane.up = False
    out.forget(lane)
    out.touch(lane)
    out.answer_within(lane, 0.0)
    out.flush()
    assert only(advance(out.env, 1.0), Send) == []
