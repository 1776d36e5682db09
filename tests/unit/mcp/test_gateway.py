"""A face as hosts of both eras see it, through the official client."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from types import SimpleNamespace
from typing import Any

import mcp_types as types
import pytest
import trio
import trio.testing
from mcp import Client
from mcp.shared.exceptions import MCPError

from tektonmesh.core import events as ev
from tektonmesh.errors import DeliveryError, LocalError, MeshError
from tektonmesh.mcp import frames, gateway
from tektonmesh.mcp.federation import Entry
from tektonmesh.mcp.gateway import About, Gateway, Ties
from tektonmesh.mcp.mesh_tools import MeshTools
from tektonmesh.mcp.scopes import Everything, OneCi
from tests.desks import Desks, catalogue, tool
from tests.unit.mcp.test_scopes import PLAIN, Known, entry

pytestmark = [
    # The official client leaves streams of its own to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    # Old hosts go on using what the newest dialect has given up.
    pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning"),
]
ALL = ("tools", "resources", "prompts", "completions", "logging")
ERAS = pytest.mark.parametrize("mode", ["auto", "legacy"])
MADE = catalogue(
    tools=[tool("echo"), tool("icons", icons="none")],
    resources=[{"uri": "note://one", "name": "one"}],
    templates=[{"uriTemplate": "file:///{name}", "name": "file"}],
    prompts=[{"name": "ask"}],
)
Reply = Callable[[str, dict[str, Any]], Any]


class Mesh:
    """A daemon whose CIs answer as `reply` does: with lines of a call, or by raising."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, dict[str, Any]]] = []
        self.options: list[dict[str, Any]] = []
        self.cancelled = 0
        self.reply: Reply = lambda _method, _params: [frames.result_line({"content": []})]

    def new_id(self) -> bytes:
        return b"0123456789abcdef"

    async def ask(self, make: Callable[[int], ev.Event]) -> dict[str, Any]:
        event = make(1)
        assert isinstance(event, ev.SendMessage)
        self.calls.append((event.target, "message", {"text": event.body.decode()}))
        return {"body": event.body.upper()}

    @asynccontextmanager
    async def stream(self, make: Callable[[int], ev.Event]) -> AsyncIterator[Any]:
        event = make(1)
        assert isinstance(event, ev.SendMessage)
        method, params = frames.unpack_call(event.body)
        self.calls.append((event.target, method, params))
        self.options.append(event.options | {"sender": event.sender})
        try:
            async with aclosing(self._lines(method, params)) as lines:
                yield lines
        except trio.Cancelled:
            self.cancelled += 1
            raise

    async def _lines(self, method: str, params: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        found = self.reply(method, params)
        for line in await found if inspect.isawaitable(found) else found:
            yield line


class Bench:
    """A face, and what its daemon was asked."""

    def __init__(self, nursery: trio.Nursery, *, one: bool, offers: tuple[str, ...]) -> None:
        self.mesh = Mesh()
        self.known = Known([entry("files", made=MADE), PLAIN])
        federation: Any = self.known
        self.used: list[str] = []
        self.listened: list[tuple[str, str]] = []
        self.ended: list[str] = []
        self.changed: Callable[[], None] = lambda: None
        scope: Any = OneCi(federation, "files@west") if one else Everything(federation)
        tools = None
        if not one:
            daemon: Any = Desks("a")["a"]
            tools = MeshTools(daemon, federation, scope)
        ties = Ties(nursery, self._listen, self.used.append, self._speaks)
        about = About("face", offers, "Do.")
        self.gateway = Gateway(self.mesh, scope, about, ties=ties, mesh=tools)

    def _listen(self, of: Entry, uri: str, changed: Callable[[], None]) -> Callable[[], None]:
        self.listened.append((of.address, uri))
        self.changed = changed
        return lambda: self.ended.append(uri)

    def _speaks(self, name: str, token: str) -> str:
        if token != "right":
            raise LocalError(f"This caller does not speak for '{name}'.", code="refused")
        return name

    def result(self, **result: Any) -> None:
        self.mesh.reply = lambda _method, _params: [frames.result_line(result)]


@asynccontextmanager
async def a_face(
    mode: str = "auto", *, one: bool = False, offers: tuple[str, ...] = ALL, **options: Any
) -> AsyncIterator[tuple[Bench, Client]]:
    async with trio.open_nursery() as nursery:
        bench = Bench(nursery, one=one, offers=offers)
        options = {"cache": None, "mode": mode} | options
        async with Client(bench.gateway.server, **options) as client:
            yield bench, client
        bench.gateway.listening.close()
        nursery.cancel_scope.cancel()


def meta_of(bench: Bench) -> dict[str, Any]:
    found: dict[str, Any] = bench.mesh.calls[-1][2]["_meta"]
    return found


# --- lists ---------------------------------------------------------------------------------------


@ERAS
async def test_lists_are_those_of_the_scope_without_what_the_sdk_refuses(mode: str) -> None:
    async with a_face(mode, one=True) as (bench, client):
        for _ in range(2):
            assert [one.name for one in (await client.list_tools()).tools] == ["echo"]
        assert [str(one.uri) for one in (await client.list_resources()).resources] == ["note://one"]
        found = (await client.list_resource_templates()).resource_templates
        assert [one.uri_template for one in found] == ["file:///{name}"]
        assert [one.name for one in (await client.list_prompts()).prompts] == ["ask"]
        bench.known.denied = ("echo",)
        bench.known.version += 1
        assert (await client.list_tools()).tools == []
        assert bench.mesh.calls == []


async def test_the_tools_of_the_mesh_are_listed_with_those_of_its_cis() -> None:
    async with a_face() as (_bench, client):
        names = [one.name for one in (await client.list_tools()).tools]
        assert "mesh_search_tools" in names and "west__files__echo" in names
        uris = [str(one.uri) for one in (await client.list_resources()).resources]
        assert uris == ["mesh://registry", "mesh://west/files/note%3A%2F%2Fone"]


async def test_what_a_face_does_not_offer_is_no_method_of_it() -> None:
    async with a_face(one=True, offers=("tools",)) as (_bench, client):
        for act in (client.list_prompts, client.list_resources):
            with pytest.raises(MCPError) as raised:
                await act()
            assert raised.value.code == types.METHOD_NOT_FOUND


# --- calls ---------------------------------------------------------------------------------------


@ERAS
async def test_a_call_goes_to_its_ci_under_its_own_name(mode: str) -> None:
    async with a_face(mode) as (bench, client):
        await client.call_tool("west__files__echo", {"text": "x"})
        address, method, params = bench.mesh.calls[0]
        assert (address, method) == ("files@west", "tools/call")
        assert (params["name"], params["arguments"]) == ("echo", {"text": "x"})
        assert bench.mesh.options[0]["act"] == "tool.call:echo"
        assert bench.used == ["tools/call"]
        assert meta_of(bench)[types.PROTOCOL_VERSION_META_KEY] == "2026-07-28"


async def test_uses_of_this_stack_s_own_cis_are_not_counted() -> None:
    async with a_face() as (bench, client):
        bench.known.all = [entry("files", made=MADE, local=True)]
        bench.known.version += 1
        await client.call_tool("west__files__echo", {})
        assert bench.used == []


async def test_what_an_old_host_can_do_is_said_in_the_newest_dialect() -> None:
    info = types.Implementation(name="host", version="7")
    async with a_face("legacy", one=True, client_info=info) as (bench, client):
        await client.set_logging_level("error")
        await client.call_tool("echo", {})
        assert meta_of(bench)[types.CLIENT_INFO_META_KEY]["name"] == "host"
        assert meta_of(bench)[types.LOG_LEVEL_META_KEY] == "error"


async def test_what_is_not_listed_is_unknown() -> None:
    async with a_face(one=True) as (bench, client):
        with pytest.raises(MCPError, match="Unknown tool: absent"):
            await client.call_tool("absent", {})
        with pytest.raises(MCPError, match="Unknown prompt: absent"):
            await client.get_prompt("absent")
        prompt = types.PromptReference(type="ref/prompt", name="absent")
        with pytest.raises(MCPError, match="Unknown prompt"):
            await client.complete(prompt, {"name": "x", "value": "y"})
        bench.known.all = []
        with pytest.raises(MCPError, match="Resource not found"):
            await client.read_resource("note://one")
        assert bench.mesh.calls == []


async def test_prompts_resources_and_completions_go_the_same_way() -> None:
    async with a_face() as (bench, client):
        bench.result(messages=[])
        await client.get_prompt("west__files__ask")
        bench.result(contents=[{"uri": "note://one", "text": "x"}])
        uri = "mesh://west/files/note%3A%2F%2Fone"
        read = await client.read_resource(uri)
        assert str(read.contents[0].uri) == uri
        bench.result(completion={"values": []})
        ask = types.PromptReference(type="ref/prompt", name="west__files__ask")
        await client.complete(ask, {"name": "x", "value": "y"})
        file = "mesh://west/files/file%3A%2F%2F%2F{name}"
        template = types.ResourceTemplateReference(type="ref/resource", uri=file)
        await client.complete(template, {"name": "x", "value": "y"})
        refs = [params.get("ref") for _to, method, params in bench.mesh.calls if "ref" in params]
        assert [ref.get("name") or ref.get("uri") for ref in refs] == ["ask", "file:///{name}"]
        assert [options["act"] for options in bench.mesh.options] == [
            "prompt.get:ask",
            "resource.read:note://one",
            "prompt.get:ask",
            "resource.read:file:///{name}",
        ]


async def test_a_ci_without_mcp_is_spoken_to() -> None:
    async with a_face() as (bench, client):
        done = await client.call_tool("west__plain__send_message", {"message": "hello"})
        assert done.content[0].text == "HELLO"  # type: ignore[union-attr]
        assert bench.mesh.calls == [("plain@west", "message", {"text": "hello"})]


async def test_tools_of_the_mesh_are_answered_here_and_may_call_others() -> None:
    async with a_face() as (bench, client):
        given = {"name": "west__files__echo", "arguments": {"x": 1}}
        await client.call_tool("mesh_call_tool", given)
        assert bench.mesh.calls[0][2]["arguments"] == {"x": 1}
        given = {"name": "west__plain__send_message", "arguments": {"message": "hi"}}
        await client.call_tool("mesh_call_tool", given)
        read = await client.read_resource("mesh://registry")
        assert read.contents[0].mime_type == "application/json"


@ERAS
async def test_failures_say_what_the_server_or_the_mesh_said(mode: str) -> None:
    async with a_face(mode, one=True) as (bench, client):
        bench.mesh.reply = lambda _m, _p: [frames.error_line(-32042, "No.", {"x": 1})]
        with pytest.raises(MCPError) as raised:
            await client.call_tool("echo", {})
        assert (raised.value.code, raised.value.error.data) == (-32042, {"x": 1})

        def fails(_method: str, _params: Any) -> Any:
            raise DeliveryError("No way.", code="unreachable")

        bench.mesh.reply = fails
        with pytest.raises(MCPError) as raised:
            await client.call_tool("echo", {})
        assert raised.value.error.data["code"] == "unreachable"
        assert raised.value.error.data["call"] == bench.mesh.new_id().hex()
        assert bench.used == []


@ERAS
async def test_progress_and_log_lines_of_a_call_go_to_its_host(mode: str) -> None:
    steps: list[Any] = []
    logged: list[Any] = []

    async def log(params: types.LoggingMessageNotificationParams) -> None:
        logged.append(params.data)

    async def progress(done: float, total: float | None, words: str | None) -> None:
        steps.append((done, total, words))

    lines = [
        frames.notification_line("notifications/progress", {"progress": 1, "message": "on"}),
        frames.notification_line("notifications/progress", {"progress": "x"}),
        frames.notification_line("notifications/message", {"level": "error", "data": "x"}),
        frames.notification_line("notifications/message", {"level": "nonsense", "data": "y"}),
        frames.notification_line("notifications/other", {}),
        frames.result_line({"content": []}),
    ]
    log_options: dict[str, Any] = {"logging_callback": log}
    if mode == "auto":
        log_options["log_level"] = "info"
    async with a_face(mode, one=True, **log_options) as (bench, client):
        bench.mesh.reply = lambda _method, _params: lines
        await client.call_tool("echo", {}, progress_callback=progress)
        await trio.testing.wait_all_tasks_blocked()
    assert steps == [(1, None, "on")]
    assert logged == ["x"]


async def test_a_host_that_gives_a_call_up_cancels_it() -> None:
    async def waits() -> list[bytes]:
        await trio.sleep_forever()
        raise AssertionError

    async with a_face(one=True) as (bench, client):
        bench.mesh.reply = lambda _method, _params: waits()
        with trio.move_on_after(0.05):
            await client.call_tool("echo", {})
        await trio.testing.wait_all_tasks_blocked()
        assert bench.mesh.cancelled == 1


# --- calls that ask back -------------------------------------------------------------------------


def asking(request: Any, **more: Any) -> Reply:
    """A CI that asks once and then says what it was answered."""

    def reply(_method: str, params: dict[str, Any]) -> list[bytes]:
        if "inputResponses" in params:
            text = str((params["inputResponses"], params.get("requestState")))
            return [frames.result_line({"content": [{"type": "text", "text": text}]})]
        asked = {"resultType": "input_required", "inputRequests": request} | more
        return [frames.result_line(asked)]

    return reply


ELICIT = {
    "q": {
        "method": "elicitation/create",
        "params": {
            "mode": "form",
            "message": "Sure?",
            "requestedSchema": {"type": "object", "properties": {"yes": {"type": "boolean"}}},
        },
    }
}


async def answers(_context: Any, _params: Any) -> types.ElicitResult:
    return types.ElicitResult(action="accept", content={"yes": True})


@ERAS
async def test_a_question_is_put_to_the_host_and_the_call_goes_on(mode: str) -> None:
    async with a_face(mode, one=True, elicitation_callback=answers) as (bench, client):
        bench.mesh.reply = asking(ELICIT, requestState="s")
        done = await client.call_tool("echo", {})
        text = done.content[0].text  # type: ignore[union-attr]
        assert "'yes': True" in text and "'s'" in text


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"q": {"method": "no/such"}}, "no host can answer"),
        ({"q": 7}, "no host can answer"),
        ({"q": {"method": "elicitation/create", "params": 7}}, "malformed"),
    ],
)
async def test_a_question_that_is_none_ends_the_call_of_an_old_host(
    request_: Any, words: str
) -> None:
    async with a_face("legacy", one=True, elicitation_callback=answers) as (bench, client):
        bench.mesh.reply = asking(request_)
        with pytest.raises(MCPError, match=words):
            await client.call_tool("echo", {})


