"""How the explanation of a message reads."""

from __future__ import annotations

from typing import Any

import pytest

from tektonmesh.cli.messages import show

ATTEMPT: dict[str, Any] = {
    "at": 1_750_000_000.0, "path": ["a", "b", "d"], "avoids": [], "fate": "settled",
    "after_ms": 4.0,
}  # fmt: skip
RECEIPT = {"hops": [{"stack": "a", "dwell_ms": 0}, {"stack": "b", "dwell_ms": 2}]}
ORIGIN: dict[str, Any] = {
    "attempts": [ATTEMPT, ATTEMPT | {"avoids": ["b"], "fate": "under way", "after_ms": None}],
    "to": "numa@d", "receipt": RECEIPT, "left_s": 300.0,
    "waits": {"for": "the reply", "why": "d has it.", "next_s": 3.0},
}  # fmt: skip


def shown(capsys: pytest.CaptureFixture[str], **found: Any) -> list[str]:
    show({"id": "00" * 16, "state": None, "transitions": []} | found)
    return capsys.readouterr().out.splitlines()


def test_at_its_origin_it_says_where_it_is_and_what_it_waits_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = shown(capsys, state="received", to="numa@d", origin=ORIGIN)
    assert lines[0] == "The message to numa@d is at its stack; it has 5 min left."
    assert lines[1] == "It waits for the reply. d has it. Next in 3 s."
    assert lines[2].startswith("It came there by a (0.0 ms), b (2.0 ms)")
    assert "a > b > d" in lines[5] and lines[5].endswith("settled after 4.0 ms")
    assert lines[6].split()[-3:] == ["b", "under", "way"]


def test_a_message_of_which_only_its_end_is_known_is_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = {"code": "expired", "detail": "Its time was over."}
    lines = shown(capsys, state="expired", error=error)
    assert lines == [
        "The message is expired: its time was over before its end.",
        "expired: Its time was over.",
    ]


def test_a_plain_message_that_is_under_way_is_on_its_way(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = shown(capsys, origin=ORIGIN | {"attempts": [], "receipt": None, "waits": None})
    assert lines == ["The message to numa@d is on its way; it has 5 min left."]


@pytest.mark.parametrize(
    ("more", "first"),
    [
        ({}, "Here it is in the hands of its CI; it is from west."),
        ({"attempt": 2}, "Here it is in the hands of its CI; it is from west, given to its CI 2 "
         "times before."),
        ({"attempt": 2, "losses": 1}, "Here it is in the hands of its CI; it is from west, given "
         "to its CI 2 times before and lost 1."),
    ],
)  # fmt: skip
def test_at_its_destination_it_says_what_its_ci_does(
    capsys: pytest.CaptureFixture[str], more: dict[str, Any], first: str
) -> None:
    waits = {"for": "the answer", "why": "It is in the hands of its CI.", "next_s": None}
    there = {"stage": "leased", "from": "west", "waits": waits, "receipt": None, "answer": None}
    assert shown(capsys, destination=there | more)[0] == first


@pytest.mark.parametrize(("copies", "words"), [(1, "1 time."), (3, "3 times.")])
def test_an_answer_that_is_not_confirmed_is_counted(
    capsys: pytest.CaptureFixture[str], copies: int, words: str
) -> None:
    there = {"stage": "answered", "from": "west", "waits": None, "receipt": RECEIPT,
             "answer": {"copies": copies, "attempts": []}}  # fmt: skip
    lines = shown(capsys, destination=there)
    assert lines[1].startswith("It came by a")
    assert lines[2] == f"Its answer left {words}"


def test_at_a_relay_it_says_between_whom(capsys: pytest.CaptureFixture[str]) -> None:
    waits = {"for": "the settlement", "why": "d has it.", "next_s": None}
    relayed = [{"from": "a", "to": "d", "via": "d", "waits": waits}]
    assert shown(capsys, relay=relayed) == [
        "Passes here from a to d, by d.",
        "It waits for the settlement. d has it.",
    ]
