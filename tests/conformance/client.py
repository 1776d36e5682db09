"""The attaching side under the conformance suite's client scenarios: `client.py URL`.

The same connection code that attaches servers (`tektonmesh.mcp.upstream`, `transports`), with the
SDK's OAuth in front, whose person is a redirect that is followed at once.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import trio
from mcp.client.auth import OAuthClientProvider, TokenStorage
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from mcp.shared.exceptions import MCPError

from tektonmesh.mcp.transports import by_http
from tektonmesh.mcp.upstream import Flight, Upstream, open_upstream
from tektonmesh.net.reach import Reach

SCENARIO = os.environ.get("MCP_CONFORMANCE_SCENARIO", "")
CONTEXT: dict[str, Any] = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))
CAPABILITIES = {"elicitation": {"form": {"applyDefaults": True}}, "sampling": {}, "roots": {}}
META = {"io.modelcontextprotocol/clientCapabilities": CAPABILITIES}


class Memory(TokenStorage):
    """Tokens for one run."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None
        if "client_id" in CONTEXT:
            self.client = OAuthClientInformationFull(
                client_id=CONTEXT["client_id"],
                client_secret=CONTEXT.get("client_secret"),
                redirect_uris=[REDIRECT],
                token_endpoint_auth_method="client_secret_basic",
            )

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


REDIRECT: Any = "http://localhost:3030/callback"


def sign_in(url: str) -> OAuthClientProvider:
    """OAuth whose person follows the redirect at once."""
    from mcp.client.auth.oauth2 import AuthorizationCodeResult

    came: list[str] = []

    async def follow(where: str) -> None:
        async with httpx2.AsyncClient() as browser:
            answer = await browser.get(where, follow_redirects=False)
            came.append(answer.headers["location"])

    async def back() -> AuthorizationCodeResult:
        found = parse_qs(urlsplit(came.pop()).query)
        return AuthorizationCodeResult(
            code=found["code"][0],
            state=found.get("state", [None])[0],
            iss=found.get("iss", [None])[0],
        )

    about = OAuthClientMetadata(
        client_name="tektonmesh",
        redirect_uris=[REDIRECT],
        grant_types=["authorization_code", "refresh_token"],
        response_types=["code"],
    )
    return OAuthClientProvider(
        url,
        about,
        Memory(),
        follow,
        back,
        client_metadata_url="https://conformance-test.local/client-metadata.json",
    )


async def asked(method: str, params: dict[str, Any]) -> dict[str, Any]:
    """What a person would answer."""
    if method == "elicitation/create":
        properties = params.get("requestedSchema", {}).get("properties", {})
        content = {name: one["default"] for name, one in properties.items() if "default" in one}
        needed = {name: _value(one) for name, one in properties.items() if name not in content}
        wanted = params.get("requestedSchema", {}).get("required", [])
        content |= {name: value for name, value in needed.items() if name in wanted}
        return {"action": "accept", "content": content}
    if method == "sampling/createMessage":
        said = {"type": "text", "text": "a sample"}
        return {"role": "assistant", "content": said, "model": "test", "stopReason": "endTurn"}
    return {"roots": [{"uri": "file:///tmp", "name": "tmp"}]}


def _value(schema: dict[str, Any]) -> Any:
    if "enum" in schema:
        return schema["enum"][0]
    kinds: dict[str, Any] = {"boolean": True, "integer": 1, "number": 1.5}
    return kinds.get(schema.get("type", "string"), "a word")


async def call(upstream: Upstream, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """A call with as many rounds as the server wants."""
    params: dict[str, Any] = {"name": name, "arguments": arguments, "_meta": META}
    for _round in range(5):
        flight = Flight(lambda _method, _params: None, asked)
        result = await upstream.call("tools/call", params, flight)
        if result.get("resultType") != "input_required":
            return result
        answers = {
            key: await asked(one["method"], one.get("params") or {})
            for key, one in (result.get("inputRequests") or {}).items()
        }
        params = {**params, "inputResponses": answers}
        params.pop("requestState", None)
        if "requestState" in result:
            params["requestState"] = result["requestState"]
    raise RuntimeError("The server asks for ever.")


async def use(upstream: Upstream) -> None:
    """List everything, then call every tool once, or those that the scenario names."""
    lists = await upstream.lists()
    given = CONTEXT.get("toolCalls") or [
        {"name": tool["name"], "arguments": _arguments(tool)} for tool in lists.get("tools", [])
    ]
    for one in given:
        try:
            await call(upstream, one["name"], one.get("arguments") or {})
        except MCPError as error:
            print(f"{one['name']}: {error}", file=sys.stderr)


def _arguments(tool: dict[str, Any]) -> dict[str, Any]:
    schema = tool.get("inputSchema", {})
    return {name: _value(one) for name, one in schema.get("properties", {}).items()}


async def main(url: str) -> None:
    auth = sign_in(url) if SCENARIO.startswith("auth/") else None
    reach = Reach()
    async with by_http({"url": url}, reach, auth) as streams, open_upstream(streams) as upstream:
        await use(upstream)
    await reach.aclose()


if __name__ == "__main__":
    trio.run(main, sys.argv[-1])
