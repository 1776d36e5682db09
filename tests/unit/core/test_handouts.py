from typing import Any

import pytest

from tektonmesh.core import effects as fx
from tektonmesh.core.ci import Ci
from tektonmesh.core.handouts import Handouts, Parcel
from tektonmesh.errors import DeliveryError, LocalError, MeshError
from tests.network import spec
from tests.support import advance, make_env, only


class Log:
    """A replier that writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def chunk(self, data: bytes) -> None:
        self.heard.append(("chunk", data))

    def done(self, body: bytes, content_type: str) -> None:
        self.heard.append(("done", body, content_type))

    def failed(self, code: str, detail: str) -> None:
        self.heard.append(("failed", code, detail))


def make_ci(name: str = "Numa", connection: int | None = 4, **changes: Any) -> Ci:
    return Ci(spec(name, **changes), "id", b"hash", connection=connection)


def parcel(left_s: float = 10.0) -> Parcel:
    return Parcel(bytes(16), "athena@b", b"hi", "text/plain", left_s, attempt=2)


def test_a_message_is_handed_out_with_all_its_ci_needs() -> None:
    env = make_env()
    handouts = Handouts(env)
    number = handouts.hand_out(make_ci(), parcel(), Log())
    assert env.take() == [
        fx.Deliver(
            delivery=number,
            ci="Numa",
            how={"kind": "attached", "connection": 4},
            msg_id=bytes(16),
            sender="athena@b",
            body=b"hi",
            content_type="text/plain",
            deadline_s=10.0,
            attempt=2,
        )
    ]
    assert len(handouts) == 1


def test_what_the_ci_says_reaches_the_one_who_asked_until_it_ends() -> None:
    handouts, log = Handouts(make_env()), Log()
    number = handouts.hand_out(make_ci(), parcel(), log)
    handouts.chunk(number, b"a")
    handouts.done(number, b"b", "text/x")
    handouts.chunk(number, b"late")
    handouts.done(number, b"late", "")
    handouts.failed(number, "ci_failed", "late")
    assert log.heard == [("chunk", b"a"), ("done", b"b", "text/x")]
    assert len(handouts) == 0


@pytest.mark.parametrize(("code", "shown"), [("busy", "busy"), ("nonsense", "ci_failed")])
def test_a_failure_carries_a_code_of_the_table(code: str, shown: str) -> None:
    handouts, log = Handouts(make_env()), Log()
    handouts.failed(handouts.hand_out(make_ci(), parcel(), log), code, "why")
    assert log.heard == [("failed", shown, "why")]


def test_a_ci_that_does_not_answer_in_time_is_told_to_stop() -> None:
    env, log = make_env(), Log()
    handouts = Handouts(env)
    number = handouts.hand_out(make_ci(), parcel(2.0), log)
    assert only(advance(env, 1.9), fx.CancelDelivery) == []
    assert only(advance(env, 0.2), fx.CancelDelivery) == [fx.CancelDelivery(number, "timeout")]
    assert [heard[:2] for heard in log.heard] == [("failed", "timeout")]
    assert len(env.deadlines) == 0


def test_a_withdrawn_message_is_cancelled_at_its_ci_only() -> None:
    env, log = make_env(), Log()
    handouts = Handouts(env)
    number = handouts.hand_out(make_ci(), parcel(), log)
    env.take()
    handouts.withdraw(number, "cancelled")
    handouts.withdraw(number, "cancelled")
    assert env.take() == [fx.CancelDelivery(number, "cancelled")]
    assert log.heard == []


@pytest.mark.hostile("inbox-flood")
def test_each_ci_has_a_bounded_inbox_of_its_own() -> None:
    handouts = Handouts(make_env(inbox_per_ci_max=2))
    numa, athena = make_ci("numa"), make_ci("athena")
    first = handouts.hand_out(numa, parcel(), Log())
    handouts.hand_out(numa, parcel(), Log())
    with pytest.raises(DeliveryError) as caught:
        handouts.hand_out(numa, parcel(), Log())
    assert caught.value.code.name == "busy"
    handouts.hand_out(athena, parcel(), Log())
    handouts.done(first, b"", "")
    handouts.hand_out(numa, parcel(), Log())
    assert len(handouts) == 3


@pytest.mark.parametrize(
    "ci",
    [make_ci(connection=None), make_ci(how={"kind": "none"})],
)
def test_a_ci_that_takes_no_messages_is_offline(ci: Ci) -> None:
    env = make_env()
    with pytest.raises(DeliveryError) as caught:
        Handouts(env).hand_out(ci, parcel(), Log())
    assert caught.value.code.name == "ci_offline"
    assert env.take() == []


def test_at_the_end_everyone_who_waits_is_told() -> None:
    env = make_env()
    handouts, logs = Handouts(env), [Log(), Log()]
    for log in logs:
        handouts.hand_out(make_ci(), parcel(), log)
    env.take()
    handouts.fail_all("leaving", "Bye.")
    assert len(env.take()) == 2
    assert [log.heard for log in logs] == [[("failed", "leaving", "Bye.")]] * 2


class Choking(Log):
    """A replier that cannot say what the CI said."""

    def __init__(self, error: MeshError) -> None:
        super().__init__()
        self.error = error

    def chunk(self, data: bytes) -> None:
        raise self.error

    def done(self, body: bytes, content_type: str) -> None:
        raise self.error

    def failed(self, code: str, detail: str) -> None:
        if detail == "unsayable":
            raise self.error
        super().failed(code, detail)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LocalError("no"), "ci_failed"),
        (LocalError("no", code="too_large"), "too_large"),
        (DeliveryError("no", code="busy"), "busy"),
    ],
)
def test_an_answer_that_cannot_be_sent_ends_its_delivery_alone(error: MeshError, code: str) -> None:
    env = make_env()
    handouts, log = Handouts(env), Choking(error)
    first, second = (handouts.hand_out(make_ci(), parcel(), log) for _ in range(2))
    env.take()
    handouts.chunk(first, b"a")
    assert env.take() == [fx.CancelDelivery(first, code)]
    handouts.done(second, b"b", "text/plain")
    assert log.heard == [("failed", code, "no")] * 2
    assert len(handouts) == 0


def test_a_failure_that_cannot_be_said_is_said_otherwise() -> None:
    handouts, log = Handouts(make_env()), Choking(LocalError("no"))
    handouts.failed(handouts.hand_out(make_ci(), parcel(), log), "refused", "unsayable")
    assert log.heard == [("failed", "ci_failed", "The CI's own words cannot be sent on.")]
