"""One message to a whole team, between real nodes."""

from typing import Any

from tektonmesh.core import events as ev
from tektonmesh.core.messages import Forward, Message, Spread
from tektonmesh.core.multicast import BODIES_MAX
from tests.network import Member, Network


def tree() -> Network:
    """a - m - {b, c}, a - d; a CI of the team red on each but m, and one more on c."""
    network = Network("a", "m", "b", "c", "d")
    network.join("a", "m", "b")
    network.join("m", "c")
    network.join("a", "d")
    for name in "abcd":
        network[name].register(f"red-{name}", teams=["red"])
        network[name].echo()
    network["c"].register("second", teams=["red"])
    network.run(2.0)
    return network


def ask(network: Network, **more: Any) -> dict[str, Any]:
    ticket = network["a"].send("team:red", **more)
    network.run(1.0)
    return network["a"].result(ticket)


def rows(result: dict[str, Any]) -> list[tuple[str, bool]]:
    return [(row["to"], row["ok"]) for row in result["targets"]]


ALL = ["red-a@a", "red-b@b", "red-c@c", "red-d@d", "second@c"]


def test_every_member_gets_it_and_the_answer_has_a_row_for_each() -> None:
    network = tree()
    result = ask(network, body=b"all hands")
    assert rows(result) == [(to, True) for to in ALL]
    assert {row["body"] for row in result["targets"]} == {b"all hands"}
    assert (result["to"], result["from"]) == ("team:red", "a")
    assert (result["answered"], result["failed"]) == (5, 0)
    paths = {row["to"]: row["path"] for row in result["targets"]}
    assert paths["red-c@c"] == ["a", "m", "c"] and paths["red-a@a"] == ["a"]
    assert len(network["a"].node.choosing.multicast) == 0
    assert network["a"].node.deliveries.outcomes.takers == {}


def test_the_sender_gets_no_copy_of_its_own() -> None:
    network = tree()
    result = ask(network, sender="red-a")
    assert [to for to, _ in rows(result)] == ALL[1:]
    assert network["b"].deliveries()[0].sender == "red-a@a"


def test_the_body_crosses_a_link_once_and_splits_where_the_paths_part() -> None:
    network = tree()
    secret = b"the text of all" * 1000
    carried: list[tuple[str, str, type, int]] = []

    def look(here: str, there: str, message: Message) -> None:
        if isinstance(message, Spread):
            carried.append((here, there, Spread, len(message.seqs)))
            assert secret not in message.shared
        elif isinstance(message, Forward) and len(message.envelope) > len(secret):
            carried.append((here, there, Forward, 1))
            assert secret not in message.envelope

    network.on_message = look
    ticket = network["a"].send("team:red", secret, no_reply=True)
    network.run(1.0)
    assert all(ok for _, ok in rows(network["a"].result(ticket)))
    assert sorted(carried, key=str) == [
        ("a", "d", Forward, 1),
        ("a", "m", Spread, 3),
        ("m", "b", Forward, 1),
        ("m", "c", Spread, 2),
    ]


def test_members_that_cannot_be_had_fail_alone_and_say_why() -> None:
    network = tree()
    network["b"].node.cis._cis.clear()
    network["d"].on_deliver = lambda d: network["d"].fail(d, "ci_failed", "no")
    result = ask(network)
    assert rows(result) == [(to, to not in ("red-b@b", "red-d@d")) for to in ALL]
    codes = {row["to"]: row["error"]["code"] for row in result["targets"] if not row["ok"]}
    assert codes == {"red-b@b": "not_found", "red-d@d": "ci_failed"}
    assert (result["answered"], result["failed"]) == (3, 2)


def test_a_member_that_does_not_answer_fails_at_the_deadline_of_all() -> None:
    network = tree()
    network["d"].on_deliver = None
    a = network["a"]
    ticket = a.send("team:red", timeout_s=5.0)
    network.run(4.5)
    assert a.answer(ticket) is None
    network.run(1.0)
    assert dict(rows(a.result(ticket)))["red-d@d"] is False
    assert a.result(ticket)["answered"] == 4


def test_a_lost_copy_is_sent_again_alone() -> None:
    network = tree()
    lost: list[str] = []

    def passes(here: str, there: str, message: Message) -> bool:
        if (here, there) == ("m", "b") and isinstance(message, Forward) and not lost:
            lost.append(there)
            return False
        return True

    network.passes = passes
    ticket = network["a"].send("team:red", timeout_s=20.0)
    network.run(15.0)
    assert lost == ["b"]
    assert rows(network["a"].result(ticket)) == [(to, True) for to in ALL]
    assert len(network["b"].deliveries()) == len(network["d"].deliveries()) == 1


def test_a_cancelled_message_is_cancelled_at_every_member() -> None:
    network = tree()
    for name in "abcd":
        network[name].on_deliver = None
    a = network["a"]
    ticket = a.send("team:red")
    network.run(0.5)
    network.handle(a, ev.CancelCommand(ticket))
    network.run(0.5)
    assert {row["error"]["code"] for row in a.result(ticket)["targets"]} == {"cancelled"}
    for name in "abcd":
        assert network[name].node.deliveries.open == 0
    assert a.node.requests.pending == 0


def test_replies_too_long_together_are_left_out_and_said_so() -> None:
    network = tree()
    half = bytes(BODIES_MAX // 2 - 5)
    for name in "abcd":
        network[name].on_deliver = lambda d, n=name: network[n].reply(d, half)
    result = ask(network)
    kept = [row for row in result["targets"] if "body" in row]
    left = [row for row in result["targets"] if "omitted" in row]
    assert (len(kept), len(left)) == (2, 3)
    assert all(row["omitted"] == len(half) and row["ok"] for row in left)


def test_a_team_cannot_be_streamed_is_known_and_is_not_too_large() -> None:
    network = Network("a")
    a = network["a"]
    assert a.error(a.send("team:red"))["code"] == "not_found"
    for n in range(65):
        a.register(f"ci{n}", teams=["red"])
    assert "at most 64" in a.error(a.send("team:red"))["detail"]
    assert a.error(a.send("team:red", stream=True))["code"] == "bad_request"


def members_of(member: Member, target: str) -> dict[str, Any]:
    from tektonmesh.core.views_choices import choices

    return choices(member.node, target)


def test_what_would_be_sent_to_whom_is_shown_without_sending() -> None:
    network = tree()
    network.cut("a", "d")
    network.run(5.0)
    a = network["a"]
    shown = members_of(a, "team:red")
    assert shown["sends_to"] == "all"
    assert next(one["to"] for one in shown["candidates"]) == "red-a@a"
    assert shown["rejected"] == [{"to": "red-d@d", "why": "Its stack cannot be reached."}]
    assert members_of(a, "ci:second@*")["candidates"][0]["to"] == "second@c"
    assert network["b"].deliveries() == []
