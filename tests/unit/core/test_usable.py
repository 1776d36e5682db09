"""What each stack is told of what it may use: by everybody's records, or sealed and for itself."""

from __future__ import annotations

from typing import Any

import pytest

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core import sharing, usable
from tektonmesh.core.ci import Offered
from tektonmesh.core.policy import Act, Terms
from tektonmesh.core.usable import Uses, uses_of
from tests.network import Member, Network
from tests.support import make_keys

A, B, C = (make_keys(n)[1].stack_id for n in (1, 2, 3))
READ = Offered("tool.call:look", b"1", "aa", effects=False)
WRITE = Offered("tool.call:echo", b"2", "bb", effects=True)
NOTE = Offered("resource.read:note://one", b"3")
ALL = (READ, WRITE, NOTE)
HASH = bytes(32)


def own() -> Network:
    """a - b - c, all of one organisation."""
    network = Network("a", "b", "c")
    network.join("a", "b", "c")
    return network


def foreign(**settings: Any) -> Network:
    network = Network("a", "b", "c", mesh_keys=(), allowed_ids=(A, B, C), **settings)
    network.join("a", "b", "c")
    return network


def offer(member: Member, name: str = "tool", items: tuple[Offered, ...] = ALL, **more: Any) -> Any:
    """A CI with an MCP server that offers these."""
    spec = {"how": {"kind": "none"}, "persist": True, "mcp": {"http": {"url": "http://[::1]/"}}}
    member.register(name, **(spec | {"share": "public"} | more))
    reference = {"hash": HASH, "length": 9}
    member.do(lambda ticket: ev.SetCatalogue(ticket, name, reference, items))
    member.network.settle()


def govern(member: Member, act: str, **params: Any) -> dict[str, Any]:
    answer = member.answer(member.do(lambda ticket: ev.Govern(ticket, act, params)))
    assert isinstance(answer, fx.Answer), answer
    member.network.settle()
    return answer.result


def gossiped(at: Member, owner: bytes = A, ci: str = "tool") -> bool:
    return at.node.replica.owners[owner].value(f"catalog/{ci}") is not None


def told(at: Member, owner: bytes = A) -> Uses | None:
    return at.node.sharing.uses(owner)


def test_ones_own_stacks_read_the_catalogue_in_a_record_and_are_told_nothing() -> None:
    network = own()
    offer(network["a"])
    assert gossiped(network["c"])
    assert told(network["c"]) is None
    assert not network["a"].node.sharing._told


def test_other_organisations_read_no_catalogue_in_any_record() -> None:
    network = foreign()
    offer(network["a"])
    assert not gossiped(network["b"])
    assert told(network["b"]) == Uses()


def test_one_stack_with_narrower_terms_ends_the_gossip_and_each_is_told_for_itself() -> None:
    network = own()
    a, b, c = (network[name] for name in "abc")
    offer(a)
    govern(a, "terms", stack_id=B, mode="read-only")
    assert not gossiped(c)
    whole, part = told(c), told(b)
    assert whole is not None and part is not None
    assert list(whole.lists) == list(part.lists) == ["tool"]
    assert whole.lists != part.lists
    govern(a, "terms", stack_id=B, mode="full")
    assert gossiped(c) and gossiped(b)
    assert told(b) is None and told(c) is None


def test_terms_with_a_stack_that_was_never_seen_end_the_gossip_too() -> None:
    network = own()
    a = network["a"]
    a.register("plain")
    offer(a)
    govern(a, "terms", stack_id=make_keys(9)[1].stack_id, mode="read-only")
    assert not gossiped(network["c"])
    assert sorted(a.node.sharing._told) == sorted([B, C])


def test_whoever_asks_is_told_when_gossip_ends_and_begins() -> None:
    network = own()
    a = network["a"]
    offer(a)
    seen: list[bool] = []
    a.node.sharing.usable.watch(lambda: seen.append(a.node.sharing.usable.gossiped()))
    govern(a, "terms", stack_id=B, mode="read-only")
    govern(a, "terms", stack_id=C, mode="read-only")
    govern(a, "terms", stack_id=B, mode="")
    govern(a, "terms", stack_id=C, mode="")
    assert seen == [False, True]


def test_a_stack_that_is_away_still_keeps_the_catalogue_out_of_records() -> None:
    network = own()
    a, c = network["a"], network["c"]
    offer(a)
    govern(a, "terms", stack_id=C, mode="read-only")
    c.do(ev.Leave)
    network.kill("c")
    network.run(5.0)
    assert not gossiped(network["b"])


