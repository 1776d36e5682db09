"""A CI that writes down every message before it answers: `keeper_ci.py SOCKET NAME FILE`. The file
is what a test compares with what was accepted. It comes back whenever its daemon does, until it is
killed. With the standard library alone."""

import argparse
import json
import os
import socket
import sys
import threading
from pathlib import Path


def lines_of(path: Path) -> list[dict]:
    """What was written down, in order; a line that a kill cut is none."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def serve(options: argparse.Namespace, written: int) -> None:
    """Register and answer until the daemon is gone."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(options.socket)
    lines = connection.makefile("r", encoding="utf-8", newline="\n")

    def say(message: dict) -> None:
        connection.sendall(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    about = {"name": options.name, "type": "keeper"}
    token = Path(options.file + ".token")
    if token.exists():
        about["token"] = token.read_text()
    say({"id": 0, "method": "register", "params": about})
    answer = json.loads(lines.readline() or "{}")
    if not answer.get("result", {}).get("success"):
        raise OSError(f"not registered: {answer}")
    token.write_text(answer["result"]["token"])
    sys.stdout.write("registered\n")
    sys.stdout.flush()
    for line in lines:
        asked = json.loads(line)
        if asked.get("method") != "message":
            continue
        about = {key: asked["params"][key] for key in ("id", "attempt", "body")}
        os.write(written, json.dumps(about).encode() + b"\n")
        say({"id": asked["id"], "result": {"body": "kept " + asked["params"]["body"]}})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("socket")
    parser.add_argument("name")
    parser.add_argument("file")
    options = parser.parse_args()
    written = os.open(options.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    pause = threading.Event()
    while True:
        try:
            serve(options, written)
        except (OSError, ValueError):
            pass
        pause.wait(0.02)


if __name__ == "__main__":
    main()
