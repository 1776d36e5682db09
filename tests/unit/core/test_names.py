"""Which name means which stack on this node."""

import pytest

from tektonmesh.core.effects import Notice, Save
from tektonmesh.core.ids import group_id, show_id, suffix_of
from tektonmesh.core.names import NAMES_PER_STACK
from tektonmesh.core.types import Saved, StackId, Status
from tektonmesh.errors import DeliveryError, LocalError
from tests.liveness import Rig, id_of


def label(rig: Rig, name: str) -> str:
    return rig.names.label(id_of(name))


def tilde(name: str, stack: str) -> str:
    return f"{name}~{suffix_of(id_of(stack))}"


def rows(rig: Rig) -> Saved:
    """Everything that was written so far, as the next start gets it."""
    return {
        (table, key): value
        for effect in rig.take()
        if isinstance(effect, Save)
        for table, key, value in effect.rows
        if value is not None
    }


def refused(rig: Rig, text: str) -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        rig.names.resolve_stack(text)
    return caught.value


# --- labels --------------------------------------------------------------------------------------


def test_a_stack_is_shown_by_its_name() -> None:
    rig = Rig()
    rig.publish("b", name="west")
    assert label(rig, "b") == "west"
    assert rig.names.resolve_stack("west") == id_of("b")


@pytest.mark.hostile("deceptive-names")
def test_the_second_stack_of_a_name_is_shown_with_the_start_of_its_id() -> None:
    rig = Rig()
    rig.publish("b", name="west")
    rig.publish("c", name="west")
    assert label(rig, "b") == "west"
    assert label(rig, "c") == tilde("west", "c")
    assert rig.names.resolve_stack("west") == id_of("b")
    assert rig.names.resolve_stack(label(rig, "c")) == id_of("c")


def test_a_claim_to_a_taken_name_is_told() -> None:
    rig = Rig()
    rig.publish("b", name="west")
    rig.take()
    rig.publish("c", name="west")
    (notice,) = [e for e in rig.take() if isinstance(e, Notice) and e.kind == "name_taken"]
    shown = {"name": "west", "id": show_id(id_of("c")), "holder": show_id(id_of("b"))}
    assert notice.data == shown


def test_the_own_name_is_always_this_stack() -> None:
    rig = Rig("a")
    rig.publish("b", name="a")
    assert rig.names.label(rig.me) == "a"
    assert rig.names.resolve_stack("a") == rig.me
    assert label(rig, "b") == tilde("a", "b")


def test_the_own_name_beats_what_the_disk_remembers() -> None:
    rig = Rig("a", saved={("name", b"a"): id_of("b")})
    rig.publish("b", name="a")
    assert rig.names.resolve_stack("a") == rig.me
    assert label(rig, "b") == tilde("a", "b")


def test_a_name_is_kept_across_a_restart() -> None:
    first = Rig()
    first.publish("b", name="west")
    rig = Rig(saved={key: value for key, value in rows(first).items() if key[0] == "name"})
    rig.publish("c", name="west")
    assert label(rig, "c") == tilde("west", "c")
    rig.publish("b", name="west")
    assert label(rig, "b") == "west"


def test_what_the_replica_held_at_the_start_has_its_names() -> None:
    first = Rig()
    first.publish("b", name="west")
    assert label(Rig(saved=rows(first)), "b") == "west"


def test_a_damaged_row_is_passed_over() -> None:
    damaged = {("name", b"\xff"): id_of("b"), ("name", b"\xfe"): id_of("b")}
    rig = Rig(saved=damaged | {("name", b"west"): b"short"})
    rig.publish("c", name="west")
    assert label(rig, "c") == "west"


def test_a_stack_may_rename_itself_and_keeps_its_old_name_here() -> None:
    rig = Rig()
    rig.publish("b", name="west")
    rig.publish("b", name="east")
    rig.publish("c", name="west")
    assert label(rig, "b") == "east"
    assert label(rig, "c") == tilde("west", "c")
    assert rig.names.resolve_stack("west") == rig.names.resolve_stack("east") == id_of("b")


def test_renaming_does_not_collect_all_names() -> None:
    rig = Rig()
    for number in range(NAMES_PER_STACK + 1):
        rig.publish("b", name=f"n{number}")
    last = f"n{NAMES_PER_STACK}"
    assert label(rig, "b") == tilde(last, "b")
    rig.publish("c", name=last)
    assert label(rig, "c") == last


