"""One stack with its evidence, in the shape that the doors show."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tektonmesh.api.http.schemas import SCHEMAS
from tektonmesh.core import events as ev
from tektonmesh.core.ids import show_id
from tektonmesh.core.messages import Delta
from tektonmesh.core.types import Status
from tektonmesh.core.views_explain import WHAT_MAX, explain
from tektonmesh.errors import DeliveryError
from tests.liveness import Stack, id_of, link_records
from tests.network import Network
from tests.support import WALL_S


def chain(*names: str, **settings: Any) -> Network:
    network = Network(*names, **settings)
    network.join(*names)
    return network


def explained(network: Network, here: str, name: str) -> dict[str, Any]:
    network.handle(network[here], ev.Tick())
    return explain(network[here].node, name)


def by_stack(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["stack"]: row for row in rows}


def test_an_explanation_is_json_and_has_every_key_of_its_schema() -> None:
    network = chain("a", "b", "c")
    shown = explained(network, "a", "c")
    assert json.loads(json.dumps(shown)) == shown
    schema = SCHEMAS["Explanation"]["properties"]
    assert set(shown) == set(schema)
    assert set(shown["signed"]) == set(schema["signed"]["properties"])
    for rows in ("links", "holders", "changes"):
        for row in shown[rows]:
            assert set(row) == set(schema[rows]["items"]["properties"])


def test_a_stack_can_be_named_by_its_id_and_one_that_is_not_known_is_not_found() -> None:
    network = chain("a", "b")
    assert explained(network, "a", show_id(id_of("b")))["name"] == "b"
    with pytest.raises(DeliveryError) as caught:
        explained(network, "a", "nobody")
    assert caught.value.code.name == "not_found"


def test_the_newest_head_is_shown_with_what_it_is_signed_under() -> None:
    network = chain("a", "b")
    network.run(20.0)
    held = network["a"].node.replica.owners[id_of("b")]
    shown = explained(network, "a", "b")["signed"]
    assert shown["version"] == list(held.version)
    assert shown["content_version"] == list(held.content_version)
    assert (shown["status"], shown["lease_s"]) == ("up", held.head.lease_s)
    assert shown["keydoc"] == held.keydoc_hash.hex() and shown["key_epoch"] == 0
    assert shown["instance"] == held.head.instance.hex()
    assert shown["records"] == len(held.records)
    assert shown["age_s"] >= shown["heard_s"] >= 20.0
    assert shown["at"] == pytest.approx(WALL_S + network.now - 1000.0 - shown["age_s"], abs=0.1)


def test_links_are_shown_as_both_ends_state_them() -> None:
    network = chain("a", "b", "c")
    links = by_stack(explained(network, "a", "b")["links"])
    assert set(links) == {"a", "c"}
    assert links["c"]["own"]["state"] == links["c"]["peer"]["state"] == "up"
    assert links["c"]["own"]["cost"] >= 1
    assert links["c"]["counts"] and not links["c"]["one_sided"]
    assert (links["c"]["lost"], links["c"]["lost_s"]) == (None, None)
    assert links["a"]["state"] == "self"


def test_a_link_that_one_end_withdrew_is_one_sided_and_says_since_when() -> None:
    network = chain("a", "b", "c")
    network.kill("c")
    network.run(3.0)
    (link,) = explained(network, "a", "c")["links"]
    assert link["stack"] == "b" and link["own"]["state"] == "up" and link["peer"] is None
    assert link["one_sided"] and not link["counts"]
    assert link["lost"] == "withdrawn" and link["lost_s"] == pytest.approx(2.0, abs=0.1)


def test_a_link_that_only_the_other_end_speaks_of_is_shown() -> None:
    network = chain("a", "b")
    node = network["a"].node
    for name, links in (("c", {"d": 5}), ("d", {})):
        records = {"stack/self": {"name": name}} | link_records(links)
        node.replica.apply(Stack(name).delta(records, node.clock.now_ms()), 0)
    (link,) = explained(network, "a", "d")["links"]
    assert (link["stack"], link["own"], link["peer"]["cost"]) == ("c", None, 5)
    assert link["one_sided"] and not link["counts"]


def test_a_link_of_ours_is_shown_before_the_other_end_publishes_it() -> None:
    network = Network("a", "b")
    network.passes = lambda _from, _to, message: not isinstance(message, Delta)
    network.join("a", "b")
    node = network["a"].node
    stack = Stack("b")
    node.replica.apply(stack.delta({"stack/self": {"name": "b"}}, node.clock.now_ms()), 0)
    (link,) = explained(network, "a", "b")["links"]
    assert link["stack"] == "a" and link["own"] is None and link["peer"] is not None
    assert link["one_sided"] and link["counts"], "our own eyes count"


def test_each_neighbour_is_shown_with_the_version_it_holds() -> None:
    network = chain("a", "b", "c")
    version = explained(network, "b", "c")["signed"]["version"]
    holders = by_stack(explained(network, "b", "c")["holders"])
    assert holders["a"] == {
        "stack": "a",
        "id": show_id(id_of("a")),
        "version": version,
        "is": "same",
    }


def test_a_neighbour_that_holds_another_version_is_compared_with_ours() -> None:
    """Within one turn, before the news go out to the link."""
    network = chain("a", "b")
    node = network["a"].node
    (link,) = node.neighbours.links
    stack, now_ms = Stack("z"), node.clock.now_ms()
    deltas = [stack.delta({"stack/self": {"name": "z", "n": n}}, now_ms) for n in range(2)]
    # Signed too far ahead to be taken, but the link has it.
    ahead = stack.delta({"stack/self": {"name": "z"}}, now_ms + 600_000)
    node.dissemination.on_delta(link, deltas[0])
    assert explain(node, "z")["holders"][0]["is"] == "same"
    node.replica.apply(deltas[1], 99)
    row = explain(node, "z")["holders"][0]
    assert (row["is"], row["version"]) == ("older", [0, 1, 1])
    node.dissemination.on_delta(link, ahead)
    row = explain(node, "z")["holders"][0]
    assert (row["is"], row["version"]) == ("newer", [0, 1, 3])


def test_what_a_new_neighbour_holds_is_unknown() -> None:
    network = chain("a", "b")
    network.add("c")
    network._join("a", "c")
    holders = {row["id"]: row for row in explain(network["a"].node, "b")["holders"]}
    row = holders[show_id(id_of("c"))]
    assert (row["is"], row["version"]) == ("unknown", None)


def test_changes_are_shown_with_names_and_evidence_the_newest_first() -> None:
    network = chain("a", "b", "c")
    network["c"].register("numa")
    network.settle()
    changes = explained(network, "a", "c")["changes"]
    newest = changes[0]
    assert (newest["kind"], newest["keys"], newest["what"]) == ("content", ["ci/numa"], "ci/numa")
    assert newest["from"] == "b"
    assert 0 <= newest["latency_ms"] < 1000
    assert newest["evidence"] == "signed with key epoch 0"
    assert newest["version"] == explained(network, "a", "c")["signed"]["version"]
    assert changes[-1]["kind"] == "new"
    assert "link to b" in [what for change in changes for what in change["what"].split(", ")]
    assert changes[0]["age_s"] <= changes[-1]["age_s"]


def test_the_own_changes_are_made_here() -> None:
    network = chain("a", "b")
    shown = explained(network, "a", "a")
    assert {change["evidence"] for change in shown["changes"]} == {"made here"}
    assert {change["from"] for change in shown["changes"]} == {None}
    assert shown["state"] == "self"


def test_only_the_first_records_of_a_change_are_named() -> None:
    network = chain("a", "b")
    node = network["a"].node
    records = {f"ci/{n}": {} for n in range(9)}
    node.replica.apply(Stack("z").delta(records, node.clock.now_ms()), 0)
    (change,) = explained(network, "a", show_id(id_of("z")))["changes"]
    assert change["what"] == "ci/0, ci/1, ci/2, ci/3, 5 more"
    assert len(change["what"].split(", ")) == WHAT_MAX + 1
    assert change["keys_total"] == 9


def test_the_evidence_of_an_end_and_of_a_contradiction_is_named() -> None:
    network = Network("a")
    network.settle()
    node = network["a"].node
    stack = Stack("z")
    node.replica.apply(stack.delta({"stack/self": {"name": "z"}}, node.clock.now_ms()), 0)
    stack.ver -= 1
    node.replica.apply(stack.delta({"ci/x": {}}, node.clock.now_ms()), 0)
    z = show_id(id_of("z"))
    shown = explained(network, "a", z)
    assert "equivocated" in shown["flags"]
    said = [change["evidence"] for change in shown["changes"] if change["kind"] == "flagged"]
    assert said == ["two heads of one version, both signed with key epoch 0"]
    network.run(400.0)
    shown = explained(network, "a", z)
    assert "expired" in shown["flags"]
    assert shown["changes"][0]["evidence"] == "the lease was over"


def test_what_sets_a_stack_apart_is_a_flag() -> None:
    network = Network("a")
    network.settle()
    node = network["a"].node
    node.replica.apply(Stack("z").delta({"stack/self": 5}, node.clock.now_ms()), 0)
    z = show_id(id_of("z"))
    explained(network, "a", z)
    assert explained(network, "a", z)["flags"] == ["quarantined"]
    node.replica.owners[id_of("z")].doubted = True
    assert explained(network, "a", z)["flags"] == ["quarantined", "doubted"]
    assert explained(network, "a", "a")["flags"] == []
    network.handle(network["a"], ev.WallClock(1.0))
    newest = node.replica.owners[id_of("a")].version
    node.owner.outbid(newest._replace(epoch=2**48 - 1))
    assert explained(network, "a", "a")["flags"] == ["fenced", "clock_alarm"]


def test_a_stack_that_left_says_so() -> None:
    network = Network("a")
    network.settle()
    node = network["a"].node
    left = Stack("z").delta({"stack/self": {"name": "z"}}, node.clock.now_ms(), Status.LEFT)
    node.replica.apply(left, 0)
    assert explained(network, "a", "z")["signed"]["status"] == "left"


def test_this_stack_can_be_asked_for_before_it_published() -> None:
    network = Network("a", seed_peers=("b:7700",))
    shown = explained(network, "a", show_id(id_of("a")))
    assert (shown["signed"], shown["changes"], shown["links"]) == (None, [], [])


def test_before_it_published_nobody_can_be_behind() -> None:
    network = Network("a", seed_peers=("b:7700",))
    b = network.add("b")
    network.passes = lambda _from, _to, message: not isinstance(message, Delta)
    network._join("b", "a")
    assert network["a"].node.neighbours.links and b.id
    shown = explained(network, "a", show_id(id_of("a")))
    assert [row["is"] for row in shown["holders"]] == ["unknown"]
