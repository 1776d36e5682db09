from tektonmesh.core.dedup import ANSWER_OVERHEAD, ANSWERS_SIZE_MAX, Dedup
from tektonmesh.core.envelope import Kind
from tektonmesh.core.streams import StreamOut
from tests.support import make_env

SOURCE = bytes(32)


def key(n: int) -> tuple[bytes, bytes]:
    return SOURCE, n.to_bytes(16)


def test_a_message_is_known_until_its_time_is_over() -> None:
    env = make_env(dedup_keep_s=100.0)
    dedup = Dedup(env)
    row = dedup.add(key(1), 5.0)
    env.now += 104.0
    dedup.add(key(2), 5.0)
    assert dedup.get(key(1)) is row
    env.now += 2.0
    dedup.add(key(3), 5.0)
    assert dedup.get(key(1)) is None
    assert len(dedup) == 2


def test_the_number_of_rows_is_bounded() -> None:
    dedup = Dedup(make_env(dedup_max=3))
    for n in range(5):
        dedup.add(key(n), 5.0)
    assert [dedup.get(key(n)) is not None for n in range(5)] == [False, False, True, True, True]


def test_the_same_id_of_two_sources_is_two_messages() -> None:
    dedup = Dedup(make_env())
    dedup.add((bytes(32), bytes(16)), 5.0)
    assert dedup.get((bytes([1]) * 32, bytes(16))) is None


def test_an_answer_is_kept_with_what_was_streamed_before_it() -> None:
    dedup = Dedup(make_env())
    row, out = dedup.add(key(1), 5.0), StreamOut(live=True)
    dedup.answer(row, Kind.NACK, {"code": "busy"}, out)
    assert (row.kind, row.body, row.stream) == (Kind.NACK, {"code": "busy"}, out)


def test_old_answers_make_room_and_their_rows_stay() -> None:
    dedup = Dedup(make_env())
    size = ANSWERS_SIZE_MAX // 2 - ANSWER_OVERHEAD
    rows = []
    for n in range(3):
        rows.append(dedup.add(key(n), 5.0))
        dedup.answer(rows[-1], Kind.REPLY, {"body": bytes(size)}, None)
    assert [row.body is not None for row in rows] == [False, True, True]
    assert dedup.get(key(0)) is rows[0]


def test_the_answers_of_expired_rows_free_their_room() -> None:
    env = make_env(dedup_keep_s=10.0)
    dedup = Dedup(env)
    size = ANSWERS_SIZE_MAX // 2 - ANSWER_OVERHEAD
    for n in range(4):
        first, second = dedup.add(key(3 * n), 0.0), dedup.add(key(3 * n + 1), 0.0)
        dedup.answer(first, Kind.REPLY, {"body": bytes(size)}, None)
        dedup.answer(second, Kind.REPLY, {"body": bytes(size)}, None)
        assert first.body is not None
        env.now += 11.0
        dedup.add(key(3 * n + 2), 0.0)
        assert first.body is None and second.body is None


class Waiting:
    """An asker that hears nothing."""

    trace = b""

    def receipt(self) -> None: ...

    def resend(self, offset: int) -> None: ...

    def abandon(self) -> None: ...


def test_a_source_that_floods_forgets_its_own_messages_only() -> None:
    dedup = Dedup(make_env(dedup_max=10))
    others = [(bytes([n]) * 32, bytes(16)) for n in range(1, 4)]
    rows = [dedup.add(other, 5.0) for other in others]
    for n in range(100):
        dedup.add(key(n), 5.0)
    assert [dedup.get(other) for other in others] == rows
    assert len(dedup) == 10
    assert dedup.get(key(99)) is not None and dedup.get(key(0)) is None


def test_a_message_in_the_hands_of_a_ci_is_never_forgotten() -> None:
    dedup = Dedup(make_env(dedup_max=3))
    rows = []
    for n in range(5):
        rows.append(dedup.add(key(n), 5.0))
        dedup.deliver(rows[-1], Waiting(), n)
    assert [dedup.get(key(n)) for n in range(5)] == rows
    dedup.answer(rows[0], Kind.REPLY, {"body": b"x"}, None)
    dedup.cancel(rows[1])
    dedup.add(key(5), 5.0)
    assert [dedup.get(key(n)) is not None for n in range(6)] == [False, False, *[True] * 4]