@pytest.mark.parametrize(
    "name",
    [
        "West",
        "w\u0435st",
        "we st",
        "",
        "-west",
        ".west",
        "../x",
        "w@x",
        "w~x",
        "x" * 64,
        "a\n",
        7,
        None,
    ],
)
@pytest.mark.hostile("deceptive-names")
def test_a_name_outside_the_grammar_is_not_shown(name: object) -> None:
    rig = Rig()
    rig.publish("b", name=name)
    assert label(rig, "b") == tilde("invalid", "b")
    assert rig.names.resolve_stack(label(rig, "b")) == id_of("b")


def test_a_stack_without_a_word_of_its_own_is_unknown_and_can_be_named() -> None:
    rig = Rig()
    rig.publish("b", records={"stack/self": 5})
    assert label(rig, "b") == tilde("unknown", "b")
    assert rig.names.resolve_stack(label(rig, "b")) == id_of("b")
    assert label(rig, "z") == tilde("unknown", "z")


def test_as_much_of_the_id_is_shown_as_tells_claimants_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Ids with five equal characters take hours to find; the shown form is shortened instead.
    shown = {"b": "aaaab" + "a" * 47, "c": "aaaac" + "a" * 47, "d": "aaaad" + "a" * 47}
    known = {id_of(name): text for name, text in shown.items()}

    def show(stack_id: StackId) -> str:
        return known.get(stack_id, "z" * 52)

    for module in ("names", "ids"):
        monkeypatch.setattr(f"tektonmesh.core.{module}.show_id", show)
    rig = Rig()
    for name in "bcd":
        rig.publish(name, name="west")
    assert label(rig, "c") == "west~aaaac"
    assert rig.names.resolve_stack("west~aaaac") == id_of("c")
    error = refused(rig, "west~aaaa")
    assert error.code.name == "ambiguous"
    assert error.data["candidates"] == ["west", "west~aaaac", "west~aaaad"]


# --- short forms ---------------------------------------------------------------------------------


def test_leading_parts_of_a_name_are_enough_if_they_fit_one_stack() -> None:
    rig = Rig()
    rig.publish("b", name="west.tekton.research.us")
    assert rig.names.resolve_stack("west") == id_of("b")
    assert rig.names.resolve_stack("west.tekton") == id_of("b")


def test_a_part_of_a_part_is_not_enough() -> None:
    rig = Rig()
    rig.publish("b", name="west.tekton.research.us")
    assert refused(rig, "we").code.name == "not_found"
    assert refused(rig, "west.tek").code.name == "not_found"


def test_a_short_form_that_fits_several_is_refused_with_the_candidates() -> None:
    rig = Rig()
    rig.publish("b", name="west.one")
    rig.publish("c", name="west.two")
    error = refused(rig, "west")
    assert error.code.name == "ambiguous"
    assert error.as_dict()["candidates"] == ["west.one", "west.two"]


def test_a_short_form_that_was_used_cannot_be_captured() -> None:
    rig = Rig()
    rig.publish("b", name="west.one")
    assert rig.names.resolve_stack("west") == id_of("b")
    rig.publish("c", name="west.two")
    rig.publish("d", name="west")
    assert rig.names.resolve_stack("west") == id_of("b")
    assert label(rig, "b") == "west.one"
    assert label(rig, "d") == tilde("west", "d")
    again = Rig(saved=rows(rig))
    assert again.names.resolve_stack("west") == id_of("b")


def test_a_later_claimant_of_a_full_name_does_not_make_its_short_form_ambiguous() -> None:
    rig = Rig()
    rig.publish("b", name="west.one")
    rig.publish("c", name="west.one")
    assert rig.names.resolve_stack("west") == id_of("b")


def test_stacks_that_are_gone_do_not_make_a_short_form_ambiguous() -> None:
    rig = Rig()
    rig.publish("b", name="west.one", status=Status.LEFT)
    assert rig.names.resolve_stack("west") == id_of("b")
    rig = Rig()
    rig.publish("b", name="west.one", status=Status.LEFT)
    rig.publish("c", name="west.two")
    assert rig.names.resolve_stack("west") == id_of("c")


def test_the_own_name_has_short_forms_as_well() -> None:
    rig = Rig("a", own_name="home.lab")
    assert rig.names.resolve_stack("home") == rig.me
    assert rig.names.resolve_stack("home.lab") == rig.me


# --- reading -------------------------------------------------------------------------------------


def test_names_are_read_without_case_and_spaces() -> None:
    rig = Rig()
    rig.publish("b", name="west")
    assert rig.names.resolve_stack(" West ") == id_of("b")


def test_a_whole_id_is_read_in_both_forms() -> None:
    rig = Rig()
    rig.publish("b", name="west")
    assert rig.names.resolve_stack(show_id(id_of("b"))) == id_of("b")
    assert rig.names.resolve_stack(group_id(id_of("b"))) == id_of("b")
    assert rig.names.resolve_stack(show_id(rig.me)) == rig.me


