"""One message to whoever fits, between real nodes."""

from collections import Counter
from typing import Any

import pytest

from tektonmesh.core import events as ev
from tektonmesh.core.messages import Forward, Released
from tests.network import Member, Network


def star(n: int = 3, **settings: Any) -> tuple[Network, Member, list[Member]]:
    """a in the middle of n stacks, each with the CI `eye` of the specialty vision."""
    names = ["b", "c", "d", "e", "f", "g"][:n]
    network = Network("a", *names, **settings)
    for name in names:
        network.join("a", name)
    for name in names:
        network[name].register("eye", specialties=["vision"])
    network.run(1.0)
    return network, network["a"], [network[name] for name in names]


def ask(network: Network, a: Member, target: str = "specialty:vision", **more: Any) -> Any:
    """The result of one message to `target`."""
    ticket = a.send(target, **more)
    network.run(0.1)
    return a.result(ticket)


def deliveries(members: list[Member]) -> dict[str, int]:
    return {member.name: len(member.deliveries()) for member in members}


# --- choosing ------------------------------------------------------------------------------------


def test_one_that_fits_gets_the_message_and_the_answer_says_who() -> None:
    network, a, eyes = star()
    for member in eyes:
        member.echo()
    result = ask(network, a, body=b"look")
    assert result["body"] == b"look"
    assert result["to"] in ("eye@b", "eye@c", "eye@d")
    assert (result["selector"], result["tried"]) == ("specialty:vision", [])
    assert sum(deliveries(eyes).values()) == 1
    assert len(a.node.choosing.anycast) == 0


@pytest.mark.parametrize("target", ["specialty:VISION", "ci:eye@*", "ci:Eye"])
def test_words_and_names_are_compared_without_case(target: str) -> None:
    network, a, eyes = star(1)
    eyes[0].echo()
    assert ask(network, a, target)["to"] == "eye@b"


def test_a_ci_of_this_stack_is_a_candidate_like_others() -> None:
    network = Network("a")
    network["a"].register("eye", specialties=["vision"], share="private")
    network["a"].echo()
    assert ask(network, network["a"])["path"] == ["a"]


def test_nobody_is_chosen_for_a_message_of_their_own() -> None:
    network, a, eyes = star(1)
    eyes[0].echo()
    a.register("me", specialties=["vision"])
    for _ in range(5):
        assert ask(network, a, sender="me")["to"] == "eye@b"


def test_messages_go_where_less_is_waiting() -> None:
    network, a, eyes = star(2)
    for _ in range(20):
        a.send("specialty:vision", timeout_s=100.0)
    network.run(1.0)
    counts = deliveries(eyes)
    assert min(counts.values()) >= 8, counts


def test_a_slow_ci_gets_less_than_its_share() -> None:
    network, a, eyes = star(2)
    slow, quick = eyes
    quick.echo()
    for _ in range(3):  # both are known by what they took
        ask_to = a.send("eye@b")
        network.run(0.5)
        slow.reply(slow.deliveries()[-1], b"")
        network.run(0.1)
        assert a.result(ask_to)
        ask(network, a, "eye@c")
    before = deliveries(eyes)
    for _ in range(10):
        ask(network, a)
    after = Counter(deliveries(eyes))
    after.subtract(before)
    assert after["c"] == 10 and after["b"] == 0


def test_the_word_of_another_stack_on_its_load_counts() -> None:
    """b's CI is busy with messages of others; its receipt tells a so."""
    network, a, eyes = star(2)
    busy, idle = eyes
    for _ in range(50):
        busy.send("eye", timeout_s=100.0)
    for name in ("b", "c"):
        a.send(f"eye@{name}", timeout_s=100.0)
    network.run(0.5)
    for _ in range(5):
        a.send("specialty:vision", timeout_s=100.0)
    network.run(0.1)
    assert len(idle.deliveries()) == 6


def test_more_than_four_share_the_work_when_all_are_busy() -> None:
    network, a, eyes = star(6)
    for _ in range(60):
        a.send("specialty:vision", timeout_s=100.0)
    network.run(1.0)
    assert min(deliveries(eyes).values()) >= 5, deliveries(eyes)


