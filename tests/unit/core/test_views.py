"""What a node shows of itself, in the shapes of the contract."""

import json
import random
from typing import Any

import pytest

from tektonmesh.core import events as ev
from tektonmesh.core import views
from tektonmesh.core.effects import Answer, Save
from tektonmesh.core.ids import show_id, suffix_of
from tektonmesh.core.messages import Pong, Vector, VectorEntry
from tektonmesh.core.node import Node
from tektonmesh.core.types import NodeSettings, Status, Version
from tektonmesh.errors import DeliveryError, LocalError
from tektonmesh.wire.codec import Codec
from tests.liveness import Stack, id_of, link_records, pings
from tests.support import MESH_KEY, WALL_S, make_keys, number_of

SPEC = {
    "type": "specialist",
    "specialties": ["data"],
    "capabilities": ["code-review"],
    "share": "public",
    "persist": True,
    "lease_s": None,
    "description": "Knows every table.",
    "stream": True,
    "how": {"kind": "http", "url": "http://127.0.0.1:1/secret", "format": "json_simple"},
    "metadata": {"path": "/home/secret"},
    "via": "cli",
}


class Shown:
    """A started node of stack a, what it is told, and an hour hand."""

    def __init__(self, **settings: Any) -> None:
        keys, identity = make_keys(number_of("a"), name="a")
        self.now = 1000.0
        self.stacks: dict[str, Stack] = {}
        self.node = Node(
            identity,
            NodeSettings(mesh_keys=(MESH_KEY,), listen=("10.0.0.1:7700",), **settings),
            crypto=keys,
            codec=Codec(),
            chance=random.Random(1),
            saved={},
            now=self.now,
            wall_s=WALL_S,
        )
        self.link = 0
        for effect in self.node.start(self.now):
            if isinstance(effect, Save) and effect.ticket is not None:
                self.handle(ev.Saved(effect.ticket))

    def handle(self, event: ev.Event) -> list[Any]:
        return list(self.node.handle(event, self.now))

    def publish(
        self,
        name: str,
        links: dict[str, Any] | None = None,
        /,
        *,
        cis: tuple[dict[str, Any], ...] = (),
        status: Status = Status.UP,
        **own: Any,
    ) -> None:
        about = {"name": name, "version": "9.9"} | own
        records: dict[str, Any] = {"stack/self": about} | link_records(links or {})
        for ci in cis:
            records[f"ci/{str(ci['name']).lower()}"] = ci
        stack = self.stacks.setdefault(name, Stack(name))
        self.node.replica.apply(stack.delta(records, self.node.clock.now_ms(), status), 0)

    def link_up(self, name: str, rtt_s: float = 0.004) -> int:
        self.link += 1
        _keys, identity = make_keys(number_of(name), name=name)
        address = f"{name}:7700"
        event = ev.LinkUp(
            self.link, identity.stack_id, name, identity.keydoc, b"run 1", (), address, True
        )
        (ping,) = pings(self.handle(event), self.link)
        self.now += rtt_s
        self.handle(ev.Received(self.link, (Pong(ping.nonce, ping.mesh_ms),)))
        return self.link

    def register(self, name: str, **changes: Any) -> None:
        spec = SPEC | {"name": name} | changes
        effects = self.handle(ev.RegisterCi(1, spec, None, None, True))
        assert any(isinstance(effect, Answer) for effect in effects)

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while self.node.deadline <= end:
            self.now = max(self.now, self.node.deadline)
            self.handle(ev.Tick())
        self.now = end
        self.handle(ev.Tick())


def ci(name: str, **changes: Any) -> dict[str, Any]:
    kept = ("type", "specialties", "capabilities", "share", "description", "stream")
    return {"name": name, "state": "up"} | {key: SPEC[key] for key in kept} | changes


def chain() -> Shown:
    """a, linked to b, which is linked to c; b and c have a CI each."""
    shown = Shown()
    shown.publish("c", {"b": 10}, cis=(ci("athena", specialties=["vision"]),))
    shown.publish("b", {"a": 6, "c": 10}, cis=(ci("Apollo"),))
    shown.link_up("b")
    return shown