async def test_a_ci_that_asks_for_ever_is_given_up() -> None:
    async with a_face("legacy", one=True, elicitation_callback=answers) as (bench, client):
        bench.mesh.reply = lambda _m, _p: asking("no object")(_m, {})
        with pytest.raises(MCPError, match="asked back"):
            await client.call_tool("echo", {})
        assert len(bench.mesh.calls) == gateway.ROUNDS_MAX


# --- changes -------------------------------------------------------------------------------------


async def test_changes_of_lists_are_told_to_a_host_that_listens() -> None:
    async with a_face(one=True) as (bench, client):
        async with client.listen(tools_list_changed=True, prompts_list_changed=True) as changes:
            told = aiter(changes)
            await bench.gateway.tell_changed(["tools", "prompts"])
            with trio.fail_after(5):
                kinds = [type(await anext(told)).__name__ for _ in range(2)]
        assert kinds == ["ToolsListChanged", "PromptsListChanged"]


async def test_changes_of_a_resource_are_heard_of_for_as_long_as_a_host_listens() -> None:
    async with a_face() as (bench, client):
        uri = "mesh://west/files/note%3A%2F%2Fone"
        async with client.listen(resource_subscriptions=[uri]) as changes:
            assert bench.listened == [("files@west", "note://one")]
            bench.changed()
            with trio.fail_after(5):
                assert str((await anext(aiter(changes))).uri) == uri  # type: ignore[union-attr]
        with trio.fail_after(5):
            while bench.ended != ["note://one"]:
                await trio.sleep(0.01)


