import pytest

from tektonmesh.core.outcomes import Question
from tektonmesh.core.pending import ASIDE_MAX, OVERHEAD, RECEIVED_MAX, Pending, Window
from tektonmesh.core.types import NodeSettings
from tektonmesh.errors import DeliveryError


def make_window(messages: int = 2, size: int = 10_000) -> Window:
    return Window(NodeSettings(window_messages=messages, window_bytes=size))


def make_pending(window: Window, n: int, size: int = 0) -> Pending:
    question = Question(n, n.to_bytes(16), bytes(32), "ci", "", False, 1000.0)
    return Pending(question, bytes(size), "", deadline=1060.0, one_way=False, window=window)


def test_a_window_lets_through_as_many_as_it_has_places() -> None:
    window = make_window(2)
    entered = [window.enter(make_pending(window, n)) for n in range(4)]
    assert entered == [True, True, False, False]
    assert len(window) == 4


def test_a_full_queue_before_the_window_refuses_and_changes_nothing() -> None:
    window = make_window(1)
    for n in range(2):
        window.enter(make_pending(window, n))
    with pytest.raises(DeliveryError) as caught:
        window.enter(make_pending(window, 2))
    assert caught.value.code.name == "busy"
    assert len(window) == 2


def test_the_bytes_that_wait_are_bounded_as_well() -> None:
    window = make_window(10, 2 * OVERHEAD)
    for n in range(4):
        window.enter(make_pending(window, n))
    with pytest.raises(DeliveryError):
        window.enter(make_pending(window, 4))


def test_a_place_that_becomes_free_goes_to_the_one_that_waits_longest() -> None:
    window = make_window(1)
    first, second = make_pending(window, 1), make_pending(window, 2)
    window.enter(first)
    window.enter(second)
    assert window.leave(first) == [second]
    assert window.is_open(second)


def test_one_that_gives_up_waiting_frees_no_place() -> None:
    window = make_window(1)
    first, second = make_pending(window, 1), make_pending(window, 2)
    window.enter(first)
    window.enter(second)
    assert window.leave(second) == []
    assert window.is_open(first) and len(window) == 1


def test_nobody_overtakes_a_large_message_that_waits() -> None:
    window = make_window(10, 1000)
    first, large, small = (make_pending(window, n, size) for n, size in ((1, 0), (2, 480), (3, 0)))
    assert [window.enter(first), window.enter(large)] == [True, False]
    with pytest.raises(DeliveryError):
        window.enter(small)
    assert window.leave(first) == [large]


def test_a_single_message_always_fits() -> None:
    window = make_window(10, 1000)
    assert window.enter(make_pending(window, 1, 100_000))


@pytest.mark.parametrize(
    ("received", "doubt", "flying", "outcome"),
    [
        (False, False, 0, "released"),
        (True, False, 0, "indeterminate"),
        (False, True, 0, "indeterminate"),
        (False, False, 1, "indeterminate"),
    ],
)
def test_only_what_certainly_never_arrived_is_released(
    received: bool, doubt: bool, flying: int, outcome: str
) -> None:
    pending = make_pending(make_window(), 1)
    pending.received, pending.doubt, pending.flying = received, doubt, flying
    assert pending.outcome == outcome


def test_what_its_destination_has_takes_no_place_from_others() -> None:
    window = make_window(1)
    first, second = make_pending(window, 1), make_pending(window, 2)
    window.enter(first)
    window.enter(second)
    assert window.received(first) == [second] and window.received(first) == []
    assert window.is_open(first) and window.is_open(second) and len(window) == 2
    assert window.leave(first) == [] and window.leave(second) == []
    assert len(window) == 0


def test_what_a_destination_has_and_does_not_answer_is_bounded() -> None:
    window = make_window(1)
    for n in range(RECEIVED_MAX):
        pending = make_pending(window, n)
        assert window.enter(pending)
        window.received(pending)
    with pytest.raises(DeliveryError):
        window.enter(make_pending(window, RECEIVED_MAX))


# --- full CIs ------------------------------------------------------------------------------------


def one_way(window: Window, n: int, ci: str = "ci") -> Pending:
    question = Question(n, n.to_bytes(16), bytes(32), ci, "", False, 1000.0)
    return Pending(question, b"", "", deadline=1060.0, one_way=True, window=window)


def test_what_a_full_ci_had_no_room_for_gives_its_place_to_the_next() -> None:
    window = make_window(1)
    first, second = one_way(window, 1), one_way(window, 2, "other")
    assert window.enter(first) and not window.enter(second)
    assert window.set_aside(first) == [second]
    assert window.is_open(first) and window.is_open(second)
    assert window.set_aside(first) == []
    assert window.leave(first) == [] and window.leave(second) == []
    assert len(window) == 0


def test_a_full_ci_has_only_so_many_waiting_and_others_are_not_meant_by_it() -> None:
    window = make_window(1000, 1 << 20)
    for n in range(ASIDE_MAX):
        pending = one_way(window, n)
        window.enter(pending)
        window.set_aside(pending)
    with pytest.raises(DeliveryError) as caught:
        window.enter(one_way(window, 5000))
    assert caught.value.code.name == "busy"
    assert window.enter(one_way(window, 5001, "other"))
    assert window.enter(make_pending(window, 5002)), "its own word answers a request"
    window.leave(pending)
    assert window.enter(one_way(window, 5003))