def stack_of(shown: Shown, name: str) -> dict[str, Any]:
    (row,) = [row for row in views.stacks(shown.node) if row["name"] == name]
    return row


# --- status --------------------------------------------------------------------------------------


def test_status_has_the_shape_of_the_contract() -> None:
    shown = chain()
    shown.register("numa")
    shown.pass_time(0.5)
    status = views.status(shown.node)
    assert status["name"] == "a"
    assert status["id"] == show_id(id_of("a"))
    assert status["mesh"] == "test"
    assert isinstance(status["version"], str)
    assert status["uptime_s"] == pytest.approx(0.504)
    assert status["listen"] == ["10.0.0.1:7700"]
    assert status["stacks"] == {"up": 2, "unreachable": 0}
    assert status["cis"] == {"local": 1, "remote": 2}
    assert status["queues"] == {
        "forwarding_bytes": 0,
        "requests": 0,
        "deliveries": 0,
        "reply_bytes": 0,
        "outbox": 0,
        "outbox_bytes": 0,
        "inbox": 0,
        "inbox_bytes": 0,
        "answers": 0,
        "parked": 0,
        "parked_bytes": 0,
        "dead_letters": 0,
        "blobs_lacking": 0,
        "bodies_coming": 0,
        "bodies_lacking_bytes": 0,
    }
    assert len(status["fingerprint"]) == 32
    assert status["share_default"] == "public"
    assert status["local_health"] == 0.0
    assert status["clock_alarm"] is False


def test_status_shows_each_link() -> None:
    shown = chain()
    shown.pass_time(0.5)
    (link,) = views.status(shown.node)["links"]
    assert link == {
        "stack": "b",
        "id": show_id(id_of("b")),
        "rtt_ms": 4.0,
        "since_s": 0.504,
        "outbound": True,
        "state": "up",
        "address": "b:7700",
    }


def test_status_says_with_whom_we_are_not_converged() -> None:
    shown = Shown()
    assert views.status(shown.node)["converged"] is True
    shown.publish("b")
    link = shown.link_up("b")
    shown.node.antientropy.on_fingerprint(link, bytes(range(16)))
    status = views.status(shown.node)
    assert status["converged"] is False
    assert status["diverged"] == ["b"]
    (gap,) = status["divergence"]
    assert gap == {"stack": "b", "id": show_id(id_of("b")), "owners": None, "since_s": 0.004}


def test_status_says_by_how_much_we_are_not_converged_and_since_when() -> None:
    shown = Shown()
    shown.publish("b")
    link = shown.link_up("b")
    theirs = VectorEntry(id_of("c"), Version(0, 1, 1), 1, 0, bytes(8))
    shown.handle(ev.Received(link, (Vector((), (theirs,), False, False),)))
    shown.pass_time(0.5)
    (gap,) = views.status(shown.node)["divergence"]
    assert (gap["stack"], gap["owners"], gap["since_s"]) == ("b", 1, 0.504)


def test_status_shows_what_the_registry_counts() -> None:
    shown = chain()
    shown.pass_time(0.5)
    registry = views.status(shown.node)["registry"]
    assert (registry["heads_in"], registry["heads_applied"]) == (2, 2)
    assert registry["messages_out"]["Ping"] >= 1
    assert registry["queued_owners"] == 0
    shown.publish("z")
    assert views.status(shown.node)["registry"]["queued_owners"] == 1


def test_status_counts_the_unreachable_apart() -> None:
    shown = chain()
    shown.publish("z")
    assert views.status(shown.node)["stacks"] == {"up": 2, "unreachable": 1}


def test_status_can_be_asked_before_the_first_publish() -> None:
    keys, identity = make_keys(1, name="a")
    node = Node(
        identity,
        NodeSettings(),
        crypto=keys,
        codec=Codec(),
        chance=random.Random(1),
        saved={},
        now=0.0,
        wall_s=WALL_S,
    )
    assert views.status(node)["version"] == ""
    (row,) = views.stacks(node)
    assert row["state"] == "self"
    assert row["lease_left_s"] == 0.0


# --- stacks --------------------------------------------------------------------------------------