def test_a_conversation_stays_with_its_ci() -> None:
    network, a, eyes = star(3)
    for member in eyes:
        member.echo()
    chosen = {ask(network, a, conversation="one")["to"] for _ in range(8)}
    assert len(chosen) == 1
    others = {ask(network, a, conversation=f"c{n}")["to"] for n in range(12)}
    assert len(others) > 1


def test_a_conversation_moves_on_when_its_ci_is_gone() -> None:
    network, a, eyes = star(2)
    for member in eyes:
        member.echo()
    first = ask(network, a, conversation="one")["to"]
    network.kill(first[-1])
    network.run(3.0)
    second = ask(network, a, conversation="one")["to"]
    assert second != first
    assert ask(network, a, conversation="one")["to"] == second


# --- nobody --------------------------------------------------------------------------------------


def test_a_word_that_nobody_has_is_not_found() -> None:
    _network, a, _ = star(1)
    error = a.error(a.send("specialty:poetry"))
    assert error["code"] == "not_found" and "specialty:poetry" in error["detail"]


def test_a_selector_that_is_none_is_a_bad_request() -> None:
    _network, a, _ = star(1)
    assert a.error(a.send("colour:red"))["code"] == "bad_request"


def test_ones_that_are_all_offline_are_offline() -> None:
    network, a, eyes = star(1, ci_detach_grace_s=1e6)
    network.handle(eyes[0], ev.Detached(1))
    network.run(1.0)
    error = a.error(a.send("specialty:vision"))
    assert error["code"] == "ci_offline" and "One CI fits" in error["detail"]


def test_ones_on_stacks_that_cannot_be_reached_are_unreachable() -> None:
    network, a, _eyes = star(2)
    network.cut("a", "b")
    network.cut("a", "c")
    network.run(5.0)
    error = a.error(a.send("specialty:vision"))
    assert error["code"] == "unreachable" and "2 CIs fit" in error["detail"]


# --- going on ------------------------------------------------------------------------------------


def test_a_refusal_that_its_stack_signed_sends_the_message_to_the_next() -> None:
    """The CIs were deregistered a moment ago, which a does not know yet."""
    network, a, eyes = star(3)
    eyes[2].echo()
    for member in eyes[:2]:
        member.node.cis._cis.clear()
    for _ in range(6):
        result = ask(network, a)
        assert result["to"] == "eye@d"
        assert {one["code"] for one in result["tried"]} <= {"not_found"}
    assert a.notices("passed_on")[0]["code"] == "not_found"


def test_when_all_refuse_the_last_refusal_is_told_with_all_that_were_tried() -> None:
    network, a, eyes = star(3)
    for member in eyes:
        member.node.cis._cis.clear()
    ticket = a.send("specialty:vision")
    network.run(0.5)
    error = a.error(ticket)
    assert error["code"] == "not_found"
    assert sorted(one["to"] for one in error["tried"]) == ["eye@b", "eye@c", "eye@d"]
    assert len(a.node.choosing.anycast) == 0


def fail_first(eyes: list[Member], code: str) -> None:
    """The first CI that gets a message fails with `code`, all others answer."""
    failed: list[str] = []
    for member in eyes:

        def act(delivery: Any, member: Member = member) -> None:
            if failed:
                member.reply(delivery, b"fine")
            else:
                failed.append(member.name)
                member.fail(delivery, code)

        member.on_deliver = act


def test_what_may_have_been_done_is_not_done_again_elsewhere() -> None:
    network, a, eyes = star(2)
    fail_first(eyes, "ci_failed")
    ticket = a.send("specialty:vision")
    network.run(0.5)
    error = a.error(ticket)
    assert (error["code"], error["outcome"]) == ("ci_failed", "indeterminate")
    assert sum(deliveries(eyes).values()) == 1


def test_what_may_be_done_twice_goes_on_after_any_failure() -> None:
    network, a, eyes = star(2)
    fail_first(eyes, "ci_failed")
    ticket = a.send("specialty:vision", idempotent=True)
    network.run(0.5)
    assert a.result(ticket)["body"] == b"fine"
    assert [one["code"] for one in a.result(ticket)["tried"]] == ["ci_failed"]


