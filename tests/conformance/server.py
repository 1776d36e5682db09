"""An MCP server with everything that the official conformance suite looks for, over stdio.

`python server.py [--old]`: in both eras of the protocol, or with `--old` in the older one alone.
What it asks its caller is written once: in the newest dialect a question ends the call, in the old
one it goes out in the middle of it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import mcp_types as types
import trio
from mcp.server.lowlevel.server import Server
from mcp.server.runner import serve_loop
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    PromptsListChanged,
    ToolsListChanged,
)
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJg"
    "gg=="
)
WAV = "UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA="
SECRET = b"only for this server"
NOTHING = {"type": "object", "properties": {}}
KINDS: dict[str, tuple[Any, Any]] = {
    "elicitation/create": (types.ElicitRequest, types.ElicitResult),
    "sampling/createMessage": (types.CreateMessageRequest, types.CreateMessageResult),
    "roots/list": (types.ListRootsRequest, types.ListRootsResult),
}
bus = InMemorySubscriptionBus()


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": words}]} | more


def form(message: str, **properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {
        "method": "elicitation/create",
        "params": {"message": message, "requestedSchema": schema},
    }


def sampling(words: str, most: int) -> dict[str, Any]:
    said = [{"role": "user", "content": {"type": "text", "text": words}}]
    return {"method": "sampling/createMessage", "params": {"messages": said, "maxTokens": most}}


ROOTS: dict[str, Any] = {"method": "roots/list", "params": {}}


def signed(state: str) -> str:
    return state + "." + hmac.new(SECRET, state.encode(), hashlib.sha256).hexdigest()


def checked(state: Any) -> str:
    plain = str(state).rpartition(".")[0]
    if not hmac.compare_digest(signed(plain).encode(), str(state).encode()):
        raise MCPError(types.INVALID_PARAMS, "The request state was tampered with.")
    return plain


class InputRequired(Exception):
    """The call ends with questions."""

    def __init__(self, requests: dict[str, Any], state: str | None) -> None:
        super().__init__("input required")
        self.result: dict[str, Any] = {"resultType": "input_required", "inputRequests": requests}
        if state is not None:
            self.result["requestState"] = signed(state)


class Call:
    """One call in either era."""

    def __init__(self, ctx: Any) -> None:
        self.ctx = ctx
        self.params = dict(ctx.params or {})
        self.arguments = self.params.get("arguments") or {}
        self.modern = ctx.protocol_version in MODERN_PROTOCOL_VERSIONS

    async def ask(self, requests: dict[str, Any], state: str | None = None) -> dict[str, Any]:
        """The answers, by the names of the questions."""
        if not self.modern:
            return {name: await self._ask_one(request) for name, request in requests.items()}
        given = self.params.get("inputResponses")
        answers = given if isinstance(given, dict) else {}
        if not all(isinstance(answers.get(name), dict) for name in requests):
            raise InputRequired(requests, state)
        if state is not None and checked(self.params.get("requestState")) != state:
            raise InputRequired(requests, state)
        return answers

    async def _ask_one(self, request: dict[str, Any]) -> dict[str, Any]:
        kind, result = KINDS[request["method"]]
        related = ServerMessageMetadata(related_request_id=self.ctx.request_id)
        asked = kind.model_validate(request)
        answer = await self.ctx.session.send_request(asked, result, metadata=related)
        found: dict[str, Any] = answer.model_dump(by_alias=True, mode="json", exclude_none=True)
        return found

    async def log(self, words: str) -> None:
        said = types.LoggingMessageNotification(
            params=types.LoggingMessageNotificationParams(level="info", data=words)
        )
        level = (self.params.get("_meta") or {}).get("io.modelcontextprotocol/logLevel")
        if not self.modern or level in ("debug", "info"):
            await self.ctx.session.send_notification(said, related_request_id=self.ctx.request_id)

    @property
    def capabilities(self) -> dict[str, Any]:
        meta = self.params.get("_meta") or {}
        found: dict[str, Any] = meta.get("io.modelcontextprotocol/clientCapabilities") or {}
        return found


Act = Callable[[Call], Awaitable[dict[str, Any]]]
TOOLS: dict[str, tuple[Act, dict[str, Any]]] = {}


def tool(schema: dict[str, Any] | None = None) -> Callable[[Act], Act]:
    def wrap(act: Act) -> Act:
        TOOLS[act.__name__] = (act, schema or NOTHING)
        return act

    return wrap


# --- plain tools ---------------------------------------------------------------------------------


@tool()
async def test_simple_text(call: Call) -> dict[str, Any]:
    return text("This is a simple text response for testing.")


@tool()
async def test_image_content(call: Call) -> dict[str, Any]:
    return {"content": [{"type": "image", "data": PNG, "mimeType": "image/png"}]}


@tool()
async def test_audio_content(call: Call) -> dict[str, Any]:
    return {"content": [{"type": "audio", "data": WAV, "mimeType": "audio/wav"}]}


def embedded(uri: str, words: str, kind: str = "text/plain") -> dict[str, Any]:
    return {"type": "resource", "resource": {"uri": uri, "mimeType": kind, "text": words}}


@tool()
async def test_embedded_resource(call: Call) -> dict[str, Any]:
    said = "This is an embedded resource content."
    return {"content": [embedded("test://embedded-resource", said)]}


@tool()
async def test_multiple_content_types(call: Call) -> dict[str, Any]:
    inner = embedded(
        "test://mixed-content-resource", '{"test":"data","value":123}', "application/json"
    )
    picture = {"type": "image", "data": PNG, "mimeType": "image/png"}
    return {"content": [{"type": "text", "text": "Multiple content types test:"}, picture, inner]}


@tool()
async def test_error_handling(call: Call) -> dict[str, Any]:
    return text("This tool intentionally returns an error for testing", isError=True)


@tool()
async def test_tool_with_logging(call: Call) -> dict[str, Any]:
    for words in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await call.log(words)
        await trio.sleep(0.05)
    return text("Logged.")


@tool()
async def test_logging_tool(call: Call) -> dict[str, Any]:
    await call.log("A line of the log")
    return text("Logged.")


@tool()
async def test_tool_with_progress(call: Call) -> dict[str, Any]:
    for done in (0, 50, 100):
        await call.ctx.session.report_progress(done, 100, f"Completed {done} of 100")
        await trio.sleep(0.05)
    return text("Done.")


ADDRESS = {"$anchor": "addressDef", "type": "object"}


@tool(
    {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
            }
        },
        "properties": {
            "name": {"type": "string"},
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": {"type": "string", "enum": ["phone", "email"]},
            "phone": {"type": "string"},
            "email": {"type": "string"},
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": False,
    }
)
async def json_schema_2020_12_tool(call: Call) -> dict[str, Any]:
    return text(json.dumps(call.arguments))


@tool()
async def test_missing_capability(call: Call) -> dict[str, Any]:
    if call.modern and "sampling" not in call.capabilities:
        raise MCPError(
            types.MISSING_REQUIRED_CLIENT_CAPABILITY,
            "This tool needs sampling.",
            {"requiredCapabilities": {"sampling": {}}},
        )
    return text("Well.")


@tool()
async def test_trigger_tool_change(call: Call) -> dict[str, Any]:
    await bus.publish(ToolsListChanged())
    return text("Told.")


@tool()
async def test_trigger_prompt_change(call: Call) -> dict[str, Any]:
    await bus.publish(PromptsListChanged())
    return text("Told.")


# --- tools that ask ------------------------------------------------------------------------------


@tool({"type": "object", "properties": {"prompt": {"type": "string"}}, "required": ["prompt"]})
async def test_sampling(call: Call) -> dict[str, Any]:
    found = (await call.ask({"sample": sampling(call.arguments["prompt"], 100)}))["sample"]
    return text(f"LLM response: {found.get('content', {}).get('text')}")


@tool({"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]})
async def test_elicitation(call: Call) -> dict[str, Any]:
    said = {"type": "string", "description": "User's response"}
    where = {"type": "string", "description": "User's email address"}
    found = await call.ask({"user": form(call.arguments["message"], username=said, email=where)})
    answer = found["user"]
    return text(f"User response: action={answer.get('action')}, {answer.get('content')}")


async def elicited(call: Call, request: dict[str, Any]) -> dict[str, Any]:
    answer = (await call.ask({"form": request}))["form"]
    said = json.dumps(answer.get("content"))
    return text(f"Elicitation completed: action={answer.get('action')}, content={said}")


@tool()
async def test_elicitation_sep1034_defaults(call: Call) -> dict[str, Any]:
    words = ["active", "inactive", "pending"]
    return await elicited(
        call,
        form(
            "Look at the defaults.",
            name={"type": "string", "default": "John Doe"},
            age={"type": "integer", "default": 30},
            score={"type": "number", "default": 95.5},
            status={"type": "string", "enum": words, "default": "active"},
            verified={"type": "boolean", "default": True},
        ),
    )


def titled(kind: str) -> list[dict[str, str]]:
    return [
        {"const": f"value{number}", "title": f"{word} {kind}"}
        for number, word in enumerate(("First", "Second", "Third"), 1)
    ]


@tool()
async def test_elicitation_sep1330_enums(call: Call) -> dict[str, Any]:
    plain = ["option1", "option2", "option3"]
    old = {"enum": ["opt1", "opt2", "opt3"]}
    return await elicited(
        call,
        form(
            "Choose.",
            untitledSingle={"type": "string", "enum": plain},
            titledSingle={"type": "string", "oneOf": titled("Option")},
            legacyEnum={
                "type": "string",
                **old,
                "enumNames": ["Option One", "Option Two", "Option Three"],
            },
            untitledMulti={"type": "array", "items": {"type": "string", "enum": plain}},
            titledMulti={"type": "array", "items": {"anyOf": titled("Choice")}},
        ),
    )


NAME = form("What is your name?", name={"type": "string"})


def name_in(answer: dict[str, Any]) -> Any:
    content = answer.get("content")
    return content.get("name") if isinstance(content, dict) else None


@tool()
async def test_input_required_result_elicitation(call: Call) -> dict[str, Any]:
    answer = (await call.ask({"user_name": NAME}))["user_name"]
    if not isinstance(name_in(answer), str):
        raise InputRequired({"user_name": NAME}, None)
    return text(f"Hello, {name_in(answer)}!")


@tool()
async def test_streaming_elicitation(call: Call) -> dict[str, Any]:
    await call.ctx.session.report_progress(1, 2, "About to ask")
    return await test_input_required_result_elicitation(call)


@tool()
async def test_input_required_result_sampling(call: Call) -> dict[str, Any]:
    asked = {"capital_question": sampling("What is the capital of France?", 100)}
    answer = (await call.ask(asked))["capital_question"]
    return text(f"The model says: {answer.get('content', {}).get('text')}")


@tool()
async def test_input_required_result_list_roots(call: Call) -> dict[str, Any]:
    answer = (await call.ask({"client_roots": ROOTS}))["client_roots"]
    return text("Roots: " + ", ".join(root["uri"] for root in answer.get("roots", [])))


@tool()
async def test_input_required_result_request_state(call: Call) -> dict[str, Any]:
    await call.ask({"confirm": form("Please confirm", ok={"type": "boolean"})}, "confirm")
    return text("state-ok")


@tool()
async def test_input_required_result_multiple_inputs(call: Call) -> dict[str, Any]:
    asked = {
        "user_name": NAME,
        "greeting": sampling("Generate a greeting", 50),
        "client_roots": ROOTS,
    }
    answers = await call.ask(asked, "several")
    return text(f"{len(answers)} answers")


@tool()
async def test_input_required_result_multi_round(call: Call) -> dict[str, Any]:
    first = {"step1": form("Step 1: What is your name?", name={"type": "string"})}
    second = {"step2": form("Step 2: What is your favorite color?", color={"type": "string"})}
    if not call.modern:
        await call.ask(first)
        await call.ask(second)
        return text("Both known.")
    given = call.params.get("inputResponses") or {}
    if "step1" in given and checked(call.params.get("requestState")) == "one":
        raise InputRequired(second, "two")
    if "step2" in given and checked(call.params.get("requestState")) == "two":
        return text("Both known.")
    raise InputRequired(first, "one")


@tool()
async def test_input_required_result_tampered_state(call: Call) -> dict[str, Any]:
    await call.ask({"confirm": form("Please confirm", ok={"type": "boolean"})}, "tampered")
    return text("state-ok")


@tool()
async def test_input_required_result_capabilities(call: Call) -> dict[str, Any]:
    asked: dict[str, Any] = {}
    if "sampling" in call.capabilities:
        asked["sample"] = sampling("Say something", 20)
    if "elicitation" in call.capabilities:
        asked["user_name"] = NAME
    if asked:
        await call.ask(asked)
    return text("Asked what can be answered.")


# --- resources and prompts -----------------------------------------------------------------------

RESOURCES = [
    {
        "uri": "test://static-text",
        "name": "static-text",
        "description": "A text.",
        "mimeType": "text/plain",
    },
    {
        "uri": "test://static-binary",
        "name": "static-binary",
        "description": "A picture.",
        "mimeType": "image/png",
    },
    {
        "uri": "test://watched-resource",
        "name": "watched-resource",
        "description": "Something that changes.",
        "mimeType": "text/plain",
    },
]
TEMPLATE = {
    "uriTemplate": "test://template/{id}/data",
    "name": "template",
    "description": "Data by id.",
    "mimeType": "application/json",
}
CACHED = {"ttlMs": 1000, "cacheScope": "private"}


async def read_resource(_ctx: Any, params: Any) -> dict[str, Any]:
    uri = str(params.uri)
    found: dict[str, Any] = {"uri": uri, "mimeType": "text/plain"}
    if uri == "test://static-text":
        found["text"] = "This is the content of the static text resource."
    elif uri == "test://static-binary":
        found |= {"blob": PNG, "mimeType": "image/png"}
    elif uri == "test://watched-resource":
        found["text"] = "As it is now."
    elif uri.startswith("test://template/") and uri.endswith("/data"):
        number = uri.split("/")[3]
        said = {"id": number, "templateTest": True, "data": f"Data for ID: {number}"}
        found |= {"text": json.dumps(said), "mimeType": "application/json"}
    else:
        raise MCPError(types.INVALID_PARAMS, "Resource not found", {"uri": uri})
    return {"contents": [found], "resultType": "complete"} | CACHED


def argument(name: str) -> dict[str, Any]:
    return {"name": name, "description": "An argument.", "required": True}


PROMPTS = [
    {"name": "test_simple_prompt", "description": "A prompt."},
    {
        "name": "test_prompt_with_arguments",
        "description": "A prompt with arguments.",
        "arguments": [argument("arg1"), argument("arg2")],
    },
    {
        "name": "test_prompt_with_embedded_resource",
        "description": "A prompt with a resource.",
        "arguments": [argument("resourceUri")],
    },
    {"name": "test_prompt_with_image", "description": "A prompt with a picture."},
    {"name": "test_input_required_result_prompt", "description": "A prompt that asks."},
]


def user(content: Any) -> dict[str, Any]:
    said = {"type": "text", "text": content} if isinstance(content, str) else content
    return {"role": "user", "content": said}


async def get_prompt(ctx: Any, params: Any) -> dict[str, Any]:
    given = params.arguments or {}
    if params.name == "test_simple_prompt":
        messages = [user("This is a simple prompt for testing.")]
    elif params.name == "test_prompt_with_arguments":
        one, two = given.get("arg1"), given.get("arg2")
        messages = [user(f"Prompt with arguments: arg1='{one}', arg2='{two}'")]
    elif params.name == "test_prompt_with_embedded_resource":
        said = "Embedded resource content for testing."
        inner = embedded(str(given.get("resourceUri")), said)
        messages = [user(inner), user("Please process the embedded resource above.")]
    elif params.name == "test_prompt_with_image":
        picture = {"type": "image", "data": PNG, "mimeType": "image/png"}
        messages = [user(picture), user("Please analyze the image above.")]
    elif params.name == "test_input_required_result_prompt":
        asked = form("What context should the prompt use?", context={"type": "string"})
        try:
            answer = (await Call(ctx).ask({"user_context": asked}))["user_context"]
        except InputRequired as questions:
            return questions.result
        messages = [user(f"Context: {answer.get('content')}")]
    else:
        raise MCPError(types.INVALID_PARAMS, f"Unknown prompt: {params.name}")
    return {"messages": messages, "resultType": "complete"}


# --- the server ----------------------------------------------------------------------------------


async def list_tools(_ctx: Any, _params: Any) -> dict[str, Any]:
    found = [
        {"name": name, "description": f"For the scenario {name}.", "inputSchema": schema}
        for name, (_act, schema) in TOOLS.items()
    ]
    return {"tools": found, "resultType": "complete"} | CACHED


async def call_tool(ctx: Any, params: Any) -> dict[str, Any]:
    if params.name not in TOOLS:
        raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {params.name}")
    try:
        return {"resultType": "complete"} | await TOOLS[params.name][0](Call(ctx))
    except InputRequired as questions:
        return questions.result


def listing(key: str, items: list[dict[str, Any]]) -> Any:
    async def act(_ctx: Any, _params: Any) -> dict[str, Any]:
        return {key: items, "resultType": "complete"} | CACHED

    return act


async def nothing(_ctx: Any, _params: Any) -> dict[str, Any]:
    return {}


async def complete(_ctx: Any, params: Any) -> dict[str, Any]:
    words = [word for word in ("paris", "park", "party") if word.startswith(params.argument.value)]
    found = {"values": words, "total": len(words), "hasMore": False}
    return {"completion": found, "resultType": "complete"}


def make() -> Server[Any]:
    server: Server[Any] = Server("conformance", version="1")
    page = types.PaginatedRequestParams
    for method, kind, act in (
        ("tools/list", page, list_tools),
        ("tools/call", types.CallToolRequestParams, call_tool),
        ("resources/list", page, listing("resources", RESOURCES)),
        ("resources/templates/list", page, listing("resourceTemplates", [TEMPLATE])),
        ("resources/read", types.ReadResourceRequestParams, read_resource),
        ("resources/subscribe", types.SubscribeRequestParams, nothing),
        ("resources/unsubscribe", types.UnsubscribeRequestParams, nothing),
        ("prompts/list", page, listing("prompts", PROMPTS)),
        ("prompts/get", types.GetPromptRequestParams, get_prompt),
        ("completion/complete", types.CompleteRequestParams, complete),
        ("logging/setLevel", types.SetLevelRequestParams, nothing),
        ("subscriptions/listen", types.SubscriptionsListenRequestParams, ListenHandler(bus)),
    ):
        server.add_request_handler(method, kind, act)
    return server


async def main() -> None:
    server = make()
    async with stdio_server() as (incoming, outgoing):
        if "--old" in sys.argv:
            await serve_loop(server, incoming, outgoing, lifespan_state={})
        else:
            await server.run(incoming, outgoing, server.create_initialization_options())


if __name__ == "__main__":
    trio.run(main)
