"""When answers leave."""

from tektonmesh.core.departures import Departures
from tektonmesh.core.effects import Send
from tektonmesh.core.grants import Grants
from tektonmesh.core.lanes import ANSWERS_WAITING_MAX, HEARD_BYTES_MAX, Lane
from tektonmesh.core.messages import LinkCredit, Settled
from tests.support import advance, make_env, only


def make() -> tuple[Departures, Lane]:
    lane = Lane(1, bytes(32))
    return Departures(make_env(), Grants({1: lane}, lambda: 0)), lane


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


def test_many_answers_do_not_wait() -> None:
    out, lane = make()
    lane.settled.extend(range(ANSWERS_WAITING_MAX))
    out.answer_within(lane, 0.05)
    assert len(only(advance(out.env, 0.0), Send)) == 1


def test_an_answer_that_is_more_urgent_brings_the_others_forward() -> None:
    out, lane = make()
    lane.settled.append(4)
    for delay_s in (0.05, 0.005, 0.05):
        out.answer_within(lane, delay_s)
    assert len(only(advance(out.env, 0.006), Send)) == 1
    assert only(advance(out.env, 1.0), Send) == []


def test_a_lane_that_leaves_this_turn_leaves_once_and_sets_no_later_alarm() -> None:
    out, lane = make()
    lane.settled.append(4)
    out.touch(lane)
    out.touch(lane)
    out.answer_within(lane, 0.05)
    out.flush()
    out.flush()
    assert len(only(out.env.take(), Send)) == 1
    assert out.env.deadlines.earliest() == float("inf")


def test_a_lane_with_nothing_to_say_says_nothing() -> None:
    out, lane = make()
    out.touch(lane)
    assert only(advance(out.env, 0.0), Send) == []


def test_credit_rides_with_the_answers() -> None:
    out, lane = make()
    lane.settled.append(4)
    lane.received = lane.granted
    out.touch(lane)
    [sent] = only(advance(out.env, 0.0), Send)
    assert sent.messages == (LinkCredit(lane.granted), Settled((4,)))