def test_an_id_that_is_not_known_is_not_found() -> None:
    assert refused(Rig(), show_id(id_of("z"))).code.name == "not_found"


def test_a_stack_named_like_an_id_does_not_capture_it() -> None:
    rig = Rig()
    victim = show_id(id_of("b"))
    rig.publish("c", name=victim)
    assert rig.names.resolve_stack(victim) == id_of("c")
    rig.publish("b", name="west")
    assert rig.names.resolve_stack(victim) == id_of("b")


@pytest.mark.parametrize("text", ["", "west~", "west~abc", "nobody~abcd", "nobody"])
def test_what_fits_nobody_is_not_found(text: str) -> None:
    rig = Rig()
    rig.publish("b", name="west")
    error = refused(rig, text)
    assert error.code.name == "not_found"
    assert "candidates" not in error.data


def test_a_name_kept_for_a_stack_that_is_gone_names_those_who_claim_it_now() -> None:
    rig = Rig(saved={("name", b"west"): id_of("z")})
    rig.publish("b", name="west")
    error = refused(rig, "west")
    assert error.code.name == "not_found"
    assert error.data["candidates"] == [tilde("west", "b")]


def test_a_later_claimant_that_is_forgotten_changes_nothing_for_the_holder() -> None:
    rig = Rig()
    rig.publish("b", name="west")
    rig.publish("c", name="west")
    rig.replica.drop(id_of("c"))
    assert label(rig, "b") == "west"
    assert refused(rig, tilde("west", "c")).code.name == "not_found"


def test_a_forgotten_stack_has_no_label_of_its_own_any_more() -> None:
    rig = Rig()
    rig.publish("b", name="west")
    rig.replica.drop(id_of("b"))
    assert label(rig, "b") == tilde("unknown", "b")
    assert refused(rig, "west").code.name == "not_found"


def test_an_address_is_a_ci_and_a_stack() -> None:
    rig = Rig()
    rig.publish("b", name="west")
    assert rig.names.resolve("numa@west") == (id_of("b"), "numa")
    assert rig.names.resolve("@west") == (id_of("b"), "")


def test_a_bare_name_is_a_local_ci_and_ci_names_have_no_case() -> None:
    rig = Rig()
    assert rig.names.resolve("Numa") == (rig.me, "numa")


@pytest.mark.parametrize("target", ["", "@", "numa@", "a b@west", "specialty:vision", "ci:x@*"])
def test_what_is_no_address_is_a_bad_request(target: str) -> None:
    with pytest.raises(LocalError) as caught:
        Rig().names.resolve(target)
    assert caught.value.code.name == "bad_request"


def test_news_of_other_records_leave_names_alone() -> None:
    rig = Rig()
    rig.publish("b", name="west")
    rig.publish("c", name="west")
    rig.take()
    rig.publish("c", {"b": 3}, name="west")
    assert [e for e in rig.take() if isinstance(e, Notice) and e.kind == "name_taken"] == []


# --- over a base ---------------------------------------------------------------------------------


def test_names_over_a_base_are_those_of_the_base() -> None:
    base = Rig("z")
    base.publish("b", name="west.one")
    base.publish("c", name="west.one")
    rig = Rig(base=base)
    assert label(rig, "b") == "west.one"
    assert label(rig, "c") == tilde("west.one", "c")
    assert rig.names.resolve_stack("west") == id_of("b")
    assert refused(rig, "z").code.name == "not_found"
    assert label(rig, "z") == tilde("unknown", "z")


def test_the_own_name_is_this_stack_whatever_the_base_read() -> None:
    base = Rig("z")
    base.publish("b", name="a")
    base.publish("a", name="old")
    rig = Rig("a", base=base)
    assert rig.names.label(rig.me) == "a"
    assert rig.names.resolve_stack("a") == rig.me
    assert label(rig, "b") == tilde("a", "b")
    assert label(base, "a") == "old"


def test_changes_over_a_base_leave_it_alone() -> None:
    base = Rig("z")
    base.publish("b", name="west")
    base.publish("c", name="west")
    rig = Rig(base=base)
    rig.replica.drop(id_of("b"))
    rig.publish("c", name="east")
    rig.publish("d", name="west")
    assert label(rig, "c") == "east"
    assert label(base, "b") == "west" and label(base, "c") == tilde("west", "c")
    assert refused(base, tilde("west", "d")).code.name == "not_found"


def test_what_the_disk_remembers_beats_the_base() -> None:
    base = Rig("z")
    base.publish("b", name="west")
    base.publish("c", name="west")
    rig = Rig(base=base, saved={("name", b"west"): id_of("c")})
    assert label(rig, "c") == "west"
    assert label(rig, "b") == tilde("west", "b")
    assert label(base, "b") == "west"
