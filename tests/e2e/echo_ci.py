"""A CI as its author would write it, with the standard library alone: it registers over the Unix
socket and answers every message.
`echo_ci.py SOCKET NAME [--prefix TEXT] [--tokens N] [--share S]`."""

import argparse
import json
import socket
import sys


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("socket")
    parser.add_argument("name")
    parser.add_argument("--prefix", default="")
    parser.add_argument("--tokens", type=int, default=0)
    parser.add_argument("--share", default=None)
    options = parser.parse_args()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(options.socket)
    # One file to read: a text file that is both read and written loses lines it has buffered.
    lines = connection.makefile("r", encoding="utf-8", newline="\n")

    def say(message: dict) -> None:
        connection.sendall(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    about = {"name": options.name, "type": "echo", "share": options.share}
    say({"id": 0, "method": "register", "params": about})
    answer = json.loads(lines.readline())
    assert answer["result"]["success"], answer
    sys.stdout.write("registered\n")
    sys.stdout.flush()
    for line in lines:
        asked = json.loads(line)
        if asked.get("method") != "message":
            continue
        for number in range(options.tokens):
            say({"method": "reply.chunk", "params": {"id": asked["id"], "data": f"t{number} "}})
        body = options.prefix + asked["params"]["body"]
        say({"id": asked["id"], "result": {"body": body}})


main()