def test_a_stack_that_comes_and_has_not_proved_the_secret_ends_the_gossip() -> None:
    network = Network("a", "b")
    network.join("a", "b")
    a = network["a"]
    offer(a)
    assert gossiped(network["b"])
    a.do(lambda ticket: ev.AdmitPeer(ticket, C))
    network.add("c", mesh_keys=(), allowed_ids=(A, B), proves=False)
    network.join("a", "c")
    network.run(2.0)
    assert not gossiped(network["b"])


@pytest.mark.parametrize(
    ("grant", "items"),
    [
        ({"verb": "tool.call:look"}, (READ,)),
        ({"verb": "tool.call:*"}, (READ, WRITE)),
        ({"verb": "tool.call:*", "tool_hash": "bb"}, (WRITE,)),
        (
            {"verb": "tool.call:*", "caller_ci": "numa", "size_max": 1, "depth_max": 0},
            (READ, WRITE),
        ),
        ({"verb": "resource.read:note:*"}, (NOTE,)),
        ({"verb": "tool.call:*", "ci": "other"}, ()),
    ],
)
def test_what_a_grant_allows_in_any_way_is_offered(grant: Any, items: tuple[Offered, ...]) -> None:
    network = foreign()
    a, c = network["a"], network["c"]
    offer(a)
    govern(a, "grant", stack_id=C, **grant)
    allowed = tuple(it for it in ALL if a.node.sharing.usable.allows(C, "tool", it))
    assert allowed == items
    found = told(c)
    assert found is not None
    assert bool(found.lists) == bool(items)


def test_the_digest_follows_what_may_be_used_and_nothing_else() -> None:
    network = foreign()
    a, c = network["a"], network["c"]
    offer(a)
    govern(a, "grant", stack_id=C, verb="tool.call:look")
    before = told(c)
    changed = WRITE._replace(digest=b"9")
    reference = {"hash": b"9" * 32, "length": 9}
    a.do(lambda ticket: ev.SetCatalogue(ticket, "tool", reference, (READ, changed, NOTE)))
    network.settle()
    assert told(c) == before
    fresh = READ._replace(digest=b"9")
    a.do(lambda ticket: ev.SetCatalogue(ticket, "tool", reference, (fresh, changed)))
    network.settle()
    assert told(c) != before


def test_a_rate_that_is_used_up_takes_nothing_off_a_list() -> None:
    network = foreign()
    a, c = network["a"], network["c"]
    offer(a)
    govern(a, "grant", stack_id=C, verb="tool.call:look", per_minute=1)
    before = told(c)
    act = Act("tool.call:look", "tool", effects=False)
    a.node.rights.require(C, act)
    assert a.node.rights.check(C, act).code == "busy"
    assert a.node.sharing.usable.uses(C) == before


def test_what_ends_is_told_when_it_ends() -> None:
    network = foreign()
    a, c = network["a"], network["c"]
    offer(a)
    govern(a, "grant", stack_id=C, verb="tool.call:look", for_s=30)
    govern(a, "grant", stack_id=C, verb="tool.call:echo", for_s=60)
    both = told(c)
    network.run(35.0)
    one = told(c)
    assert one is not None and one != both and one.lists
    network.run(30.0)
    assert told(c) == Uses()


def test_whom_a_stack_may_speak_to_is_told_of_cis_without_mcp() -> None:
    network = foreign()
    a, c = network["a"], network["c"]
    a.register("plain", share="public")
    a.register("other", share="public")
    a.register("hidden", share="private")
    govern(a, "grant", stack_id=C, verb="message", ci="[ph]*")
    assert told(c) == Uses(say=("plain",))


def test_ones_own_with_terms_are_told_though_nothing_is_offered() -> None:
    network = own()
    a, c = network["a"], network["c"]
    a.register("plain")
    assert told(c) is None
    govern(a, "terms", stack_id=C, mode="read-only")
    assert told(c) == Uses()


def test_a_partner_uses_what_is_for_partners() -> None:
    network = foreign()
    a, c = network["a"], network["c"]
    offer(a, share="partners")
    govern(a, "terms", stack_id=C, mode="full")
    found = told(c)
    assert found is not None and list(found.lists) == ["tool"]
    assert told(network["b"]) == Uses()


def test_items_outlive_a_restart_and_damaged_ones_are_offered_to_nobody() -> None:
    network = foreign()
    a = network["a"]
    offer(a)
    govern(a, "grant", stack_id=C, verb="tool.call:look")
    saved = dict(a.saved)
    network.kill("a")
    again = network.add("a", saved)
    ci = again.node.cis.get("tool")
    assert ci is not None and ci.offered == ALL
    network.kill("a")
    codec = again.node.env.codec
    row = codec.unpack(saved["ci", b"tool"])
    row["offered"][0][0] = 7
    saved["ci", b"tool"] = codec.pack(row | {"offered": [*row["offered"], "x"]})
    ci = network.add("a", saved).node.cis.get("tool")
    assert ci is not None and ci.offered == (WRITE, NOTE)
    row = codec.unpack(saved["ci", b"tool"]) | {"offered": "x"}
    network.kill("a")
    ci = network.add("a", saved | {("ci", b"tool"): codec.pack(row)}).node.cis.get("tool")
    assert ci is not None and ci.offered == ()


