"""Many daemons at once: started, watched, killed and started again.

Their ports are known before they start, so that all can start together and come back where they
were. What they tell of one another is heard by one thread, which costs them next to nothing.
"""

from __future__ import annotations

import json
import random
import selectors
import signal
import time
from collections.abc import Callable
from typing import NamedTuple

from tests.e2e.stacks import Connection, Mesh, Stack, free_ports, pause, wait_until

SEEDS_EACH = 3
PATIENCE_S = 100.0
"""For one answer: while all start, a daemon has a thirtieth of a core or less."""
GONE = ("stack_unreachable", "stack_deregistered", "stack_left")


class Told(NamedTuple):
    """One daemon's notice about another stack; `at` is the wall time of its sender."""

    by: str
    kind: str
    stack: str
    at: float


class Watch:
    """What some daemons tell of stacks, from the moment of construction to `close`."""

    def __init__(self, stacks: list[Stack]) -> None:
        self.told: list[Told] = []
        self._ready = selectors.DefaultSelector()
        self._connections: list[Connection] = []
        for stack in stacks:
            connection = stack.connect()
            connection.say(id=0, method="subscribe", params={"kinds": ["stack"]})
            self._connections.append(connection)
            # Notices may share a read with the answer, so everything is read by `_read`.
            self._ready.register(connection.socket, selectors.EVENT_READ, [stack.name, b""])
        self._answers = 0
        self.listen(lambda: self._answers == len(stacks), within_s=20)
        assert self._answers == len(stacks), "every daemon takes the subscription"

    def listen(self, enough: Callable[[], bool], *, within_s: float) -> None:
        """Hear what is told until there is enough of it or the time is over."""
        give_up = time.monotonic() + within_s
        while not enough() and (left_s := give_up - time.monotonic()) > 0:
            for key, _events in self._ready.select(left_s):
                self._read(key)

    def _read(self, key: selectors.SelectorKey) -> None:
        name, begun = key.data
        read = key.fileobj.recv(65536)  # type: ignore[union-attr]
        if not read:
            self._ready.unregister(key.fileobj)
            return
        *lines, key.data[1] = (begun + read).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "method" not in message:
                assert "result" in message, message
                self._answers += 1
                continue
            notice = message["params"]
            assert "dropped" not in notice, f"{name} told more than was read"
            self.told.append(Told(name, notice["kind"], notice["stack"], notice["at"]))

    def close(self) -> None:
        self._ready.close()
        for connection in self._connections:
            connection.close()


class Deaths(NamedTuple):
    """`waits_s` has the first `stack_unreachable` of every victim at every survivor, from the
    first kill on; `strays` is what survivors told of each other's end."""

    waits_s: list[float]
    strays: list[Told]


