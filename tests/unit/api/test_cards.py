"""Cards and catalogues for other worlds: what they say, what is signed, and what they leave out."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from types import SimpleNamespace
from typing import Any

import pytest
import rfc8785

from tektonmesh.api import cards
from tektonmesh.core import views
from tektonmesh.core.ids import show_id
from tektonmesh.errors import LocalError
from tektonmesh.wire.keys import verify
from tests.desks import Desks

BASE = "http://127.0.0.1:7780"


def operations() -> Any:
    """Those of the stack `a`, which has two CIs and knows one of `b`."""
    desks = Desks("a", "b")
    desks["b"].member.register("athena")
    desks["a"].member.register("numa", capabilities=["read", "write"], specialties=["files"])
    desks["a"].member.register("plain", type="")
    desks.settle(2.0)
    return SimpleNamespace(daemon=desks["a"])


def decoded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def is_signed(asked: Any, card: dict[str, Any]) -> bool:
    """Whether the signature holds, by the key in the set and RFC 7515 alone."""
    (key,) = cards.keys_of(asked)["keys"]
    (signature,) = card["signatures"]
    header = json.loads(decoded(signature["protected"]))
    assert (header["alg"], header["kid"]) == ("EdDSA", key["kid"])
    body = {word: value for word, value in card.items() if word != "signatures"}
    payload = cards.base64url(rfc8785.dumps(cards.without_empty(body)))
    signed = f"{signature['protected']}.{payload}".encode()
    return verify(decoded(key["x"]), b"", signed, decoded(signature["signature"]))


def card_of(asked: Any, address: str) -> dict[str, Any]:
    return cards.card_of(asked, views.record(asked.daemon.node, address), BASE)


@pytest.mark.parametrize("address", ["numa@a", "athena@b"])
def test_the_card_of_a_ci_is_signed_by_the_stack_that_shows_it(address: str) -> None:
    asked = operations()
    card = card_of(asked, address)
    assert is_signed(asked, card)
    assert not is_signed(asked, card | {"description": "Something else."})
    assert card["supportedInterfaces"][0]["url"] == f"{BASE}/a2a/{address}"


def test_what_a_ci_says_that_it_can_do_are_its_skills_after_messages() -> None:
    asked = operations()
    skills = card_of(asked, "numa@a")["skills"]
    assert [one["id"] for one in skills] == ["message", "read", "write"]
    assert skills[0]["tags"] == ["files", "read", "write"]
    assert card_of(asked, "athena@b")["skills"][0]["tags"] == ["message"]


def test_the_card_of_the_stack_has_its_cis_for_skills() -> None:
    asked = operations()
    card = cards.stack_card(asked, BASE)
    assert is_signed(asked, card)
    assert {one["id"]: one["tags"] for one in card["skills"]} == {
        "numa": ["files", "read", "write"],
        "plain": ["ci"],
    }
    empty = SimpleNamespace(daemon=Desks("a")["a"])
    assert cards.stack_card(empty, BASE)["supportedInterfaces"] == []


def test_the_catalogue_lists_the_server_of_mcp_and_every_card() -> None:
    asked = operations()
    found = cards.catalogue(asked, BASE)
    assert found["host"]["identifier"].endswith(show_id(asked.daemon.node.env.me))
    assert [entry["displayName"] for entry in found["entries"]] == [
        "a: tools of the mesh",
        "numa@a",
        "plain@a",
        "athena@b",
    ]
    assert found["entries"][-1]["url"] == f"{BASE}/a2a/athena@b/agent-card.json"


def test_what_is_empty_is_left_out_at_any_depth() -> None:
    value = {"a": "", "b": [], "c": {"d": ""}, "e": [{}, "x", [""]], "f": 0, "g": False}
    assert cards.without_empty(value) == {"e": ["x"], "f": 0, "g": False}


def test_the_texts_of_a_message_are_joined() -> None:
    parts = [{"text": "one"}, {"url": "x"}, "no part", {"text": 7}, {"text": "two"}]
    assert cards.text_of({"parts": parts}) == "one\ntwo"


@pytest.mark.parametrize("message", [None, {}, {"parts": None}, {"parts": [{"url": "x"}]}])
def test_a_message_without_text_is_refused(message: Any) -> None:
    with pytest.raises(LocalError, match="no part with text"):
        cards.text_of(message)