async def test_an_old_host_s_session_is_told_and_subscribes() -> None:
    heard: list[str] = []

    async def handler(message: Any) -> None:
        heard.append(type(message).__name__)

    async with a_face("legacy", one=True, message_handler=handler) as (bench, client):
        with trio.fail_after(5):
            while not bench.gateway._sessions:
                await trio.sleep(0.01)
        await bench.gateway.tell_changed(["tools", "resources", "prompts"])
        for _ in range(2):
            await client.subscribe_resource("note://one")
        assert bench.listened == [("files@west", "note://one")]
        bench.changed()
        with trio.fail_after(5):
            while len(heard) < 4:
                await trio.sleep(0.01)
        assert sorted(heard)[-1] == "ToolListChangedNotification"
        assert "ResourceUpdatedNotification" in heard
        for _ in range(2):
            await client.unsubscribe_resource("note://one")
        assert bench.ended == ["note://one"]
        await client.subscribe_resource("note://one")
    # The end of the session is the end of what it subscribed to.
    assert bench.ended == ["note://one"] * 2
    assert bench.gateway._sessions == {} and bench.gateway._subscriptions == {}


class Gone:
    """A session whose host has gone."""

    async def send_resource_updated(self, _uri: str) -> None:
        raise MeshError("gone")


async def test_a_host_that_is_gone_is_no_trouble_when_something_changes() -> None:
    await gateway._tell_updated(Gone(), "note://one")