def test_a_relays_word_alone_sends_nothing_elsewhere() -> None:
    """m says that b is out of reach (which it could say after delivering)."""
    network = Network("a", "m", "b", "c")
    network.join("a", "m", "b")
    network.join("m", "c")
    for name in ("b", "c"):
        network[name].register("eye", specialties=["vision"])
        network[name].echo()
    network.run(1.0)
    a = network["a"]
    network.passes = lambda here, there, m: not (here == "m" and isinstance(m, Forward))
    lying = [0]

    def refuse(here: str, there: str, message: Any) -> None:
        if (here, there) == ("a", "m") and isinstance(message, Forward):
            lying[0] += 1
            link = next(iter(a.node.neighbours.links))
            network._post("a", ev.Received(link, (Released(message.seq, "no_path", ()),)), 0.001)

    network.on_message = refuse
    for idempotent in (False, True):
        ticket = a.send("specialty:vision", idempotent=idempotent, timeout_s=20.0)
        network.run(19.0)
        error = a.error(ticket)
        assert error["code"] == "unreachable"
        assert len(error["tried"]) == (2 if idempotent else 1)
    assert lying[0] > 2


def test_a_reply_that_began_is_not_begun_elsewhere() -> None:
    network, a, eyes = star(2)
    for member in eyes:

        def act(delivery: Any, member: Member = member) -> None:
            member.chunk(delivery, b"part")
            member.fail(delivery, "ci_failed")

        member.on_deliver = act
    ticket = a.send("specialty:vision", stream=True, idempotent=True)
    network.run(0.5)
    assert a.error(ticket)["code"] == "ci_failed"
    assert a.streamed(ticket) == [b"part"]
    assert sum(deliveries(eyes).values()) == 1


def test_the_time_is_that_of_all_tries_together() -> None:
    network, a, _ = star(3)
    ticket = a.send("specialty:vision", timeout_s=5.0, idempotent=True)
    network.run(4.9)
    assert a.answer(ticket) is None
    network.run(0.2)
    assert a.error(ticket)["code"] == "timeout"


def test_a_cancelled_message_goes_nowhere_else() -> None:
    network, a, eyes = star(2)
    ticket = a.send("specialty:vision", idempotent=True)
    network.run(0.1)
    network.handle(a, ev.CancelCommand(ticket))
    network.run(0.5)
    assert a.error(ticket)["code"] == "cancelled"
    assert sum(deliveries(eyes).values()) == 1
    assert len(a.node.choosing.anycast) == 0


def test_a_stack_that_leaves_answers_and_tries_nobody_else() -> None:
    network, a, eyes = star(2)
    ticket = a.send("specialty:vision", idempotent=True)
    network.run(0.1)
    a.do(ev.Leave)
    assert a.error(ticket)["code"] == "leaving"
    assert sum(deliveries(eyes).values()) == 1


def test_a_message_nobody_answers_is_accepted_by_one_that_fits() -> None:
    network, a, eyes = star(2)
    ticket = a.send("specialty:vision", no_reply=True)
    network.run(0.5)
    assert a.result(ticket)["accepted"] and a.result(ticket)["to"] in ("eye@b", "eye@c")
    assert sum(deliveries(eyes).values()) == 1


# --- durable messages ----------------------------------------------------------------------------


def test_a_durable_message_goes_to_one_that_fits_and_stays_with_it() -> None:
    network, a, eyes = star(2)
    ticket = a.send("specialty:vision", durable=True)
    network.run(1.0)
    assert a.result(ticket)["accepted"]
    assert sum(deliveries(eyes).values()) == 1
    assert len(a.node.choosing.anycast) == 0 and a.node.deliveries.outcomes.takers == {}


@pytest.mark.parametrize(
    ("target", "options"), [("specialty:vision", {"key": "k"}), ("team:red", {"durable": True})]
)
def test_what_could_reach_another_ci_the_second_time_is_refused(
    target: str, options: dict[str, Any]
) -> None:
    network, a, eyes = star(1)
    eyes[0].register("one", teams=["red"])
    network.run(1.0)
    error = a.error(a.send(target, **options))
    assert error["code"] == "bad_request"
