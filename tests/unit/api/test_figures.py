"""What the doors count."""

from __future__ import annotations

from tektonmesh.api.events import matches, wanted_kinds
from tektonmesh.api.figures import MESSAGES_KEPT, Figures
from tektonmesh.errors import DeliveryError


def test_only_messages_to_other_stacks_are_cross_stack() -> None:
    figures = Figures()
    figures.answered({"id": "1", "path": ["a"], "ms": 1.0}, 1.0, 2.0)
    figures.answered({"id": "2", "path": ["a", "b"], "ms": 20.0}, 1.0, 2.0)
    assert (figures.local, figures.remote, figures.cross_stack.count) == (1, 1, 1)


def test_a_message_keeps_its_history() -> None:
    figures = Figures()
    figures.answered({"id": "1", "path": ["a"], "ms": 1.0}, 1.0, 2.0)
    figures.answered({"id": "2", "accepted": True}, 1.0, 2.0)
    steps = [{"state": "accepted", "at": 1.0}, {"state": "answered", "at": 2.0}]
    assert figures.history("1") == {"id": "1", "state": "answered", "transitions": steps}
    steps = [{"state": "accepted", "at": 2.0}]
    assert figures.history("2") == {"id": "2", "state": "accepted", "transitions": steps}


def test_a_failure_is_counted_by_its_code_and_kept_if_it_names_its_message() -> None:
    figures = Figures()
    figures.failed(DeliveryError("No.", code="timeout", data={"id": "7"}), 2.0)
    figures.failed(DeliveryError("No.", code="timeout"), 2.0)
    assert figures.failures == {"timeout": 2}
    steps = [{"state": "failed", "at": 2.0}]
    assert figures.history("7") == {"id": "7", "state": "failed", "transitions": steps}


def test_only_the_newest_histories_are_kept() -> None:
    figures = Figures()
    for number in range(MESSAGES_KEPT + 1):
        figures.answered({"id": str(number), "path": ["a"], "ms": 1.0}, 1.0, 2.0)
    assert figures.history("0") is None
    assert figures.history("1") is not None


def test_a_kind_stands_for_its_family() -> None:
    assert matches("stack_up", [])
    assert matches("stack_up", ["stack"])
    assert matches("stack_up", ["ci", "stack_up"])
    assert not matches("stacks", ["stack"])
    assert wanted_kinds("stack, ci") == ["stack", "ci"]
    assert wanted_kinds(None) == []
