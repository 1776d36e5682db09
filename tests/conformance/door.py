"""Runs `client.py` for whoever knocks, each in a fork of a process that has loaded it: loading it
anew for each of the 32 scenarios would take most of the time. `door.py SOCKET`."""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).parents[2]))
client = importlib.import_module("tests.conformance.client")


def main(path: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(32)
        print("open", flush=True)
        while True:
            link, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _serve(link)
            link.close()


def _serve(link: socket.socket) -> None:
    asked = json.loads(link.makefile().readline())
    client.SCENARIO = asked["scenario"]
    client.CONTEXT = json.loads(asked["context"] or "{}")
    code = 0
    try:
        trio.run(client.main, asked["url"])
    except BaseException as error:
        # Many scenarios mean to be refused; what counts is what the server saw.
        print(repr(error)[:500], file=sys.stderr)
        code = 1
    link.sendall(str(code).encode())
    link.close()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