def test_no_more_is_told_than_fits_into_an_envelope(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usable, "USES_CIS_MAX", 1)
    network = foreign()
    a, c = network["a"], network["c"]
    offer(a, "one")
    offer(a, "two")
    a.register("plain", share="public")
    a.register("other", share="public")
    govern(a, "terms", stack_id=C, mode="full")
    found = told(c)
    assert found is not None
    assert (found.say, list(found.lists)) == (("plain",), ["one"])
    assert a.notices("ci_not_published")


def test_many_are_told_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "BATCH", 1)
    network = own()
    a = network["a"]
    offer(a)
    govern(a, "terms", stack_id=B, mode="read-only")
    network.run(1.0)
    assert told(network["b"]) and told(network["c"])


def test_a_catalogue_that_is_taken_back_is_offered_no_more() -> None:
    network = foreign()
    a, c = network["a"], network["c"]
    offer(a)
    govern(a, "terms", stack_id=C, mode="full")
    a.do(lambda ticket: ev.SetCatalogue(ticket, "tool", None))
    network.settle()
    assert told(c) == Uses()


@pytest.mark.parametrize(
    "value",
    [None, 7, {}, {"say": [], "lists": []}, {"say": {}, "lists": {}}],
)
def test_what_is_no_word_about_uses_is_none(value: Any) -> None:
    assert uses_of(value) is None


def test_what_is_malformed_in_a_word_about_uses_is_passed_over() -> None:
    good = bytes(16)
    value = {"say": ["numa", 7], "lists": {"tool": good, "x": b"short", 7: good, "y": "text"}}
    assert uses_of(value) == Uses(("numa",), {"tool": good})


def test_watchers_hear_which_owner_said_something_new() -> None:
    network = foreign()
    a, c = network["a"], network["c"]
    heard: list[bytes] = []
    c.node.sharing.watch(heard.append)
    offer(a)
    assert not heard
    govern(a, "terms", stack_id=C, mode="full")
    assert heard == [A]


def test_a_change_that_is_taken_back_in_the_same_turn_changes_nothing() -> None:
    network = own()
    a = network["a"]
    offer(a)
    seen: list[None] = []
    a.node.sharing.usable.watch(lambda: seen.append(None))
    a.node.rights.set_terms(B, Terms("read-only"))
    a.node.rights.set_terms(B, Terms())
    network.run(1.0)
    assert not seen and gossiped(network["c"])


def test_a_stack_whose_records_went_is_told_nothing_more() -> None:
    network = own()
    a = network["a"]
    offer(a)
    govern(a, "terms", stack_id=B, mode="read-only")
    assert C in a.node.sharing._told
    a.do(lambda ticket: ev.EvictPeer(ticket, C))
    network.settle()
    assert C not in a.node.sharing._told


def test_an_eviction_ends_the_gossip_since_other_members_may_admit_that_stack_still() -> None:
    network = own()
    a = network["a"]
    offer(a)
    assert gossiped(network["b"])
    a.do(lambda ticket: ev.EvictPeer(ticket, C))
    network.settle()
    # c is b's neighbour as before, and b passes on all that a gossips.
    assert not gossiped(network["c"]) and told(network["c"]) is None
    whole = told(network["b"])
    assert whole is not None and list(whole.lists) == ["tool"]
    again = network.restart("a", "b")
    network.settle()
    assert not again.node.sharing.usable.gossiped()


def test_only_a_ci_with_a_server_has_a_catalogue() -> None:
    network = own()
    a = network["a"]
    a.register("plain")
    for name in ("plain", "absent"):
        ticket = a.do(lambda t, n=name: ev.SetCatalogue(t, n, None))  # type: ignore
        assert a.error(ticket)["code"] == "unknown_ci"


def test_a_catalogue_that_finds_no_room_in_the_records_is_as_it_was() -> None:
    network = own()
    a = network["a"]
    offer(a)
    large = {"hash": HASH, "length": 9, "more": "x" * 4096}
    ticket = a.do(lambda t: ev.SetCatalogue(t, "tool", large, ()))
    assert a.error(ticket)["code"] == "too_large"
    ci = a.node.cis.get("tool")
    assert ci is not None and (ci.catalogue, ci.offered) == ({"hash": HASH, "length": 9}, ALL)
    same = {"hash": HASH, "length": 9}
    assert a.result(a.do(lambda t: ev.SetCatalogue(t, "tool", same, ALL)))["changed"] is False