class Swarm:
    """`count` stacks of a private mesh whose links are their own choice."""

    def __init__(self, mesh: Mesh, count: int, *, rng_seed: int = 1) -> None:
        chance = random.Random(rng_seed)
        ports = free_ports(count)
        self.cis_each = 0
        self.stacks: list[Stack] = []
        for number, port in enumerate(ports):
            # The one before makes them one mesh whatever the lot gives.
            near = [ports[number - 1]]
            others = [other for other in ports if other not in (port, *near)]
            near += chance.sample(others, min(SEEDS_EACH - 1, len(others)))
            words = [*mesh.by_secret(), "--listen", f"127.0.0.1:{port}"]
            for seed in near:
                words += ["--seed", f"127.0.0.1:{seed}"]
            self.stacks.append(mesh.add(f"n{number:02}", *words))
            self.stacks[-1].patience_s = PATIENCE_S

    def start(self, stacks: list[Stack] | None = None, *, within_s: float = 120.0) -> float:
        """Start these (all by default) at once; the seconds until the last one is ready."""
        began = time.monotonic()
        starting = self.stacks if stacks is None else stacks
        for stack in starting:
            stack.spawn()
        for stack in starting:
            stack.wait_ready(within_s)
        return time.monotonic() - began

    def register(self, cis_each: int) -> None:
        """Give every stack this many persistent CIs."""
        self.cis_each = cis_each
        for stack in self.stacks:
            for number in range(cis_each):
                stack.rpc("register", name=f"c{number}", type="x", persist=True)

    def addresses(self) -> list[str]:
        """Of all CIs that there should be."""
        return sorted(f"c{n}@{stack.name}" for stack in self.stacks for n in range(self.cis_each))

    def converge(self, *, within_s: float, equal: bool = True) -> float:
        """Until each shows all others up and all CIs, with equal fingerprints unless these do not
        matter; the seconds that took. One look at all ends at the first that is behind and the next
        look begins there, so that looking costs the daemons little."""
        began = time.monotonic()
        order = list(self.stacks)
        behind = ""
        while time.monotonic() - began < within_s:
            fingerprint = None
            for at, stack in enumerate(order):
                status = stack.status()
                fingerprint = fingerprint or status["fingerprint"]
                differs = equal and status["fingerprint"] != fingerprint
                behind = self._behind(status) or (f"{stack.name} differs" if differs else "")
                if behind:
                    # With the one before, since it may be that one which differs from all.
                    order = [*order[max(0, at - 1) :], *order[: max(0, at - 1)]]
                    break
            else:
                return time.monotonic() - began
            pause(0.05)
        raise AssertionError(f"not converged within {within_s} s: {behind}")

    def _behind(self, status: dict) -> str:
        """What this daemon does not show yet; empty when it shows all."""
        others = len(self.stacks) - 1
        shown = (status["stacks"]["up"], status["stacks"]["unreachable"], status["cis"]["remote"])
        wanted = (others, 0, others * self.cis_each)
        if shown == wanted and status["cis"]["local"] == self.cis_each:
            return ""
        return f"{status['name']} shows (up, unreachable, remote CIs) {shown}, not {wanted}"

    def check_cis(self) -> None:
        """Each lists exactly the CIs that there should be, by address, and none as unreachable."""
        expected = self.addresses()
        for stack in self.stacks:
            listed = {address: row["state"] for address, row in stack.cis().items()}
            assert sorted(listed) == expected, stack.name
            assert "unreachable" not in listed.values(), stack.name

    def kill(self, victims: list[Stack], *, within_s: float, hold_s: float) -> Deaths:
        """kill -9 of all these at once, and what the others tell of it; they are heard for
        `hold_s` more once every one has shown every victim unreachable, and must then show
        exactly the victims so."""
        survivors = [stack for stack in self.stacks if stack not in victims]
        names = [victim.name for victim in victims]
        watch = Watch(survivors)
        try:
            began = time.time()
            for victim in victims:
                victim.signal(signal.SIGKILL)
            watch.listen(
                lambda: len(_first_seen(watch.told, names)) == len(survivors) * len(victims),
                within_s=within_s,
            )
            watch.listen(lambda: False, within_s=hold_s)
        finally:
            watch.close()
        for victim in victims:
            assert victim.process is not None
            victim.process.wait(10)
        seen = _first_seen(watch.told, names)
        missing = len(survivors) * len(victims) - len(seen)
        assert not missing, f"{missing} deaths were not told within {within_s} s"
        strays = [told for told in watch.told if told.kind in GONE and told.stack not in names]
        for stack in survivors:
            self._shows_only(stack, names)
        return Deaths([at - began for at in seen.values()], strays)

    @staticmethod
    def _shows_only(stack: Stack, names: list[str]) -> None:
        def unreachable() -> list[str]:
            return sorted(name for name, row in stack.stacks().items() if row["state"] not in here)

        here = ("self", "up")
        wait_until(
            f"{stack.name} shows {names} unreachable and nobody else",
            lambda: unreachable() == sorted(names),
            within_s=10,
        )

    def stop(self) -> tuple[list[int], float]:
        """SIGTERM to all at once; their exit codes, and the seconds until the last has ended."""
        began = time.monotonic()
        for stack in self.stacks:
            stack.signal(signal.SIGTERM)
        codes = []
        for stack in self.stacks:
            assert stack.process is not None
            codes.append(stack.process.wait(60))
        return codes, time.monotonic() - began


def _first_seen(told: list[Told], names: list[str]) -> dict[tuple[str, str], float]:
    """(survivor, victim) -> when it first showed it unreachable."""
    seen: dict[tuple[str, str], float] = {}
    for one in told:
        if one.kind == "stack_unreachable" and one.stack in names:
            seen.setdefault((one.by, one.stack), one.at)
    return seen
