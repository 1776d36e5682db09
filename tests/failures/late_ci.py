"""A CI in the hands of a test: it answers when the test says so."""

from __future__ import annotations

from typing import Any

from tests.e2e.stacks import Connection


class LateCi:
    """Registered over a connection of its own; `asked` are the messages it was given."""

    def __init__(self, stream: Connection, name: str) -> None:
        self.stream = stream
        self.asked: list[dict[str, Any]] = []
        stream.say(id=0, method="register", params={"name": name, "type": "late"})
        assert stream.hear()["result"]["success"]

    def take(self, count: int) -> None:
        """Wait until it was given so many."""
        while len(self.asked) < count:
            self.hear("message")

    def hear(self, method: str) -> dict[str, Any]:
        """The next line of this method."""
        while True:
            line = self.stream.hear()
            if line.get("method") == "message":
                self.asked.append(line)
            if line.get("method") == method:
                return line

    def answer_all(self) -> None:
        for line in self.asked:
            self.stream.say(id=line["id"], result={"body": "done"})


def streamed(caller: Connection) -> str:
    """The streamed reply to call 1."""
    said = ""
    while True:
        line = caller.hear()
        if line.get("method") == "reply.chunk":
            said += line["params"]["data"]
        elif line.get("id") == 1:
            return said + str(line["result"]["body"])
