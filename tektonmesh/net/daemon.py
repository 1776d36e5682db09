"""The daemon of one stack: everything of the shell, put together around one node.

`open_daemon` takes a home to a running daemon and back to nothing left behind. It decides the
order of starting and stopping, and that an unexpected fault anywhere stops the whole: a daemon is
either there or it is not. What each part does is decided in its own module; the doors for local
programs are opened by `api`, on top of this.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import trio

from tektonmesh import __version__
from tektonmesh.config import LAN_TEST_SECRET, Config
from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core.ci import CALL_TYPE
from tektonmesh.core.ids import show_id
from tektonmesh.core.node import Node
from tektonmesh.core.types import Saved, StackId
from tektonmesh.errors import MeshError, StoreError
from tektonmesh.net import mdns
from tektonmesh.net.addresses import dialable, parse_ip
from tektonmesh.net.asks import Asks, Heard, Make
from tektonmesh.net.auditing import Auditing
from tektonmesh.net.chance import SystemChance
from tektonmesh.net.credentials import Credentials
from tektonmesh.net.dial import Dialler
from tektonmesh.net.drive import Drive
from tektonmesh.net.endpoints import Endpoints
from tektonmesh.net.health import HealthChecks
from tektonmesh.net.links import Links
from tektonmesh.net.listen import Listener, bind_default, bind_to, bound_addresses
from tektonmesh.net.lock import locked_home
from tektonmesh.net.nodesettings import settings_of
from tektonmesh.net.notices import Item, Notices
from tektonmesh.net.reach import Reach
from tektonmesh.net.rounds import Rounds
from tektonmesh.net.spool import Spool
from tektonmesh.net.store import Store
from tektonmesh.net.tokens import Tokens
from tektonmesh.net.wallclock import tell_wall_time, wall_s
from tektonmesh.net.watchdog import keep_beating
from tektonmesh.wire.codec import Codec

_LOG = logging.getLogger(__name__)

STORE_NAME = "mesh.db"
CLOSE_ENDPOINTS_S = 1.0
GOODBYE_S = 1.0
"""What of the time to leave is kept for the word that we left and for closing the links."""


class Attached(NamedTuple):
    """The hands of a connection that takes messages for local CIs. None may wait."""

    deliver: Callable[[fx.Deliver], None]
    cancel: Callable[[fx.CancelDelivery], None]
    kept: Callable[[fx.ReplyKept], None]


class Daemon:
    """A running daemon, as the doors see it. Made by `open_daemon` only."""

    def __init__(
        self,
        config: Config,
        credentials: Credentials,
        store: Store,
        saved: Saved,
        sockets: list[trio.socket.SocketType],
    ) -> None:
        self.config = config
        self.identity = credentials.identity
        self.started_wall = wall_s()
        self.http: str | None = None
        self.socket_path: Path = config.socket
        self.stopping = trio.Event()
        self.failure: BaseException | None = None
        self.notices = Notices()
        self.auditing = Auditing(
            config,
            credentials.identity,
            credentials.keys,
            saved=saved,
            store=store,
            notices=self.notices,
        )
        self.tokens = Tokens(
            store, saved, lambda kind, **data: self.auditing.entry(fx.Audit(kind, data))
        )
        self.credentials = credentials
        self._store = store
        self._sockets = sockets
        self._bound = bound_addresses(sockets)
        self._nursery: trio.Nursery | None = None
        self._attached: dict[int, Attached] = {}
        self._connections = count(1)
        self._deliveries: dict[int, int] = {}
        self.calls = 0
        """The connection (`attach`) that takes calls of MCP for all CIs; 0 while there is none."""
        self._drive = Drive(lambda now: self._make_node(now, saved))
        self.node = self._drive.node
        self.new_id = self.node.deliveries.sealer.new_id  # for `SendMessage.options`
        credentials.open(saved, store, lambda: self.listen, self.node)
        near_only = config.lan and config.secret == (LAN_TEST_SECRET,)
        inject, spawn = self._drive.inject, self._spawn
        self._asks = Asks(inject)
        node_settings = self.node.env.settings
        self.spool = Spool(
            config.home,
            size_max=node_settings.large_body_max,
            bytes_max=node_settings.large_bodies_bytes,
            inject=inject,
            spawn=spawn,
        )
        self.spool.begin(self.node.durable.holds)
        self.reach = Reach(config.allow_endpoint_hosts, own_socket=config.socket)
        self._endpoints = Endpoints(inject, self.reach, spawn)
        self._endpoints.file = self.spool.file
        self._health = HealthChecks(inject, self.reach, spawn)
        rounds = self._drive.rounds
        problem = self.notices.problem
        self._links = Links(
            self.identity.stack_id, inject, credentials.on_stale_leaf, rounds, problem
        )
        context = credentials.context
        self._dialler = Dialler(
            inject, self._links, context, spawn, near_only=near_only, seeds=config.seeds
        )
        self._listener = Listener(self._links, context, spawn, near_only=near_only)

    # --- what it is made of ----------------------------------------------------------------------

    def _make_node(self, now: float, saved: Saved) -> Node:
        return Node(
            self.identity,
            settings_of(self.config, self.credentials.mesh_keys, tuple(self.listen)),
            crypto=self.credentials.keys,
            codec=Codec(),
            chance=SystemChance(),
            saved=saved,
            now=now,
            wall_s=self.started_wall,
        )

    # --- the face for the doors ------------------------------------------------------------------

    @property
    def listen(self) -> list[str]:
        """The addresses under which peers can reach us now; interfaces come and go."""
        return dialable(self._bound, with_loopback=self.config.lan)

    def wall_s(self) -> float:
        """Seconds since 1970, for the doors, which read no clock themselves."""
        return wall_s()

    def inject(self, event: ev.Event) -> None:
        """Tell the node of something. Its effects have been carried out when this returns."""
        if isinstance(event, ev.ReplyDone | ev.ReplyFailed):
            self._deliveries.pop(event.delivery, None)
        self._drive.inject(event)

    async def ask(self, make: Make) -> dict[str, Any]:
        """The answer to the command `make(ticket)`. Raises MeshError as the node said it. Being
        cancelled here cancels the command."""
        return await self._asks.ask(make)

    def begin(self, make: Make, heard: Heard) -> Callable[[], None]:
        """As `ask`, for doors that spend no task on a command: `heard(result, error)` is called
        in the turn that brings the answer. What is returned gives the command up."""
        return self._asks.begin(make, heard)

    def stream(
        self, make: Make
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes | dict[str, Any]]]:
        """As `ask`, for a reply that streams: the chunks in order, then the result."""
        return self._asks.stream(make)

    def attach(
        self,
        deliver: Callable[[fx.Deliver], None],
        cancel: Callable[[fx.CancelDelivery], None],
        kept: Callable[[fx.ReplyKept], None] = lambda _effect: None,
    ) -> int:
        """A connection that can take messages; the number is for `RegisterCi.connection`."""
        connection = next(self._connections)
        self._attached[connection] = Attached(deliver, cancel, kept)
        return connection

    def detach(self, connection: int) -> None:
        """The connection is closed. Its CIs have a grace to come back."""
        if self._attached.pop(connection, None) is not None:
            self.inject(ev.Detached(connection))

    @property
    def rounds(self) -> Rounds:
        """Around what one read causes, so that everything it causes leaves together."""
        return self._drive.rounds

    def subscribe(self) -> AbstractContextManager[trio.MemoryReceiveChannel[Item]]:
        """Everything that happens from now on; see `Notices.subscribe`."""
        return self.notices.subscribe()

    @property
    def loop_lag_s(self) -> tuple[float, float]:
        """How late the loop of this process was at its last beat, and at the worst one."""
        return self._drive.pulse.lag_s, self._drive.pulse.lag_max_s

    @property
    def counters(self) -> dict[str, float]:
        """What `/metrics` shows of the shell: notices by kind, latency of messages, and gauges."""
        lag_s, lag_max_s = self.loop_lag_s
        return self.notices.counters | {
            "links": float(len(self._links)),
            "link_queue_bytes": float(self._links.queued()),
            "link_bytes_in": float(self._links.bytes_in()),
            "link_bytes_out": float(self._links.bytes_out()),
            "commands_waiting": float(len(self._asks)),
            "loop_lag_s": lag_s,
            "loop_lag_max_s": lag_max_s,
            "events": float(self._drive.turns),
            "store_commits": float(self._store.commits),
            "store_rows": float(self._store.rows_written),
        }

    async def leave(self, timeout_s: float) -> None:
        """Leave the mesh: say that we are about to and finish what is held, publish that we left,
        let the neighbours have it, say goodbye. Takes at most `timeout_s`, whatever they do."""
        drain_s = timeout_s - GOODBYE_S
        with trio.move_on_after(timeout_s):
            try:
                if drain_s > 0:
                    drained = await self.ask(lambda ticket: ev.Drain(ticket, drain_s))
                    if drained["held"]:
                        _LOG.warning("left before all was done: %s", drained["held"])
                await self.ask(ev.Leave)
            except MeshError as error:
                _LOG.warning("left without a word: %s", error.sentence())
            await self._links.flush()
            self._links.close_all("leaving", "This stack is leaving the mesh.")
            await self._links.gone()
        self.stopping.set()

    # --- hands of the drive ----------------------------------------------------------------------

    def _hands(self) -> dict[type, Callable[[Any], None]]:
        return {
            fx.Send: self._links.send,
            fx.CloseLink: self._links.close_link,
            fx.Dial: self._dialler.dial,
            fx.Save: lambda effect: self._store.queue(effect.rows, effect.ticket),
            fx.Deliver: self._deliver,
            fx.CancelDelivery: self._cancel_delivery,
            fx.Answer: self._asks.answer,
            fx.AnswerChunk: self._asks.answer_chunk,
            fx.AnswerFailed: self._asks.answer_failed,
            fx.WatchEndpoint: self._health.watch,
            fx.Notice: self.auditing.notice,
            fx.Audit: self.auditing.entry,
            fx.BodyAct: self.spool.act,
            fx.ReplyKept: self._reply_kept,
        }

    def _deliver(self, effect: fx.Deliver) -> None:
        call = effect.content_type == CALL_TYPE
        if effect.how.get("kind") == "http" and not call:
            self._endpoints.deliver(effect)
            return
        connection = self.calls if call else effect.how.get("connection", 0)
        attached = self._attached.get(connection)
        if attached is None:
            offline = "The CI is not connected at this moment."
            self.inject(ev.ReplyFailed(effect.delivery, "ci_offline", offline))
            return
        self._deliveries[effect.delivery] = connection
        try:
            attached.deliver(effect)
        except Exception:
            _LOG.exception("fault in handing a message to %s", effect.ci)
            self.inject(ev.ReplyFailed(effect.delivery, "ci_failed", "The hand-over failed."))

    def _cancel_delivery(self, effect: fx.CancelDelivery) -> None:
        connection = self._deliveries.pop(effect.delivery, None)
        attached = self._attached.get(connection) if connection is not None else None
        if attached is not None:
            attached.cancel(effect)
        else:
            self._endpoints.cancel(effect)

    def _reply_kept(self, effect: fx.ReplyKept) -> None:
        attached = self._attached.get(self._deliveries.get(effect.delivery, 0))
        if attached is not None:
            attached.kept(effect)

    # --- starting and stopping -------------------------------------------------------------------

    def _start(self, nursery: trio.Nursery) -> None:
        """Everything begins to move; the listeners are bound already."""
        self._nursery = nursery
        inject = self._drive.inject
        self.notices.say("daemon_started", name=self.config.name, listen=self.listen)
        self._drive.start(self._hands())
        about = {"name": self.config.name, "version": __version__, "lan": self.config.lan}
        self.auditing.begin(inject, **about, key_epoch=self.credentials.key_epoch)
        for sock in self._sockets:
            self._keep("listener", self._listener.serve, sock)
        self._keep("drive", self._drive.keep_time)
        self._keep("drive", self._watch_drive)
        self._keep("store", self._store.run, self._durable, self._store_trouble)
        self._keep("audit", self.auditing.run)
        self._keep("wall clock", tell_wall_time, inject)
        self._keep("watchdog", keep_beating, self._drive.beat)
        self._keep("keys", self.credentials.keep_renewing)
        self._keep("bodies", self.spool.keep_tidy, self.node.durable.holds)
        if self.config.mdns:
            self._keep("discovery", mdns.keep_discovering, self._card, self._seen)

    def _spawn(self, act: Callable[..., Awaitable[Any]], *args: Any) -> None:
        assert self._nursery is not None, "effects come after the start"
        self._keep(getattr(act, "__qualname__", "task"), act, *args)

    def _keep(self, what: str, act: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Run a task; whatever it lets escape is a fault of ours and stops the daemon."""

        async def guarded() -> None:
            try:
                await act(*args)
            except Exception as error:
                self._fail(what, error)

        assert self._nursery is not None
        self._nursery.start_soon(guarded, name=what)

    def _fail(self, what: str, error: BaseException) -> None:
        if self.failure is None:
            self.failure = error
            if isinstance(error, MeshError):
                _LOG.critical("%s: %s This daemon stops.", what, error.sentence())
            else:
                shown = "".join(traceback.format_exception(error))
                _LOG.critical("fault in %s; this daemon stops\n%s", what, shown)
        self._asks.stop(fault_of(error))
        self.stopping.set()

    async def _watch_drive(self) -> None:
        await self._drive.failed.wait()
        assert self._drive.failure is not None
        self._fail("the core", self._drive.failure)

    def _stop(self) -> None:
        """No more turns; the tasks are cancelled by the caller."""
        self.stopping.set()
        self._drive.close()
        self._asks.stop(MeshError("The daemon is stopping.", code="no_daemon"))

    # --- small tasks -----------------------------------------------------------------------------

    def _durable(self, tickets: list[int]) -> None:
        """One commit; whoever waited for it is answered in one round."""
        with self._drive.rounds:
            for ticket in tickets:
                self._drive.inject(ev.Saved(ticket))

    def _store_trouble(self, problem: StoreError | None) -> None:
        self._drive.inject(ev.StoreTrouble(problem is not None))
        if problem is None:
            self.notices.say("store_recovered")
        else:
            self.notices.say("store_failed", detail=problem.sentence())

    def _card(self) -> mdns.Card:
        loopback = all(
            (address := parse_ip(host)) is not None and address.is_loopback
            for host, _port in self._bound
        )
        me = self.identity
        return mdns.Card(me.stack_id, me.mesh_id, tuple(self.listen), loopback)

    def _seen(self, seen: mdns.Seen) -> None:
        """An announcement shows only the start of an id; complete it if we know the stack."""
        known = [
            owner for owner in self.node.replica.owners if show_id(owner).startswith(seen.id_prefix)
        ]
        stack_id: StackId | None = known[0] if len(known) == 1 else None
        self._drive.inject(ev.PeerSeen(seen.addresses, "mdns", stack_id))


