"""Keys that change while daemons run: traffic goes on, peers follow, a crash leaves one set."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.lab import a_lab
from tests.e2e.stacks import Mesh, Stack, pause, wait_until

DYING = [sys.executable, str(Path(__file__).with_name("dying_keys.py"))]


class Flow:
    """Messages from one stack to a CI, one after another, each with the answer awaited."""

    def __init__(self, stack: Stack, target: str) -> None:
        self.answered = 0
        self.failed: list[str] = []
        self._stack, self._target = stack, target
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with self._stack.connect() as stream:
            while not self._ended.is_set():
                params = {"to": self._target, "body": f"m{self.answered}", "timeout_s": 20}
                stream.say(id=1, method="send", params=params)
                answer = stream.hear()
                if answer.get("result", {}).get("body") != f"m{self.answered}":
                    self.failed.append(json.dumps(answer))
                self.answered += 1

    @contextmanager
    def running(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._ended.set()
            self._thread.join(30)


def key_epoch(stack: Stack, of: str) -> int:
    """The key epoch that a stack knows of another."""
    shown = json.loads(stack.cli("explain", of, "--json").out.splitlines()[0])
    return int(shown["signed"]["key_epoch"])


def wait_followed(stacks: list[Stack], of: str, epoch: int, within_s: float = 5.0) -> None:
    for stack in stacks:
        wait_until(
            f"{stack.name} knows the new keys of {of}",
            lambda s=stack: key_epoch(s, of) == epoch,
            within_s=within_s,
        )


def test_keys_rotate_under_traffic_with_nothing_lost_and_every_link_kept(mesh: Mesh) -> None:
    """Each of origin, relay and destination in turn, and a durable message on top."""
    a, b, c = mesh.chain("abc")
    c.start_echo("numa")
    wait_until("a sees numa", lambda: "numa@c" in a.cis(), within_s=10)
    since = {s.name: [link["since_s"] for link in s.status()["links"]] for s in (a, b, c)}
    flow = Flow(a, "numa@c")
    with flow.running():
        for epoch in (1, 2):
            for stack in (a, b, c):
                before = flow.answered
                done = stack.cli("keys", "rotate")
                assert done.code == 0 and "count at once" in done.err, done
                assert f"key epoch  {epoch}" in done.out
                wait_followed([a, b, c], stack.name, epoch)
                wait_until("it goes on", lambda n=before: flow.answered > n + 20, within_s=10)
            if epoch == 1:
                for stack in (a, b, c):
                    links = [link["since_s"] for link in stack.status()["links"]]
                    assert all(n > o for n, o in zip(links, since[stack.name], strict=True))
    assert flow.failed == [] and flow.answered > 100
    for stack in (a, b, c):
        kinds = [entry["kind"] for entry in stack.rpc("audit", last=10_000)]
        assert kinds.count("keys_rotated") == 2
        verified = stack.cli("audit", "verify")
        assert verified.code == 0, verified
        assert "seal_refused" not in stack.log.read_text()
    print(f"{flow.answered} messages answered during six rotations, none lost")


@pytest.mark.hostile("stolen-keys")
def test_a_revocation_takes_effect_at_once_and_traffic_goes_on(mesh: Mesh) -> None:
    a, b, c = mesh.chain("abc")
    c.start_echo("numa")
    wait_until("a sees numa", lambda: "numa@c" in a.cis(), within_s=10)
    flow = Flow(a, "numa@c")
    with flow.running():
        for stack in (b, c, a):
            before = flow.answered
            done = stack.cli("keys", "revoke", "--json")
            assert done.lines()[0]["key_epoch"] == 1
            wait_followed([a, b, c], stack.name, 1, within_s=15)
            wait_until("it goes on", lambda n=before: flow.answered > n + 5, within_s=20)
    assert flow.failed == []
    assert '"old_keys"' in b.cli("audit", "tail", "--json").out
    print(f"{flow.answered} messages answered during three revocations, none lost")


def test_the_root_key_signs_elsewhere_while_the_daemon_runs(mesh: Mesh, tmp_path: Path) -> None:
    b, a = mesh.chain("ba")
    root, request = tmp_path / "root.key", tmp_path / "request"
    assert a.cli("keys", "export", str(root), "--offline").code == 0
    assert not (a.home / "identity" / "root.key").exists()
    assert a.cli("keys", "rotate").code != 0
    done = a.cli("keys", "rotate", "--root", str(root))
    assert done.code == 0 and "key epoch 1" in done.err, done
    assert a.cli("keys", "request", str(request)).code == 0
    assert "not signed yet" in a.cli("keys", "import", str(request)).err
    signed = f"{request}.signed"
    # On another machine: neither a home nor a daemon is needed.
    nowhere = ("--home", str(tmp_path / "nowhere"))
    assert a.cli("keys", "sign", str(request), "--root", str(root), *nowhere).code == 0
    done = a.cli("keys", "import", signed)
    assert done.code == 0 and "key epoch 2" in done.err, done
    again = a.cli("keys", "import", signed)
    assert again.code and "does not follow" in again.err
    wait_followed([b], "a", 2)
    foreign = b.home / "identity" / "root.key"
    refused = a.cli("keys", "rotate", "--root", str(foreign))
    assert refused.code and "another stack" in refused.err
    assert a.cli("keys", "import", str(root)).code == 0
    assert (a.home / "identity" / "root.key").exists()
    assert a.cli("keys", "rotate").code == 0
    wait_followed([b], "a", 3)
    assert a.stop() == 0
    a.start()
    wait_until("b and a are linked again", lambda: "a" in b.up(), within_s=10)
    assert key_epoch(b, "a") == 3


@pytest.mark.hostile("killed-between-keys")
@pytest.mark.parametrize("act", ["rotate", "revoke"])
def test_a_daemon_killed_between_its_new_keys_and_their_publishing_starts_with_them(
    mesh: Mesh, act: str
) -> None:
    b, a = mesh.chain("ba")
    b.start_echo("numa")
    assert a.stop() == 0
    a.program = DYING
    a.start()
    wait_until("a sees numa", lambda: "numa@b" in a.cis(), within_s=10)
    assert a.cli("keys", act).code != 0
    assert a.process is not None and a.process.wait(10) == -9
    assert key_epoch(b, "a") == 0
    assert json.loads(a.cli("keys", "--json").out)["key_epoch"] == 1
    a.program = b.program
    a.start()
    wait_followed([b], "a", 1, within_s=15)
    assert a.rpc("send", to="numa@b", body="alive", timeout_s=20)["body"] == "alive"
    assert a.cli("audit", "verify").code == 0
    assert a.cli("keys", "rotate").code == 0
    wait_followed([b], "a", 2)


@pytest.mark.hostile("stolen-keys")
def test_keys_that_change_on_both_sides_of_a_cut_are_followed_when_it_heals(mesh: Mesh) -> None:
    with a_lab("rekey") as lab:
        lab.bridge("left")
        lab.bridge("right")
        lab.join("left", "right")
        stacks = []
        for number, side in enumerate(("left", "left", "right", "right"), 1):
            netns = lab.host(f"h{number}", side, f"10.77.9.{number}/24")
            stacks.append(mesh.add(f"s{number}", "--lan", netns=netns))
        for stack in stacks:
            stack.spawn()
        for stack in stacks:
            stack.wait_ready()
        mesh.wait_all_see(stacks)
        s1, s2, s3, s4 = stacks
        s4.start_echo("numa")
        wait_until("s1 sees numa", lambda: "numa@s4" in s1.cis(), within_s=10)
        lab.cut()
        wait_until("s1 sees the cut", lambda: s1.up() == ["s1", "s2"], within_s=20)
        for stack, act in ((s1, "rotate"), (s4, "revoke"), (s3, "rotate"), (s3, "rotate")):
            assert stack.cli("keys", act).code == 0
        waiting = s1.rpc("send", to="numa@s4", body="durable", durable=True, ttl_s=120)
        pause(1.0)
        lab.heal()
        for of, epoch in (("s1", 1), ("s4", 1), ("s3", 2)):
            wait_followed(stacks, of, epoch, within_s=40)
        answer = s1.rpc("send", to="numa@s4", body="after", timeout_s=30)
        assert answer["body"] == "after"
        wait_until(
            "what waited during the cut is answered",
            lambda: s1.rpc("message", id=waiting["id"])["state"] in ("answered", "done", "replied"),
            within_s=40,
        )
        assert s2.up() == ["s1", "s2", "s3", "s4"]