def test_stacks_lists_this_one_first_then_the_others_by_name() -> None:
    shown = chain()
    rows = views.stacks(shown.node)
    assert [row["name"] for row in rows] == ["a", "b", "c"]
    assert [row["state"] for row in rows] == ["self", "up", "up"]


def test_a_stack_is_shown_with_path_round_trip_lease_and_what_its_cis_can() -> None:
    row = stack_of(chain(), "c")
    assert row["path"] == ["a", "b", "c"]
    # The costs are 8 (5 ms bucket of 4 ms measured, and 6 told) and 10, with 2 for each hop.
    assert row["rtt_ms"] == 13.0
    assert 290.0 < row["lease_left_s"] <= 300.0
    assert row["version"] == "9.9"
    assert row["cis"] == 1
    assert row["specialties"] == ["vision"]
    assert row["capabilities"] == ["code-review"]
    assert row["id"] == show_id(id_of("c"))


def test_a_neighbours_round_trip_is_the_measured_one() -> None:
    assert stack_of(chain(), "b")["rtt_ms"] == 4.0


def test_a_stacks_own_specialties_count_and_nonsense_in_them_does_not() -> None:
    shown = Shown()
    shown.publish("b", specialties=["nlp", 5, "nlp"], version="1.0")
    assert stack_of(shown, "b")["specialties"] == ["nlp"]
    shown.publish("b", specialties="nlp")
    assert stack_of(shown, "b")["specialties"] == []


def test_a_stack_without_a_path_has_an_empty_one_and_no_round_trip() -> None:
    shown = Shown()
    shown.publish("z")
    row = stack_of(shown, "z")
    assert row["state"] == "unreachable"
    assert row["path"] == []
    assert row["rtt_ms"] is None


def test_stacks_that_left_or_expired_are_listed_with_their_state() -> None:
    shown = Shown()
    shown.publish("b", status=Status.LEFT)
    shown.publish("c")
    assert stack_of(shown, "b")["state"] == "left"
    shown.pass_time(400.0)
    assert stack_of(shown, "c")["state"] == "deregistered"
    assert stack_of(shown, "c")["lease_left_s"] == 0.0


def test_a_large_mesh_is_listed_with_the_paths_of_a_small_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = chain()
    small = views.stacks(shown.node)
    monkeypatch.setattr(views, "TABLES_MAX", 2)
    assert views.stacks(shown.node) == small
    assert [row["path"] for row in small] == [["a"], ["a", "b"], ["a", "b", "c"]]
    assert views.stack(shown.node, id_of("c")) == small[2]


def test_this_stack_shows_itself() -> None:
    shown = Shown()
    shown.register("numa")
    shown.pass_time(0.5)
    row = stack_of(shown, "a")
    assert row["path"] == ["a"]
    assert row["rtt_ms"] == 0.0
    assert row["cis"] == 1
    assert row["lease_left_s"] > 0.0


def test_each_stack_says_why_it_is_in_its_state_and_how_many_can_tell() -> None:
    shown = chain()
    row = stack_of(shown, "c")
    assert row["observers"] == 1
    assert "Only b is linked to it" in row["why"]
    assert stack_of(shown, "b")["observers"] == 2
    assert all(row["why"].endswith(".") for row in views.stacks(shown.node))


# --- cis -----------------------------------------------------------------------------------------


def addresses(shown: Shown, **filters: Any) -> list[str]:
    return [row["address"] for row in views.cis(shown.node, **filters)]


def test_cis_lists_local_and_remote_ones_by_address() -> None:
    shown = chain()
    shown.register("Numa")
    assert addresses(shown) == ["Numa@a", "Apollo@b", "athena@c"]


def test_a_ci_is_shown_without_anything_that_stays_local() -> None:
    shown = Shown()
    shown.register("numa")
    (row,) = views.cis(shown.node)
    assert row == {
        "address": "numa@a",
        "name": "numa",
        "stack": "a",
        "type": "specialist",
        "state": "up",
        "local": True,
        "specialties": ["data"],
        "capabilities": ["code-review"],
        "share": "public",
    }


