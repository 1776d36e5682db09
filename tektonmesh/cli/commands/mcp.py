"""`tektonmesh mcp`: a pipe between a host's stdio and the daemon, which speaks MCP."""

from __future__ import annotations

import json
import os
import select
import socket
import sys
from pathlib import Path

import click

from tektonmesh.cli.common import Where, verb
from tektonmesh.cli.failures import EXIT_FAILED

READ_SIZE = 65_536


@verb(example="tektonmesh mcp --ci files@west")
@click.option("--ci", metavar="X@S", help="Only this CI, with its own names.")
@click.option("--view", metavar="V", help="A view of the settings.")
@click.option("--from", "sender", metavar="CI", help="Whose host this is; takes --token-file.")
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The file with the token of that CI's registration.",
)
def command(
    where: Where, ci: str | None, view: str | None, sender: str | None, token_file: Path | None
) -> int | None:
    """Serve MCP on stdin and stdout: what a host runs to use the whole mesh.

    Add it to any host as a server with the command `tektonmesh mcp`. It ends when the host closes
    stdin, and when the daemon goes (exit 1). Owners of tools see which CI calls if it says so with
    --from; else a person does.
    """
    if ci and view:
        raise click.UsageError("--ci and --view exclude each other.", click.get_current_context())
    if (sender is None) is not (token_file is None):
        text = "--from and --token-file go together."
        raise click.UsageError(text, click.get_current_context())
    token = token_file.read_text().strip() if token_file is not None else None
    with socket.socket(socket.AF_UNIX) as link:
        try:
            link.connect(os.fspath(where.socket_path()))
        except OSError:
            raise where.no_daemon() from None
        said = {"ci": ci, "view": view, "from": sender, "token": token}
        wanted = {key: value for key, value in said.items() if value}
        opening = {"jsonrpc": "2.0", "method": "mcp", "params": wanted}
        link.sendall(json.dumps(opening).encode() + b"\n")
        return None if _pump(link) else EXIT_FAILED


def _pump(link: socket.socket) -> bool:
    """Carry bytes both ways until one side ends; whether that was the host."""
    host_in, host_out = sys.stdin.fileno(), sys.stdout.fileno()
    waiting = [host_in, link.fileno()]
    while True:
        ready, _, _ = select.select(waiting, [], [])
        if host_in in ready:
            data = os.read(host_in, READ_SIZE)
            if data:
                link.sendall(data)
            else:
                # What the host asked before it closed is still answered.
                link.shutdown(socket.SHUT_WR)
                waiting.remove(host_in)
        if link.fileno() in ready:
            data = link.recv(READ_SIZE)
            if not data:
                return host_in not in waiting
            while data:
                data = data[os.write(host_out, data) :]
