"""Who may see, say and call: the rules, one by one, and what their verdicts say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tektonmesh.core.policy import (
    Act,
    Grant,
    Rule,
    Subject,
    Terms,
    Verdict,
    check_verb,
    decide,
    decide_use,
)
from tektonmesh.errors import LocalError

WEST = bytes(range(32))
NOW = 1_000_000
SAY = Act("message", "numa", caller_ci="rhetor", size=100)
CALL = Act("tool.call:search", "numa", tool_hash="aa")


def subject(**fields: object) -> Subject:
    """An admitted stack of another organisation, without terms or grants."""
    return replace(Subject(WEST, "member"), **fields)  # type: ignore[arg-type]


def full(mode: str = "full", *shared: str, **fields: object) -> Subject:
    return subject(terms=Terms(mode, shared), **fields)


def granted(grant: Grant, **fields: object) -> Subject:
    return subject(grants=(grant,), **fields)


def code(act: Act, who: Subject, share: str | None = "public", now_ms: int = NOW) -> str:
    verdict = decide(act, who, share, now_ms)
    assert verdict.allowed == (not verdict.code)
    assert verdict.deciding.passed == verdict.allowed
    return verdict.code


def test_a_stranger_learns_nothing_whatever_is_shared() -> None:
    who = full("full", own=True, role="")
    assert [code(SAY, who, share) for share in ("public", "partners", None)] == ["not_found"] * 3


def test_other_organisations_discover_what_is_public_and_may_do_nothing_else() -> None:
    assert code(Act("discover", "numa"), subject()) == ""
    for verb in ("message", "tool.call:x", "resource.read:x", "prompt.get:x", "relay", "introduce"):
        assert code(Act(verb, "numa"), subject()) == "refused", verb


def test_ones_own_stacks_hold_all_rights_but_introducing() -> None:
    for verb in ("discover", "message", "tool.call:x", "resource.read:x", "prompt.get:x", "relay"):
        assert code(Act(verb, "numa"), subject(own=True)) == "", verb
    assert code(Act("introduce"), subject(own=True)) == "refused"


@pytest.mark.parametrize("verb", ["discover", "message", "tool.call:x", "resource.read:x"])
def test_what_is_private_answers_as_what_does_not_exist(verb: str) -> None:
    who = full("full", own=True, grants=(Grant("g", verb, "*"),))
    hidden = decide(Act(verb, "numa"), who, "private", NOW)
    missing = decide(Act(verb, "numa"), who, None, NOW)
    assert (hidden.allowed, hidden.code) == (missing.allowed, missing.code) == (False, "not_found")


def test_partners_see_what_is_for_partners_and_members_do_not() -> None:
    see = Act("discover", "numa")
    assert code(see, subject(own=True), "partners") == "not_found"
    assert code(see, full(), "partners") == ""
    assert code(see, full("partial", "numa"), "partners") == ""
    assert code(see, full("partial", "athena"), "partners") == "not_found"
    assert code(see, full("full", "athena"), "partners") == "not_found"
    assert code(see, full("partial"), "partners") == "not_found"


def test_a_grant_on_a_ci_makes_a_partner_for_it_and_for_no_other() -> None:
    who = granted(Grant("g", "message", "num*"))
    assert code(SAY, who, "partners") == ""
    assert code(Act("discover", "numa"), who, "partners") == ""
    assert code(Act("discover", "athena"), who, "partners") == "not_found"
    assert code(Act("discover", "numa"), granted(Grant("g", "relay")), "partners") == "not_found"


def test_full_mode_allows_everything_on_what_is_shared() -> None:
    for verb in ("discover", "message", "tool.call:x", "resource.read:x", "prompt.get:x"):
        assert code(Act(verb, "numa"), full(), "partners") == "", verb
    assert code(Act("relay"), full()) == code(Act("introduce"), full()) == "refused"


def test_partial_mode_allows_the_shared_cis_only() -> None:
    who = full("partial", "numa", "athena-*")
    assert code(SAY, who) == code(replace(SAY, ci="athena-eu"), who) == ""
    assert code(replace(SAY, ci="rhetor"), who) == "refused"


def test_read_only_mode_reads_and_calls_what_has_no_effects() -> None:
    who = full("read-only")
    for verb in ("discover", "resource.read:x", "prompt.get:x"):
        assert code(Act(verb, "numa"), who, "partners") == "", verb
    assert code(replace(CALL, effects=False), who) == ""
    assert code(CALL, who) == code(SAY, who) == "refused"
    assert code(Act("resource.read:x", "rhetor"), full("read-only", "numa")) == "refused"


def test_terms_narrow_what_ones_own_stacks_hold_by_default() -> None:
    assert code(SAY, full("read-only", own=True)) == "refused"


def test_an_observer_reads_whatever_it_was_granted() -> None:
    who = full("full", role="observer", grants=(Grant("g", "message"),))
    assert code(Act("discover", "numa"), who) == code(Act("resource.read:x", "numa"), who) == ""
    assert code(replace(CALL, effects=False), who) == ""
    assert code(SAY, who) == code(CALL, who) == "refused"


def test_a_relay_forwards_and_sees_no_ci() -> None:
    who = full("full", role="relay", own=True, grants=(Grant("g", "message"),))
    assert code(SAY, who) == code(Act("discover", "numa"), who) == "not_found"
    assert code(Act("relay"), subject(role="relay", own=True)) == ""


@pytest.mark.parametrize(
    ("grant", "allowed"),
    [
        (Grant("g", "message"), True),
        (Grant("g", "message", "numa"), True),
        (Grant("g", "message", "athena"), False),
        (Grant("g", "tool.call:*"), False),
        (Grant("g", "message", not_after_ms=NOW + 1), True),
        (Grant("g", "message", not_after_ms=NOW), False),
        (Grant("g", "message", size_max=100), True),
        (Grant("g", "message", size_max=99), False),
        (Grant("g", "message", caller_ci="rhet*"), True),
        (Grant("g", "message", caller_ci="athena"), False),
        (Grant("g", "message", depth_max=0), True),
    ],
)
def test_a_grant_allows_what_it_names_within_its_caveats(grant: Grant, allowed: bool) -> None:
    assert (code(SAY, granted(grant)) == "") is allowed


@pytest.mark.parametrize(
    ("grant", "act", "allowed"),
    [
        (Grant("g", "tool.call:sea*"), CALL, True),
        (Grant("g", "tool.call:list"), CALL, False),
        (Grant("g", "tool.call:*", tool_hash="aa"), CALL, True),
        (Grant("g", "tool.call:*", tool_hash="aa"), replace(CALL, tool_hash="ab"), False),
        (Grant("g", "tool.call:*", depth_max=2), replace(CALL, depth=2), True),
        (Grant("g", "tool.call:*", depth_max=2), replace(CALL, depth=3), False),
        (Grant("g", "resource.read:file:///pub/*"), Act("resource.read:file:///pub/a", "n"), True),
        (Grant("g", "resource.read:file:///pub/*"), Act("resource.read:file:///etc/a", "n"), False),
        (Grant("g", "relay"), Act("relay"), True),
        (Grant("g", "introduce"), Act("introduce"), True),
    ],
)
def test_a_grant_names_objects_by_globs(grant: Grant, act: Act, allowed: bool) -> None:
    assert (code(act, granted(grant)) == "") is allowed


def test_a_glob_cannot_reach_from_one_kind_of_verb_into_another() -> None:
    assert code(CALL, granted(Grant("g", "*"))) == "refused"
    assert code(SAY, granted(Grant("g", "message*"))) == "refused"


def test_a_grant_whose_rate_is_used_up_says_busy_unless_another_allows_it() -> None:
    one, two = Grant("one", "message", per_minute=1), Grant("two", "message")
    assert code(SAY, granted(one, spent=("one",))) == "busy"
    both = decide(SAY, subject(grants=(one, two), spent=("one",)), "public", NOW)
    assert (both.allowed, both.grant) == (True, "two")


def test_a_verdict_tells_every_rule_that_was_looked_at_and_which_one_settled_it() -> None:
    late = Grant("old", "message", not_after_ms=1)
    verdict = decide(SAY, granted(late), "public", NOW)
    assert [(rule.name, rule.passed) for rule in verdict.rules] == [
        ("member", True),
        ("exists", True),
        ("share", True),
        ("default", None),
        ("grant old", None),
        ("grant", False),
    ]
    assert verdict.deciding == Rule("grant", False, "No right allows this act.")


def test_the_import_policy_keeps_callers_here_from_what_it_leaves_out() -> None:
    assert decide_use(SAY, Terms()).allowed
    kept = decide_use(SAY, Terms(imports=("athena",)))
    assert (kept.allowed, kept.code) == (False, "refused")
    assert decide_use(Act("relay"), Terms(imports=())).allowed
    evicted = decide_use(SAY, Terms(), admitted=False)
    assert isinstance(evicted, Verdict)
    assert evicted.code == "not_found"


@pytest.mark.parametrize("verb", ["discover", "message", "tool.call:a*", "resource.read:file:///x"])
def test_verbs_of_the_policy_are_taken(verb: str) -> None:
    assert check_verb(verb) == verb


@pytest.mark.parametrize(
    "verb", ["", "tool.call", "tool.call:", "message:x", "fly", "tool.call:\n"]
)
def test_other_verbs_are_refused_with_the_ones_there_are(verb: str) -> None:
    with pytest.raises(LocalError) as refused:
        check_verb(verb)
    assert "discover, message, relay, introduce, tool.call:GLOB" in refused.value.sentence()
