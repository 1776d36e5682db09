"""What a face shows: names and URIs, what is left out, and how results are rewritten."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from tektonmesh.core.ci import OFFLINE, UP
from tektonmesh.mcp.catalogue import Catalogue
from tektonmesh.mcp.federation import Entry
from tektonmesh.mcp.scopes import Everything, OneCi, rewritten, wants_of
from tests.desks import catalogue, tool

MADE = catalogue(
    tools=[tool("echo"), tool("bare", description=None)],
    resources=[{"uri": "note://one", "name": "one"}],
    templates=[{"uriTemplate": "file:///{name}", "name": "file"}],
    prompts=[{"name": "ask"}],
)


def entry(ci: str, stack: str = "west", made: Catalogue | None = MADE, **more: Any) -> Entry:
    fields: dict[str, Any] = {"local": False, "state": UP, "mcp": True, "description": ""}
    return Entry("id of " + stack, stack, ci, catalogue=made, **(fields | more))


@dataclass
class Known:
    """What a scope asks of the federation."""

    all: list[Entry]
    denied: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    version: int = 0
    reads: int = 0
    asked: list[str] = field(default_factory=list)

    def entries(self) -> dict[str, Entry]:
        self.reads += 1
        return {one.address: one for one in self.all}

    def find(self, address: str) -> Entry | None:
        return next((one for one in self.all if address in (one.address, one.ci)), None)

    def may(self, verb: str, _entry: Entry, item: str = "") -> bool:
        self.asked.append(f"{verb}:{item}")
        return item not in self.denied

    def is_as_pinned(self, _entry: Entry, _kind: str, item: dict[str, Any]) -> bool:
        return item["name"] not in self.changed


def everything(known: Known, *allow: str) -> Everything:
    federation: Any = known
    return Everything(federation, wants_of(allow)) if allow else Everything(federation)


def one_ci(known: Known, address: str) -> OneCi:
    federation: Any = known
    return OneCi(federation, address)


PLAIN = entry("plain", made=None, mcp=False, description="It thinks.")


def test_everything_is_listed_under_names_that_tell_stacks_apart() -> None:
    scope = everything(Known([entry("files"), entry("files", "east")]))
    assert list(scope.shown("tools")) == [
        "west__files__bare",
        "west__files__echo",
        "east__files__bare",
        "east__files__echo",
    ]
    listed = scope.shown("tools")["west__files__echo"]
    assert (listed.key, listed.item["name"]) == ("echo", "west__files__echo")
    assert listed.item["description"] == "[files@west] It is echo."
    assert scope.shown("tools")["west__files__bare"].item["description"] == "[files@west]"
    assert next(iter(scope.shown("resources"))) == "mesh://west/files/note%3A%2F%2Fone"
    assert next(iter(scope.shown("templates"))) == "mesh://west/files/file%3A%2F%2F%2F{name}"
    assert scope.concerns(PLAIN)


def test_the_tables_are_made_anew_when_something_has_changed() -> None:
    known = Known([entry("files")])
    scope = everything(known)
    scope.shown("tools")
    scope.shown("prompts")
    assert known.reads == 1
    known.all, known.version = [], 1
    assert scope.shown("tools") == {}


def test_what_is_denied_or_has_changed_is_on_no_list_and_resources_are_not_pinned() -> None:
    known = Known([entry("files")], denied=("echo",), changed=("bare", "ask", "one", "file"))
    for scope in (everything(known), one_ci(known, "files@west")):
        assert scope.shown("tools") == {}
        assert scope.shown("prompts") == {}
        assert len(scope.shown("resources")) == len(scope.shown("templates")) == 1
    assert "resource.read:file:///{name}" in known.asked


@pytest.mark.parametrize(
    ("changes", "listed"),
    [({}, True), ({"state": OFFLINE}, False), ({"says": False}, False), ({"mcp": True}, False)],
)
def test_a_ci_without_mcp_is_a_tool_for_messages(changes: dict[str, Any], listed: bool) -> None:
    plain = entry("plain", **({"made": None, "mcp": False, "description": "It thinks."} | changes))
    known = Known([plain])
    shown = everything(known).shown("tools")
    assert list(shown) == (["west__plain__send_message"] if listed else [])
    assert list(one_ci(known, "plain@west").shown("tools")) == (["send_message"] if listed else [])
    for found in shown.values():
        assert found.speaks and "It thinks." in found.item["description"]


def test_one_ci_has_its_own_names() -> None:
    scope = one_ci(Known([entry("files"), PLAIN]), "files@west")
    assert list(scope.shown("tools")) == ["bare", "echo"]
    assert list(scope.shown("templates")) == ["file:///{name}"]
    found = scope.resource("any:thing")
    assert found is not None and found[1] == "any:thing"
    assert scope.outward(entry("files"), "note://one") == "note://one"
    assert scope.concerns(entry("files")) and not scope.concerns(PLAIN)


def test_one_ci_that_is_gone_shows_nothing_and_its_coming_back_concerns_it() -> None:
    scope = one_ci(Known([]), "files@west")
    assert scope.shown("tools") == {}
    assert scope.resource("note://one") is None
    assert scope.concerns(entry("files"))


def test_a_view_shows_what_it_allows() -> None:
    known = Known([entry("files"), entry("files", "east"), PLAIN])
    scope = everything(known, "FILES@west/ec*", "plain@west", "files@east/note*")
    assert list(scope.shown("tools")) == ["west__files__echo", "west__plain__send_message"]
    assert list(scope.shown("resources")) == ["mesh://east/files/note%3A%2F%2Fone"]
    assert scope.resource("mesh://east/files/note%3A%2F%2Fone") is not None
    assert scope.resource("mesh://west/files/note%3A%2F%2Fone") is None
    assert everything(known, "none@west").shown("tools") == {}


@pytest.mark.parametrize("uri", ["note://one", "mesh://west/nobody/x", "mesh://west/files/"])
def test_a_uri_that_is_none_of_ours_leads_nowhere(uri: str) -> None:
    assert everything(Known([entry("files")])).resource(uri) is None


def test_results_have_the_uris_of_the_list() -> None:
    known = Known([entry("files")])
    inner, outer = "note://one", "mesh://west/files/note%3A%2F%2Fone"
    result = {
        "contents": [{"uri": inner, "text": "x"}, "no object"],
        "content": [
            {"type": "resource", "resource": {"uri": inner}},
            {"type": "text", "text": "x"},
        ],
        "messages": [{"role": "user", "content": {"type": "resource_link", "uri": inner}}, 7],
        "other": {"uri": inner},
    }
    changed = rewritten(everything(known), entry("files"), result)
    assert changed["contents"] == [{"uri": outer, "text": "x"}, "no object"]
    assert changed["content"][0] == {"type": "resource", "resource": {"uri": outer}}
    assert changed["messages"][0]["content"]["uri"] == outer and changed["messages"][1] == 7
    assert changed["other"] == {"uri": inner}
    assert rewritten(everything(known), entry("files"), {}) == {}
    assert rewritten(one_ci(known, "files@west"), entry("files"), result) == result
