"""The daemon in the foreground: pick and prepare its home, open its doors, say that it is ready,
and leave the mesh when told to stop."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from tektonmesh.cli.common import Where
from tektonmesh.cli.failures import say
from tektonmesh.cli.setup import prepare_home
from tektonmesh.config import Config, load_config
from tektonmesh.config.home import lan_homes, lan_number, prepare_socket_folder
from tektonmesh.config.load import default_name
from tektonmesh.config.names import numbered_name
from tektonmesh.core.ids import show_id
from tektonmesh.errors import LocalError
from tektonmesh.net.lock import home_is_locked

if TYPE_CHECKING:
    from tektonmesh.net.daemon import Daemon

LEAVE_WAIT_S = 4.0
"""A graceful end takes at most 5 s; the rest is for closing."""


def run_test_stack(where: Where, overrides: Mapping[str, Any]) -> int:
    """`run --lan`: in the home named, else in the first home of its kind that is free."""
    lan = dict(overrides) | {"lan": True}
    if where.home is not None or os.environ.get("TEKTONMESH_HOME"):
        home = where.resolved_home()
        number = lan_number(home)
        if number > 1 and not lan.get("name"):
            lan["name"] = numbered_name(default_name(), number)
        return run_in_home(home, lan)
    for number, home in lan_homes():
        if home_is_locked(home):
            continue
        named = dict(lan)
        named["name"] = named.get("name") or numbered_name(default_name(), number)
        try:
            return run_in_home(home, named)
        except LocalError as error:
            # Another terminal was quicker with this home; the next one is as good.
            if error.code.name != "conflict" or not home_is_locked(home):
                raise
    raise LocalError("All homes for test stacks are in use.", hint="Name one with --home.")


def run_in_home(home: Path, overrides: Mapping[str, Any]) -> int:
    """Run until told to stop; the exit code."""
    lan = bool(overrides.get("lan"))
    prepare_home(home, name=overrides.get("name"), mesh=overrides.get("mesh"), lan=lan)
    config = load_config(home, overrides, announce=say)
    prepare_socket_folder(config.socket, home)
    return trio.run(_run, config)


async def _run(config: Config) -> int:
    from tektonmesh.api.doors import open_doors
    from tektonmesh.net.daemon import open_daemon
    from tektonmesh.net.log import log_to_stderr
    from tektonmesh.net.memory import calm_collector

    log_to_stderr(config.log_level, as_json=config.log_json)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with open_daemon(config) as daemon, open_doors(daemon):
            _say_ready(config, daemon)
            calm_collector()
            code = await _wait_for_the_end(daemon, signals)
            if not daemon.stopping.is_set():
                await daemon.leave(LEAVE_WAIT_S)
    return code


async def _wait_for_the_end(daemon: Daemon, signals: Any) -> int:
    """Until a signal comes or the daemon stops by itself (`leave`); the exit code."""
    code = 0

    async def heed_signals() -> None:
        nonlocal code
        async for number in signals:
            code = 130 if number == signal.SIGINT else 0
            break
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(heed_signals)
        await daemon.stopping.wait()
        nursery.cancel_scope.cancel()
    return code


def _say_ready(config: Config, daemon: Daemon) -> None:
    """The banner, and last the one line that scripts wait for."""
    if config.lan:
        say(
            "TEST STACK: whoever is on this network and runs a test stack of mesh"
            f" '{config.mesh}' is admitted. Do not use it for real work."
        )
    say(f"New CIs are {config.share_default} unless they say otherwise.")
    facts = {
        "name": config.name,
        "id": show_id(daemon.identity.stack_id),
        "home": shlex.quote(str(config.home)),
        "socket": shlex.quote(str(daemon.socket_path)),
        "listen": ",".join(daemon.listen),
    }
    if daemon.http:
        facts["http"] = daemon.http
    print(
        "tektonmesh: ready " + " ".join(f"{key}={value}" for key, value in facts.items()),
        file=sys.stderr,
        flush=True,
    )
