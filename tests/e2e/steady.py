"""A steady flow of messages from one connection, with the time that each took and what its CI
wrote down, and what can be done to the link under it."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from tests.e2e.keeper_ci import lines_of
from tests.e2e.stacks import Stack, wait_until


class Steady:
    """`total` requests at `rate` a second to one CI; `took_s` by number, `errors` likewise.
    `more` are further parameters of `send`."""

    def __init__(self, stack: Stack, target: str, rate: float, total: int, **more: Any) -> None:
        self.total = total
        self.took_s: dict[int, float] = {}
        self.errors: dict[int, str] = {}
        self._params = {"to": target, "timeout_s": 20.0} | more
        self._rate = rate
        self._sent_at: dict[int, float] = {}
        self._stream = stack.connect()
        self._threads = [
            threading.Thread(target=act, daemon=True) for act in (self._send, self._read)
        ]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        began, tick = time.monotonic(), threading.Event()
        for number in range(self.total):
            tick.wait(max(0.0, began + number / self._rate - time.monotonic()))
            self._sent_at[number] = time.monotonic()
            body = {"body": f"m{number}"}
            self._stream.say(id=number, method="send", params=self._params | body)

    def _read(self) -> None:
        while self.answered < self.total:
            answer = self._stream.hear()
            number = answer["id"]
            self.took_s[number] = time.monotonic() - self._sent_at[number]
            if "error" in answer:
                self.errors[number] = answer["error"]["data"]["code"]

    @property
    def answered(self) -> int:
        return len(self.took_s)

    def wait_for(self, share: float) -> None:
        """Until this share of all is answered."""
        due = self.total * share
        wait_until(f"{due:.0f} are answered", lambda: self.answered >= due, within_s=40)

    def finish(self) -> None:
        for thread in self._threads:
            thread.join(60)
        self._stream.close()
        assert self.answered == self.total, f"{self.answered} of {self.total} were answered"

    def at(self, share: float) -> float:
        """The time below which this share of the messages stayed, in seconds."""
        took = sorted(self.took_s.values())
        return took[min(len(took) - 1, int(len(took) * share))]

    def lost_and_doubled(self, kept: Path) -> tuple[int, int]:
        """Of the messages that were answered without an error, by what the CI wrote down."""
        bodies = [line["body"] for line in lines_of(kept)]
        asked = {f"m{number}" for number in range(self.total) if number not in self.errors}
        written = [body for body in bodies if body in asked]
        return len(asked - set(written)), len(written) - len(set(written))


def reset_links(one: Stack, other: Stack) -> int:
    """Reset every TCP connection between two daemons, as a router does that forgets them: the
    kernel aborts one end and sends RST to the other. How many there were."""
    ends = _connections(one), _connections(other)
    both = [(here, there) for here, there in ends[0] if (there, here) in ends[1]]
    for here, there in both:
        killed = [*_inside(one), "ss", "-HK", "src", here, "dst", there]
        subprocess.run(killed, capture_output=True, timeout=20)
    return len(both)


def may_reset_links() -> bool:
    """Whether this user may; the kernel lets root only."""
    return os.geteuid() == 0


def _inside(stack: Stack) -> list[str]:
    return ["ip", "netns", "exec", stack.netns] if stack.netns else []


def _connections(stack: Stack) -> list[tuple[str, str]]:
    listed = [*_inside(stack), "ss", "-Htnp", "state", "established"]
    out = subprocess.run(listed, capture_output=True, text=True, timeout=20, check=True).stdout
    rows = [line.split() for line in out.splitlines() if f"pid={stack.pid()}," in line]
    return [(row[2], row[3]) for row in rows]