def test_private_cis_are_shown_to_their_own_stack() -> None:
    shown = Shown()
    shown.register("diary", share="private")
    assert addresses(shown) == ["diary@a"]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"stack": "b"}, ["Apollo@b"]),
        ({"specialty": "Vision"}, ["athena@c"]),
        ({"capability": "code-review"}, ["numa@a", "Apollo@b", "athena@c"]),
        ({"capability": "cooking"}, []),
        ({"type_": "SPECIALIST"}, ["numa@a", "Apollo@b", "athena@c"]),
        ({"type_": "terminal"}, []),
        ({"state": "up"}, ["numa@a", "Apollo@b", "athena@c"]),
        ({"state": "offline"}, []),
        ({"local": True}, ["numa@a"]),
        ({"local": False}, ["Apollo@b", "athena@c"]),
        ({"local": False, "specialty": "data"}, ["Apollo@b"]),
    ],
)
def test_cis_can_be_filtered(filters: dict[str, Any], found: list[str]) -> None:
    shown = chain()
    shown.register("numa")
    assert addresses(shown, **filters) == found


def test_a_filter_for_an_unknown_stack_is_an_error() -> None:
    with pytest.raises(DeliveryError):
        views.cis(Shown().node, stack="nowhere")


def test_cis_of_an_unreachable_stack_are_shown_as_unreachable() -> None:
    shown = chain()
    shown.publish("b", {"a": 6}, cis=(ci("Apollo"),))
    assert [row["state"] for row in views.cis(shown.node, stack="c")] == ["unreachable"]


def test_cis_of_a_stack_that_is_gone_are_gone() -> None:
    shown = chain()
    shown.publish("c", cis=(ci("athena"),), status=Status.LEFT)
    assert addresses(shown) == ["Apollo@b"]


def test_a_remote_ci_is_offline_when_it_does_not_say_that_it_is_up() -> None:
    shown = Shown()
    shown.publish("b", {"a": 6}, cis=(ci("one", state="offline"), ci("two", state=5)))
    shown.link_up("b")
    assert [row["state"] for row in views.cis(shown.node)] == ["offline", "offline"]


def test_a_record_that_shows_another_name_than_its_key_is_passed_over() -> None:
    shown = Shown()
    shown.publish("b", {"a": 6}, cis=(ci("numa"),))
    stack = shown.stacks["b"]
    odd = {"ci/numa": ci("root"), "ci/x": {"name": 5}, "ci/a..b@c": ci("a..b@c")}
    told = {"stack/self": {"name": "b"}} | odd
    shown.node.replica.apply(stack.delta(told, shown.node.clock.now_ms()), 0)
    assert addresses(shown) == []


def test_nonsense_in_a_record_is_shown_as_nothing() -> None:
    shown = Shown()
    shown.publish("b", {"a": 6}, cis=({"name": "numa", "type": 7, "specialties": {"x": 1}},))
    (row,) = views.cis(shown.node)
    assert (row["type"], row["specialties"], row["share"]) == ("", [], "")


# --- one CI --------------------------------------------------------------------------------------


def test_a_record_adds_description_and_path() -> None:
    shown = chain()
    row = views.record(shown.node, "ATHENA@c")
    assert row["address"] == "athena@c"
    assert row["description"] == "Knows every table."
    assert row["stream"] is True
    assert row["stack_state"] == "up"
    assert row["path"] == ["a", "b", "c"]
    assert row["stack_id"] == show_id(id_of("c"))


def test_a_bare_name_is_a_local_record() -> None:
    shown = Shown()
    shown.register("numa")
    row = views.record(shown.node, "numa")
    assert row["local"] is True
    assert "secret" not in str(row)


@pytest.mark.parametrize("address", ["nobody", "nobody@b", "@b"])
def test_a_ci_that_is_not_known_is_not_found(address: str) -> None:
    with pytest.raises(LocalError) as caught:
        views.record(chain().node, address)
    assert caught.value.code.name == "not_found"


# --- find ----------------------------------------------------------------------------------------


def found(shown: Shown, *words: str) -> list[str]:
    return [row.get("address", row["name"]) for row in views.find(shown.node, list(words))]


