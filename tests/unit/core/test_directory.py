"""The index of words, over the records of others."""

from typing import Any

from tektonmesh.core import events as ev
from tektonmesh.core.selectors import parse_selector
from tests.network import Member, Network


def found(member: Member, target: str) -> list[tuple[str, bool]]:
    """Who fits, as the node of `member` sees it."""
    names, listed = member.node.names, member.node.choosing.directory.find(parse_selector(target))
    return [(f"{one.ci}@{names.label(one.stack)}", one.is_up) for one in listed]


def pair(**changes: Any) -> tuple[Network, Member, Member]:
    network = Network("a", "b")
    network.join("a", "b")
    network["b"].register("Numa", **changes)
    network.run(1.0)
    return network, network["a"], network["b"]


def test_a_ci_is_found_by_each_of_its_words_and_by_its_name() -> None:
    _, a, _ = pair(specialties=["Vision", "nlp"], capabilities=["ocr"], teams=["Red"])
    for target in ("specialty:vision", "specialty:NLP", "capability:ocr", "team:red", "ci:numa@*"):
        assert found(a, target) == [("numa@b", True)], target
    assert found(a, "specialty:ocr") == found(a, "team:vision") == []


def test_the_cis_of_this_stack_come_first_private_ones_too() -> None:
    _, a, _ = pair(teams=["red"])
    a.register("zoe", teams=["red"], share="private")
    assert found(a, "team:red") == [("zoe@a", True), ("numa@b", True)]


def test_a_private_ci_of_another_stack_is_not_found() -> None:
    _, a, _ = pair(teams=["red"], share="private")
    assert found(a, "team:red") == []


def test_a_ci_whose_words_change_is_found_by_the_new_ones_only() -> None:
    network, a, b = pair(teams=["red"])
    assert found(a, "team:red") == [("numa@b", True)]
    b.register("Numa", teams=["blue"])
    network.run(1.0)
    assert found(a, "team:red") == []
    assert found(a, "team:blue") == [("numa@b", True)]


def test_a_stack_that_left_is_found_no_more() -> None:
    network, a, b = pair(teams=["red"])
    assert found(a, "team:red")
    b.do(ev.Leave)
    network.run(1.0)
    assert found(a, "team:red") == []


def test_a_stack_that_comes_later_is_found() -> None:
    network, a, _ = pair(teams=["red"])
    assert len(found(a, "team:red")) == 1
    network.add("c")
    network.join("b", "c")
    network["c"].register("iris", teams=["red"])
    network.run(1.0)
    assert found(a, "team:red") == [("numa@b", True), ("iris@c", True)]


def test_records_that_make_no_sense_are_passed_over() -> None:
    network, a, b = pair(teams=["red"])
    for key, value in (
        ("ci/odd", {"name": "odd", "state": "up", "teams": "red", "specialties": [7, None]}),
        ("ci/other", {"name": "numa", "state": "up", "teams": ["red"]}),
        ("ci/NAMED", {"name": "NAMED", "state": "up", "teams": ["red"]}),
        ("ci/none", {"state": "up", "teams": ["red"]}),
    ):
        b.node.owner.put(key, value)
    network.handle(b, ev.Tick())
    network.run(2.0)
    assert found(a, "team:red") == [("numa@b", True)]
    assert found(a, "ci:odd@*") == [("odd@b", True)]
