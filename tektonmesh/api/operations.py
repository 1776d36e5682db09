"""What one can ask a daemon: one set of operations for the socket, HTTP, Hermes and the clients.

Parameters and results are plain dicts; validation, defaults and the shape of answers live here
once. Reads look at the node and answer at once; acts go through the node and may wait. Who may
call is decided by the door that accepted the caller (`Caller`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tektonmesh.api import validate
from tektonmesh.api.bodies import body_of, reply_of
from tektonmesh.api.explaining import explained
from tektonmesh.api.figures import Figures
from tektonmesh.api.governing import Governing
from tektonmesh.api.uploads import Uploads
from tektonmesh.core import events as ev
from tektonmesh.core import views
from tektonmesh.core.ids import parse_id, show_id
from tektonmesh.core.node import Node
from tektonmesh.core.selectors import is_selector
from tektonmesh.core.views_choices import choices
from tektonmesh.errors import LocalError, MeshError
from tektonmesh.net.daemon import Daemon

if TYPE_CHECKING:
    from tektonmesh.api.mcpdoor import McpDoor

Params = Mapping[str, Any]
TARGET_SIZE_MAX = 200
OFFSET_MAX = 1 << 62
TRACE_TIMEOUT_S = 5.0
LEAVE_TIMEOUT_S = 5.0
TEXT = "text/plain; charset=utf-8"


@dataclass(slots=True)
class Caller:
    """Who asks. `connection` can take messages for CIs; `cis` are those it has attached (lower
    case), and it speaks for no other. `trusted` callers act for the owner of the daemon until
    they attach a CI: from then on they are that CI (`is_ci`). `label` is how the sender of their
    messages is shown when it is no CI of this stack."""

    door: str
    trusted: bool = True
    connection: int | None = None
    cis: dict[str, str] = field(default_factory=dict)
    is_ci: bool = False
    label: str = ""
    local: bool = True
    """Whether it came by the Unix socket, or from this daemon itself."""

    @property
    def owner(self) -> bool:
        return self.trusted and not self.is_ci


class Operations:
    """The operations of one daemon. Every method raises MeshError, nothing else, for bad input."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.figures = Figures()
        self.uploads = Uploads(daemon)
        self.mcp: McpDoor | None = None
        self.reads: dict[str, Callable[[Params], Any]] = {
            "ping": self.ping,
            "status": self.status,
            "stacks": self.stacks,
            "list": self.cis,
            "get": self.get,
            "find": self.find,
            "explain": self.explain,
            "route": self.route,
            "message": self.message,
        }
        self.acts: dict[str, Callable[[Params, Caller], Awaitable[Any]]] = {
            "register": self.register,
            "heartbeat": self.heartbeat,
            "deregister": self.deregister,
            "send": self.send,
            "trace": self.trace,
            "peers": self.peers,
            "leave": self.leave,
        } | {name: _owners(act) for name, act in Governing(daemon).acts.items()}

    # --- reads -----------------------------------------------------------------------------------

    def ping(self, _params: Params) -> dict[str, Any]:
        """`{}`: the daemon answers."""
        return {}

    def status(self, _params: Params) -> dict[str, Any]:
        """The object of `status --json`."""
        daemon = self.daemon
        shown = views.status(self._node_now())
        lag_s, lag_max_s = daemon.loop_lag_s
        shown["registry"] |= {"loop_lag_s": round(lag_s, 3), "loop_lag_max_s": round(lag_max_s, 3)}
        return shown | {
            "uptime_s": round(self.uptime_s(), 3),
            "socket": str(daemon.socket_path),
            "listen": list(daemon.listen),
            "http": daemon.http,
            "last_problem": daemon.notices.last_problem,
        }

    def _node_now(self) -> Node:
        """The node with a clock that is of now, for what shows ages."""
        self.daemon.inject(ev.Tick())
        return self.daemon.node

    def uptime_s(self) -> float:
        return self.daemon.wall_s() - self.daemon.started_wall

    def stacks(self, params: Params) -> list[dict[str, Any]]:
        """`{"name"?}`: every stack this node knows, or the one of that name, id or short form."""
        shown = views.stacks(self._node_now())
        wanted = validate.text(params, "name", default="", size_max=TARGET_SIZE_MAX)
        if not wanted:
            return shown
        found = show_id(self.daemon.node.names.resolve_stack(wanted))
        return [stack for stack in shown if stack["id"] == found]

    def cis(self, params: Params) -> list[dict[str, Any]]:
        """`{"stack"?, "specialty"?, "capability"?, "type"?, "state"?, "local"?}`: matching CIs."""
        wanted = {
            key: validate.text(params, key, default="", size_max=TARGET_SIZE_MAX) or None
            for key in ("stack", "specialty", "capability", "type", "state")
        }
        local = params.get("local")
        return views.cis(
            self.daemon.node,
            stack=wanted["stack"],
            specialty=wanted["specialty"],
            capability=wanted["capability"],
            type_=wanted["type"],
            state=wanted["state"],
            local=None if local is None else validate.flag(params, "local"),
        )

    def get(self, params: Params) -> dict[str, Any]:
        """`{"address"}`: one CI as the replica knows it."""
        return views.record(self.daemon.node, target_of(params, "address", "name"))

    def find(self, params: Params) -> list[dict[str, Any]]:
        """`{"words"}`: CIs that fit these words (a text or a list), best first."""
        given = params.get("words")
        if isinstance(given, str):
            given = given.split()
        found = validate.words("words", given)
        if not found:
            raise validate.field_error("words", "is missing: say what to look for")
        return views.find(self.daemon.node, found)

    def explain(self, params: Params) -> dict[str, Any]:
        """`{"name"}`: one stack (or that of a CI's address), why it is in its state, and its last
        changes with their evidence. `{"id"}`: a message, where it is and what it waits for."""
        return explained(self._node_now(), params, self._history)

    def route(self, params: Params) -> dict[str, Any]:
        """`{"target"}`: the next hops that would be tried, and why others are not; for a selector
        the CIs that would be, and why others are not."""
        target = target_of(params, "target")
        if is_selector(target):
            return choices(self._node_now(), target)
        return views.route(self.daemon.node, self._place(target))

    def _place(self, target: str) -> str:
        """Ways lead to stacks as well as to CIs: a bare name that is no CI here is a stack."""
        named = "@" in target or is_selector(target)
        bare = not named and self.daemon.node.cis.get(target) is None
        return f"@{target}" if bare else target

    def message(self, params: Params) -> dict[str, Any]:
        """`{"id"}`: what became of a message that was sent from here."""
        wanted = validate.text(params, "id", default="", size_max=64)
        found = self._history(wanted)
        if found is None:
            raise LocalError(
                f"No message with the id '{wanted}' was sent from here of late.",
                code="not_found",
                hint="`tektonmesh send --json` prints the id.",
            )
        return found

    def _history(self, wanted: str) -> dict[str, Any] | None:
        try:
            msg_id = bytes.fromhex(wanted)
        except ValueError:
            return None
        found = self.daemon.node.durable.outbox.history(msg_id)
        return self.figures.history(wanted) if found is None else reply_of(found)

    # --- registrations ---------------------------------------------------------------------------

    async def register(self, params: Params, caller: Caller) -> dict[str, Any]:
        """Register or update a local CI, from any form that `validate` reads.

        Returns `{"success", "id", "name", "stack", "token", "lease_s", "heartbeat_s"}`.
        """
        attach = caller.connection is not None and validate.flag(params, "attach", True)
        via = caller.door
        if via == "socket" and not attach and "endpoint" not in params and "port" not in params:
            via = "cli"
        spec = validate.registration(
            params,
            via=via,
            attach=attach,
            places=self._places(caller),
            may_start=caller.trusted and caller.local and caller.door != "hermes",
        )
        attached = spec["how"]["kind"] == "attached"
        connection = caller.connection if attached else None
        token, trusted = _token(params), self._may(spec["name"], caller)
        result = await self.daemon.ask(
            lambda ticket: ev.RegisterCi(ticket, spec, connection, token, trusted)
        )
        if attached:
            caller.cis[spec["name"].lower()] = spec["name"]
            caller.is_ci = True
        return result

    def _places(self, caller: Caller) -> validate.Places:
        """Where this caller's endpoints may lead. Hermes' components show no token, so they cannot
        have the daemon speak to what it alone may reach."""
        if caller.door == "hermes":
            return validate.LOOPBACK_ONLY
        daemon = self.daemon
        return validate.Places(
            hosts=daemon.config.allow_endpoint_hosts, own_socket=daemon.socket_path
        )

    def _may(self, name: str, caller: Caller) -> bool:
        """Whether the caller needs no token for this CI."""
        return caller.owner or (caller.trusted and self.is_attached(name, caller))

    def is_attached(self, name: str, caller: Caller) -> bool:
        """Whether that CI is attached to the caller's own connection now."""
        found = self.daemon.node.cis.get(name)
        return (
            found is not None
            and caller.connection is not None
            and found.connection == caller.connection
        )

    async def heartbeat(self, params: Params, caller: Caller) -> dict[str, Any]:
        """`{"name"|"id", "token"?}`; code `unknown_ci` says that it must register again."""
        name, token = self._ci_name(params), _token(params)
        trusted = self._may(name, caller)
        return await self.daemon.ask(lambda ticket: ev.HeartbeatCi(ticket, name, token, trusted))

    async def deregister(self, params: Params, caller: Caller) -> dict[str, Any]:
        """`{"name"|"id", "token"?}`: the CI leaves every replica."""
        name, token = self._ci_name(params), _token(params)
        trusted = self._may(name, caller)
        result = await self.daemon.ask(lambda ticket: ev.DeregisterCi(ticket, name, token, trusted))
        caller.cis.pop(str(result["name"]).lower(), None)
        return result

    def _ci_name(self, params: Params) -> str:
        """The name, or the id that `register` returned; the core knows a CI by either."""
        if params.get("name") is not None:
            return validate.ci_name("name", params["name"])
        wanted = validate.text(params, "id", default="", size_max=64)
        if not wanted:
            raise validate.field_error("name", "is missing: the CI's name or id is needed")
        return wanted

    # --- messages --------------------------------------------------------------------------------

    async def send(self, params: Params, caller: Caller) -> dict[str, Any]:
        """`{"to", "body"|"body_b64"|"body_ref", "content_type"?, "timeout_s"?, "from"?, "token"?,
        "no_reply"?, "durable"?, "ttl_s"?, "idempotency_key"?, "idempotent"?, "conversation"?}`.

        Returns the reply as `reply_of` shows it; `path` names every stack it went through. `to`
        may be a selector: of one that fits comes the reply, of a team a row for each member. With
        `durable` it returns `{"id", "accepted"}` once the message is safe on the disk, and `ttl_s`
        says how long it is worth delivering.
        """
        make = self.message_event(await self.uploads.fitting(params), caller, stream=False)
        started = self.daemon.wall_s()
        try:
            result = await self.daemon.ask(make)
        except MeshError as error:
            self.figures.failed(error, self.daemon.wall_s())
            raise
        self.figures.answered(result, started, self.daemon.wall_s())
        return reply_of(result)

    def begin_send(
        self,
        params: Params,
        caller: Caller,
        done: Callable[[dict[str, Any]], None],
        *,
        failed: Callable[[MeshError], None],
    ) -> Callable[[], None]:
        """As `send`, without a task that waits: one of the two is called once, possibly before
        this returns, unless what is returned was called to give the message up."""
        make = self.message_event(params, caller, stream=False)
        started = self.daemon.wall_s()

        def heard(result: dict[str, Any] | None, error: MeshError | None) -> None:
            if result is not None:
                self.figures.answered(result, started, self.daemon.wall_s())
                done(reply_of(result))
            elif error is not None:
                self.figures.failed(error, self.daemon.wall_s())
                failed(error)

        return self.daemon.begin(make, heard)

    @asynccontextmanager
    async def stream(
        self, params: Params, caller: Caller
    ) -> AsyncIterator[AsyncIterator[bytes | dict[str, Any]]]:
        """As `send`; the iterator yields the chunks of the reply (bytes), then the reply."""
        make = self.message_event(await self.uploads.fitting(params), caller, stream=True)
        async with self.daemon.stream(make) as parts, aclosing(self._counted(parts)) as counted:
            yield counted

    async def _counted(
        self, parts: AsyncIterator[bytes | dict[str, Any]]
    ) -> AsyncGenerator[bytes | dict[str, Any], None]:
        started = self.daemon.wall_s()
        try:
            async for part in parts:
                if isinstance(part, dict):
                    self.figures.answered(part, started, self.daemon.wall_s())
                    yield reply_of(part)
                else:
                    yield part
        except MeshError as error:
            self.figures.failed(error, self.daemon.wall_s())
            raise

    def message_event(
        self, params: Params, caller: Caller, *, stream: bool
    ) -> Callable[[int], ev.SendMessage]:
        """The checked command for a message; its ticket is put in by whoever asks."""
        settings = self.daemon.node.env.settings
        target = target_of(params, "to")
        body, large = body_of(params), self.uploads.named(params)
        if len(body) > settings.body_size_max:
            detail = f"The body has {len(body)} bytes; at most {settings.body_size_max} fit."
            raise LocalError(detail, code="too_large", hint="Hand it in at POST /api/bodies first.")
        timeout_s = validate.number(
            params,
            "timeout_s",
            low=0.01,
            high=settings.request_timeout_max_s,
            default=settings.request_timeout_s,
        )
        assert timeout_s is not None
        content_type = validate.text(params, "content_type", default=TEXT, size_max=100)
        sender = self.sender_of(params, caller)
        if stream and params.get("durable"):
            raise validate.field_error("durable", "is not taken with a streamed reply")
        options: dict[str, Any] = {}
        if validate.flag(params, "no_reply"):
            options["no_reply"] = True
        if validate.flag(params, "idempotent"):
            options["idempotent"] = True
        conversation = validate.text(params, "conversation", default="", size_max=TARGET_SIZE_MAX)
        if conversation:
            options["conversation"] = conversation
        options |= _durable_options(params, settings.durable_ttl_max_s)

        def make(ticket: int) -> ev.SendMessage:
            more = {"large": self.uploads.claim(large)} if large else {}
            return ev.SendMessage(
                ticket, target, body, content_type, sender, timeout_s, stream, options | more
            )

        return make

    def sender_of(self, params: Params, caller: Caller) -> str:
        """Whom the message is from: a connection speaks for the CIs it attached; for another CI
        of this stack it takes that one's token."""
        named = validate.text(params, "from", default="", size_max=TARGET_SIZE_MAX)
        if not named:
            return next(iter(caller.cis.values())) if len(caller.cis) == 1 else caller.label
        plain = named.partition("@")[0]
        found = self.daemon.node.cis.get(plain)
        if found is None:
            raise LocalError(
                f"No CI named '{plain}' is registered here, so nothing can be sent from it.",
                code="unknown_ci",
                hint="Leave 'from' out, or register it first.",
            )
        if not (self.is_attached(plain, caller) or found.fits(_token(params))):
            raise LocalError(
                f"This caller does not speak for '{plain}'.",
                code="refused",
                hint="Leave 'from' out, or show the token of that registration.",
            )
        return str(found.name)

    # --- the mesh --------------------------------------------------------------------------------

    async def trace(self, params: Params, _caller: Caller) -> dict[str, Any]:
        """`{"target", "timeout_s"?}`: `{"hops": [{"hop", "stack", "rtt_ms", "queue_bytes"}],
        "path"}`, measured by a trace envelope."""
        target = self._place(target_of(params, "target", "to"))
        timeout_s = validate.number(params, "timeout_s", low=0.01, high=60, default=TRACE_TIMEOUT_S)
        assert timeout_s is not None
        return await self.daemon.ask(lambda ticket: ev.TraceRoute(ticket, target, timeout_s))

    async def peers(self, params: Params, caller: Caller) -> Any:
        """`{}`: every peer with its state; `{"approve": ID}` or `{"evict": ID}` (an id, or the
        name of a peer in that list) changes one."""
        if params.get("approve") is not None:
            admitted = self._peer_id("approve", params["approve"])
            _for_owner(caller)
            return await self.daemon.ask(lambda ticket: ev.AdmitPeer(ticket, admitted))
        if params.get("evict") is not None:
            evicted = self._peer_id("evict", params["evict"])
            _for_owner(caller)
            return await self.daemon.ask(lambda ticket: ev.EvictPeer(ticket, evicted))
        return self.daemon.node.trust.peers()

    def _peer_id(self, key: str, value: Any) -> bytes:
        if not isinstance(value, str) or not value:
            raise validate.field_error(key, "must be the id or the name of a peer")
        named = [peer["id"] for peer in self.daemon.node.trust.peers() if peer["name"] == value]
        if len(named) > 1:
            raise LocalError(
                f"{len(named)} peers call themselves '{value}'.",
                code="ambiguous",
                hint="Give the id instead.",
                data={"candidates": named},
            )
        return parse_id(named[0] if named else value)

    async def leave(self, params: Params, caller: Caller) -> dict[str, Any]:
        """`{"timeout_s"?}`: tell the mesh that this stack leaves, then stop the daemon."""
        timeout_s = validate.number(params, "timeout_s", low=0.1, high=60, default=LEAVE_TIMEOUT_S)
        assert timeout_s is not None
        _for_owner(caller)
        await self.daemon.leave(timeout_s)
        return {"left": True}