def test_names_are_found_before_specialties_before_descriptions() -> None:
    shown = Shown()
    shown.register("tables", specialties=[], capabilities=[])
    shown.register("one", specialties=["tables"])
    shown.register("two", description="Sets tables.")
    shown.register("tablesaw", description="")
    assert found(shown, "Tables") == ["tables@a", "one@a", "tablesaw@a", "two@a"]


def test_every_word_must_occur() -> None:
    shown = chain()
    assert found(shown, "vision", "table") == ["athena@c"]
    assert found(shown, "vision", "cooking") == []
    assert found(shown) == []
    assert found(shown, "") == []


def test_stacks_are_found_too() -> None:
    shown = Shown()
    shown.publish("b", name="westwood", specialties=["forestry"])
    shown.publish("c", name="westgate", status=Status.LEFT)
    assert found(shown, "west") == ["westwood"]
    (row,) = views.find(shown.node, ["forestry"])
    assert (row["name"], row["state"]) == ("westwood", "unreachable")


def test_what_is_found_carries_its_description_and_score() -> None:
    (row, *_rest) = views.find(chain().node, ["athena"])
    assert row["description"] == "Knows every table."
    assert row["score"] > 0


# --- route ---------------------------------------------------------------------------------------


def test_a_route_names_the_next_hops_and_why_others_are_none() -> None:
    shown = chain()
    shown.publish("d", {"a": 6, "c": 10}, relay="none")
    shown.link_up("d")
    shown.publish("e", {"a": 6})
    shown.link_up("e")
    shown.link_up("f")
    route = views.route(shown.node, "athena@c")
    assert route["stack"] == "c"
    assert route["ci"] == "athena"
    assert route["state"] == "up"
    assert route["path"] == ["a", "b", "c"]
    assert route["cost"] == 17
    assert route["candidates"] == [{"stack": "b", "cost": 17, "rtt_ms": 4.0}]
    unknown = f"unknown~{suffix_of(id_of('f'))}"
    assert {row["stack"]: row["why"] for row in route["rejected"]} == {
        "d": "It does not relay for others.",
        "e": "No path leads on from it.",
        unknown: "Its records are not here, or its lease is over.",
    }


def test_a_suspect_link_is_rejected_as_such() -> None:
    shown = chain()
    shown.pass_time(1.6)
    route = views.route(shown.node, "@c")
    assert route["candidates"] == []
    assert route["rejected"] == [{"stack": "b", "why": "Its link is suspect."}]
    assert route["cost"] is None


def test_a_bare_name_may_be_a_stack_unless_a_local_ci_has_it() -> None:
    shown = chain()
    assert views.route(shown.node, "c")["stack"] == "c"
    shown.register("c")
    route = views.route(shown.node, "c")
    assert (route["stack"], route["ci"]) == ("a", "c")
    assert route["path"] == ["a"]
    assert route["rejected"] == [{"stack": "b", "why": "The target is on this stack."}]


def test_a_bare_name_that_is_nothing_else_is_a_local_ci() -> None:
    assert views.route(chain().node, "nobody")["ci"] == "nobody"


def test_an_ambiguous_stack_is_refused() -> None:
    shown = Shown()
    shown.publish("b", name="west.one")
    shown.publish("c", name="west.two")
    with pytest.raises(DeliveryError) as caught:
        views.route(shown.node, "west")
    assert caught.value.code.name == "ambiguous"


@pytest.mark.parametrize(
    ("said", "version", "since"),
    [
        ({"version": b"\xff", "since": {"x": b"1"}}, "", None),
        ({"version": 7, "since": True}, "", None),
        ({"version": "9\x1b[2J.\n1" + "x" * 99, "since": -1}, "9[2J.1" + "x" * 56, None),
        ({"version": "9.1", "since": 2**60}, "9.1", None),
        ({"version": "9.1", "since": 1_750_000_000}, "9.1", 1_750_000_000),
    ],
)
def test_what_a_stack_says_of_its_version_and_start_is_shown_only_if_it_can_be(
    said: dict[str, Any], version: str, since: int | None
) -> None:
    shown = Shown()
    shown.publish("b", **said)
    row = views.stacks(shown.node)[1]
    assert (row["version"], row["since"]) == (version, since)
    json.dumps(views.stacks(shown.node))