async def test_the_schema_of_a_listed_tool_is_found_without_a_list() -> None:
    async with a_face(one=True) as (bench, _client):
        find = bench.gateway.server.get_tool_input_schema
        assert find is not None
        assert find("echo") == {"type": "object"} and find("absent") is None


async def test_a_face_without_tools_has_no_methods_for_them() -> None:
    async with a_face(one=True, offers=("prompts",)) as (_bench, client):
        assert (await client.list_prompts()).prompts
        with pytest.raises(MCPError):
            await client.list_tools()


async def test_an_old_host_that_said_nothing_of_itself_is_nobody_in_particular() -> None:
    session = SimpleNamespace(client_params=None, client_capabilities=None, _connection=None)
    async with a_face(one=True) as (bench, _client):
        meta = bench.gateway._meta(SimpleNamespace(session=session), {}, modern=False)
    assert meta[types.CLIENT_CAPABILITIES_META_KEY] == {}
    assert types.CLIENT_INFO_META_KEY not in meta


def asks_with(**headers: str) -> Any:
    """A request that came with these headers."""
    names = {"ci": gateway.CI_HEADER, "token": gateway.TOKEN_HEADER}
    shown = {names[word]: value for word, value in headers.items()}
    return SimpleNamespace(request=SimpleNamespace(headers=shown))


async def test_a_host_speaks_for_a_ci_whose_token_it_shows() -> None:
    async with a_face(one=True) as (bench, client):
        caller_of = bench.gateway._caller_of
        assert caller_of(asks_with(ci="numa", token="right")) == "numa"
        assert caller_of(asks_with()) == caller_of(SimpleNamespace(request=None)) == ""
        for headers in ({"ci": "numa"}, {"ci": "numa", "token": "wrong"}):
            with pytest.raises(MCPError, match="does not speak"):
                caller_of(asks_with(**headers))
        await client.call_tool("echo", {})
        assert bench.mesh.options[0]["sender"] == ""