@asynccontextmanager
async def open_daemon(config: Config) -> AsyncIterator[Daemon]:
    """A running daemon for the length of the block, bound and started when it begins.

    Raises LocalError (home in use, address taken, identity files) and StoreError before the
    block; MeshError `internal` or StoreError after it when a fault stopped the daemon
    (`daemon.stopping` is set then). Leaving the block does not leave the mesh; `leave` does.
    """
    config.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked_home(config.home):
        credentials = Credentials(config)
        store = Store(config.home / STORE_NAME)
        try:
            async with _running(config, credentials, store) as daemon:
                yield daemon
        finally:
            store.close()
        if daemon.failure is not None:
            raise fault_of(daemon.failure) from daemon.failure


@asynccontextmanager
async def _running(config: Config, credentials: Credentials, store: Store) -> AsyncIterator[Daemon]:
    sockets = await _bind(config)
    problem: BaseException | None = None
    try:
        # What was saved is not kept beside what the machines make of it.
        daemon = Daemon(config, credentials, store, store.load(), sockets)
        async with trio.open_nursery() as nursery:
            try:
                daemon._start(nursery)
                yield daemon
            except trio.Cancelled:
                raise
            except BaseException as error:
                # Kept back from the nursery, which would wrap it in a group.
                problem = error
            finally:
                daemon._stop()
                nursery.cancel_scope.cancel()
        daemon.auditing.close()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_ENDPOINTS_S):
            await daemon.reach.aclose()
    finally:
        for sock in sockets:
            sock.close()
    if problem is not None:
        raise problem


async def _bind(config: Config) -> list[trio.socket.SocketType]:
    return bind_default() if config.listen is None else await bind_to(config.listen)


def fault_of(error: BaseException) -> MeshError:
    """What callers are told of the fault that stopped the daemon."""
    if isinstance(error, MeshError):
        return error
    return MeshError(
        f"The daemon stopped on a fault of its own ({type(error).__name__}).",
        hint="Its log has the details; please report them.",
    )