# --- shapes --------------------------------------------------------------------------------------


def target_of(params: Params, *keys: str) -> str:
    """The first of `keys` that is given; a CI address, a stack or a selector."""
    for key in keys:
        found = validate.text(params, key, default="", size_max=TARGET_SIZE_MAX).strip()
        if found:
            return found
    raise validate.field_error(keys[0], "is missing: an address such as numa@west is needed")


def _durable_options(params: Params, ttl_max_s: float) -> dict[str, Any]:
    """What makes a message outlive the daemon."""
    options: dict[str, Any] = {}
    ttl_s = validate.number(params, "ttl_s", low=1.0, high=ttl_max_s, default=None)
    if validate.flag(params, "durable"):
        options |= {"durable": True} | ({"ttl_s": ttl_s} if ttl_s is not None else {})
        options |= {"may_park": True} if validate.flag(params, "may_park") else {}
    elif ttl_s is not None:
        raise validate.field_error("ttl_s", "is only for a message that is 'durable'")
    key = _repeat_key(params)
    offset = int(validate.number(params, "offset", low=0, high=OFFSET_MAX, default=0) or 0)
    return options | ({"key": key} if key else {}) | ({"offset": offset} if offset else {})


def _repeat_key(params: Params) -> str:
    return validate.text(params, "idempotency_key", default="", size_max=TARGET_SIZE_MAX)


def _for_owner(caller: Caller) -> None:
    """Raises LocalError (`refused`) unless the caller acts for the owner of the daemon."""
    if not caller.owner:
        raise LocalError("Only the owner of this daemon may do that.", code="refused")


def _owners(
    act: Callable[[Params], Awaitable[Any]],
) -> Callable[[Params, Caller], Awaitable[Any]]:
    """An act that is for the owner of the daemon alone."""

    async def run(params: Params, caller: Caller) -> Any:
        _for_owner(caller)
        return await act(params)

    return run


def _token(params: Params) -> str | None:
    return validate.text(params, "token", default="", size_max=200) or None
