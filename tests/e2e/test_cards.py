"""Agent cards as the official A2A library sees them, and messages by A2A."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from a2a.types import AgentCard, SendMessageResponse
from a2a.utils.signing import InvalidSignaturesError, create_signature_verifier
from google.protobuf.json_format import ParseDict
from jwt import PyJWK

from tests.e2e.stacks import Stack, a_mesh, wait_until


@pytest.fixture(scope="module")
def west(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that knows a CI of its own and one of another stack."""
    with a_mesh(tmp_path_factory.mktemp("mesh")) as mesh:
        west, east = mesh.chain("we")
        west.start_echo("numa")
        east.start_echo("athena")
        wait_until("both", lambda: {"numa@w", "athena@e"} <= set(west.cis()), within_s=10)
        yield west


def ask(stack: Stack, path: str, body: Any = None) -> Any:
    transport = httpx2.HTTPTransport(uds=str(stack.home / "tektonmesh.sock"))
    with httpx2.Client(transport=transport) as http:
        url = f"http://localhost{path}"
        answer = http.get(url) if body is None else http.post(url, json=body)
    return answer.json()


def verify(stack: Stack, card: AgentCard) -> None:
    (key,) = ask(stack, "/.well-known/jwks.json")["keys"]

    def find(kid: str | None, _jku: str | None) -> PyJWK:
        assert kid == key["kid"] == stack.status()["id"]
        return PyJWK.from_dict(key)

    create_signature_verifier(find, ["EdDSA"])(card)


@pytest.mark.parametrize("address", ["numa@w", "athena@e"])
def test_the_official_library_verifies_the_card_of_a_ci(west: Stack, address: str) -> None:
    shown = ask(west, f"/a2a/{address}/agent-card.json")
    card = ParseDict(shown, AgentCard())
    verify(west, card)
    assert card.name == address
    assert card.supported_interfaces[0].protocol_version == "1.0"
    card.description = "Something else."
    with pytest.raises(InvalidSignaturesError):
        verify(west, card)


def test_the_card_of_the_stack_is_verified_too(west: Stack) -> None:
    card = ParseDict(ask(west, "/.well-known/agent-card.json"), AgentCard())
    verify(west, card)
    assert [skill.id for skill in card.skills] == ["numa"]


def test_a_message_by_a2a_reaches_a_ci_of_another_stack(west: Stack) -> None:
    message = {"messageId": "m-1", "role": "ROLE_USER", "parts": [{"text": "hello"}]}
    asked = {"jsonrpc": "2.0", "id": 7, "method": "SendMessage", "params": {"message": message}}
    answer = ask(west, "/a2a/athena@e", asked)
    reply = ParseDict(answer["result"], SendMessageResponse())
    assert answer["id"] == 7
    assert "hello" in reply.message.parts[0].text.lower()
    assert ask(west, "/a2a/athena@e", asked)["result"]["message"]["messageId"] == (
        reply.message.message_id
    ), "the same message id is the same message"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"method": "GetTask"}, -32601),
        ({"method": 7}, -32600),
        ({"params": {"message": {"parts": []}}}, -32602),
    ],
)
def test_what_is_not_served_is_a_typed_error(
    west: Stack, change: dict[str, Any], code: int
) -> None:
    asked = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {}} | change
    assert ask(west, "/a2a/numa@w", asked)["error"]["code"] == code


def test_the_catalogue_names_every_ci_and_the_mcp_server(west: Stack) -> None:
    found = ask(west, "/.well-known/ai-catalog.json")
    names = [entry["displayName"] for entry in found["entries"]]
    assert {"numa@w", "athena@e"} <= set(names)
    for entry in found["entries"][1:]:
        path = entry["url"].removeprefix("http://localhost")
        verify(west, ParseDict(ask(west, path), AgentCard()))


def test_a_card_of_nobody_is_not_found(west: Stack) -> None:
    assert ask(west, "/a2a/nobody@w/agent-card.json")["code"] == "not_found"
