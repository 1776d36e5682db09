"""Two organisations of three stacks each, in namespaces: what each side sees, says and calls is
what the policy says, and what is not shared is in no byte that others hold or the wire carried.

One mesh for all of it, since six daemons are dear: admission, partial sharing, a read-only partner,
a stranger behind a partner, an eviction, and keys that were stolen and revoked during a partition.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.lab import Lab, a_lab
from tests.e2e.stacks import Mesh, Stack, a_mesh, wait_until

SECRET = "canary-secret-3f9c01ab77"
PRIVATE = "canary-private-ci"
WEST, EAST = ("w1", "w2", "w3"), ("e1", "e2", "e3")


class Two:
    """The two organisations, joined by one cable."""

    def __init__(self, lab: Lab, mesh: Mesh) -> None:
        self.lab, self.mesh = lab, mesh
        lab.bridge("west")
        lab.bridge("east")
        lab.join("west", "east")
        for number, name in enumerate((*WEST, *EAST), 1):
            netns = lab.host(name, "west" if name in WEST else "east", f"10.88.0.{number}/24")
            self.add(name, netns).spawn()
        for stack in mesh.stacks.values():
            stack.wait_ready(40)

    def add(self, name: str, netns: str) -> Stack:
        home = self.mesh.folder / name
        home.mkdir(mode=0o700, exist_ok=True)
        (home / "tektonmesh.toml").write_text("refresh_s = 2\n")
        words = ("--mesh", "joint", "--no-mdns", "--listen", "0.0.0.0:7700")
        return self.mesh.add(name, *words, netns=netns)

    def __getitem__(self, name: str) -> Stack:
        return self.mesh.stacks[name]

    def invite(self, issuer: str, guest: str, **terms: object) -> None:
        token = self[issuer].rpc("invite", **terms)["token"]
        assert self[guest].rpc("join", token=token)["state"] == "admitted"


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    folder = tmp_path_factory.mktemp("organisations")
    with a_lab("org") as lab, a_mesh(folder) as mesh, recorded(lab, folder / "wire"):
        made = Two(lab, mesh)
        share(made)
        yield made


@contextmanager
def recorded(lab: Lab, file: Path) -> Iterator[None]:
    """Every packet of the lab goes into `file`: all wires meet in its router."""
    script = Path(__file__).with_name("wire.py")
    command = ["ip", "netns", "exec", lab.router, sys.executable, str(script), str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as listener:
        assert listener.stdout is not None and listener.stdout.readline() == b"listening\n"
        try:
            yield
        finally:
            listener.kill()


def share(two: Two) -> None:
    """West shares: two CIs with e1, reading with e2, everything with its own; e3 knows e1 only."""
    w1 = two["w1"]
    for name in ("numa", "rhetor"):
        w1.start_echo(name, "--share", "partners")
    w1.rpc(
        "register",
        name="athena",
        share="partners",
        endpoint="http://127.0.0.1:9/api",
        headers={"Authorization": f"Bearer {SECRET}"},
        attach=False,
        persist=True,
    )
    w1.start_echo(PRIVATE, "--share", "private")
    two.invite("w1", "w2", mode="full")
    two.invite("w1", "w3", mode="full")
    two.invite("w1", "e1", mode="partial", shared_cis=["numa", "athena"])
    two.invite("e1", "e3")
    # e2 asks without an invite, and a person lets it in.
    token = w1.rpc("invite")["token"]
    w1.rpc("invite", withdraw=w1.rpc("invite", list=True)[0]["id"])
    assert two["e2"].cli("join", token).code == 6
    waiting = {peer["name"]: peer["state"] for peer in w1.rpc("peers")}
    assert waiting["e2"] == "pending"
    assert w1.cli("peers", "approve", "e2", "--mode", "read-only").code == 0
    for name in ("w2", "w3", "e1", "e2"):
        wait_until(f"{name} is up at w1", lambda n=name: n in w1.up(), within_s=20)
    wait_until("e3 is up at e1", lambda: "e3" in two["e1"].up(), within_s=20)


def seen(stack: Stack) -> list[str]:
    return sorted(address for address in stack.cis() if address.endswith("@w1"))


def test_each_side_sees_what_the_policy_says(two: Two) -> None:
    expected = {
        "w2": ["athena@w1", "numa@w1", "rhetor@w1"],
        "w3": ["athena@w1", "numa@w1", "rhetor@w1"],
        "e1": ["athena@w1", "numa@w1"],
        "e2": ["athena@w1", "numa@w1", "rhetor@w1"],
    }
    for name, addresses in expected.items():
        wait_until(
            f"{name} sees {addresses}",
            lambda n=name, a=addresses: seen(two[n]) == a,
            within_s=15,
        )
    wait_until("e3 knows w1 by e1's word", lambda: "w1" in two["e3"].stacks(), within_s=20)
    assert seen(two["e3"]) == []


def test_each_side_may_say_what_the_policy_says_and_is_told_no_more(two: Two) -> None:
    said = {
        ("w2", "rhetor@w1"): 0,
        ("e1", "numa@w1"): 0,
        ("e1", "rhetor@w1"): 4,
        ("e1", f"{PRIVATE}@w1"): 4,
        ("e1", "missing@w1"): 4,
        ("e2", "numa@w1"): 6,
        ("e3", "numa@w1"): 4,
    }
    for (name, target), code in said.items():
        done = two[name].cli("send", target, "hello", "--timeout", "10")
        assert done.code == code, (name, target, done)
        assert code or done.out.strip() == "hello"
    hidden = two["e1"].cli("send", f"{PRIVATE}@w1", "x").err.replace(PRIVATE, "missing")
    assert hidden == two["e1"].cli("send", "missing@w1", "x").err


def test_the_policy_explains_what_it_does(two: Two) -> None:
    def check(subject: str, verb: str, ci: str) -> tuple[bool, str]:
        verdict = two["w1"].rpc("policy", subject=subject, verb=verb, object=ci)
        return verdict["allowed"], verdict["deciding"]

    assert check("e1", "message", "numa") == (True, "mode partial")
    assert check("e1", "message", "rhetor") == (False, "share")
    assert check("e2", "message", "numa") == (False, "grant")
    assert check("e2", "resource.read:x", "numa") == (True, "mode read-only")
    assert check("e1", "discover", PRIVATE) == (False, "share")
    grant = two["w1"].rpc("grant", stack="e2", verb="message", ci="numa", per_minute=1)
    done = two["e2"].cli("send", "numa@w1", "granted", "--timeout", "10")
    assert (done.code, done.out.strip()) == (0, "granted"), done
    assert two["e2"].cli("send", "numa@w1", "again", "--timeout", "10").code == 5
    two["w1"].rpc("revoke", grant=grant["id"])
    assert two["e2"].cli("send", "numa@w1", "revoked", "--timeout", "10").code == 6


def test_both_ends_can_prove_what_happened(two: Two) -> None:
    """The same message is in both logs, and each is the other's witness."""

    def refs(name: str, side: str) -> set[str]:
        entries = two[name].rpc("audit", last=1000)
        allowed = [e for e in entries if e["kind"] == "allow" and e.get("side") == side]
        return {entry["ref"] for entry in allowed}

    two["e1"].rpc("send", to="numa@w1", body="once more")
    both = wait_until(
        "the message is in both logs",
        lambda: refs("w1", "owner") & refs("e1", "caller"),
        within_s=10,
    )
    assert both
    kinds = {entry["kind"] for entry in two["w1"].rpc("audit", last=1000)}
    assert {"invite", "invite_used", "approve", "terms", "grant", "revoke", "deny"} <= kinds
    wait_until(
        "w1 has witnesses",
        lambda: two["w1"].rpc("audit", witness=True)["witnesses"],
        within_s=20,
    )
    verified = two["w1"].cli("audit", "verify", "--witness")
    assert verified.code == 0, verified


@pytest.mark.hostile("stolen-keys", "clone")
def test_keys_that_were_revoked_during_a_partition_open_nothing_afterwards(two: Two) -> None:
    e1, w1 = two["e1"], two["w1"]
    assert e1.stop() == 0
    stolen = two.mesh.folder / "thief"
    shutil.copytree(e1.home, stolen, symlinks=True, ignore=shutil.ignore_patterns("*.sock"))
    two.lab.cut()
    done = e1.cli("keys", "revoke")
    assert done.code == 0 and "key epoch 1" in done.err, done
    e1.spawn()
    e1.wait_ready()
    two.lab.heal()
    wait_until("w1 talks to the new keys", lambda: "e1" in w1.up(), within_s=40)
    wait_until("e1 sees numa again", lambda: "numa@w1" in e1.cis(), within_s=20)
    answer = e1.rpc("send", to="numa@w1", body="with new keys", timeout_s=20)
    assert answer["body"] == "with new keys"
    assert e1.stop() == 0
    # The thief runs a copy of before the revocation, at the same address.
    thief = Stack("e1", two.mesh.folder / "elsewhere", *e1.run_arguments, netns=e1.netns)
    two.mesh.stacks["thief"] = thief
    thief.log.parent.mkdir()
    shutil.move(stolen, thief.home)
    thief.start()
    wait_until(
        "w1 refused the old keys", lambda: "were replaced" in w1.log.read_text(), within_s=30
    )
    wait_until(
        "that is in w1's log",
        lambda: "old_keys_refused" in [entry["kind"] for entry in w1.rpc("audit", last=1000)],
        within_s=5,
    )
    assert "newer keys of this stack" in thief.log.read_text()
    assert thief.status()["links"] == []
    assert thief.cli("send", "numa@w1", "x", "--timeout", "3").code in (4, 5)
    thief.kill()
    e1.spawn()
    e1.wait_ready()
    wait_until("the owner of the keys is back", lambda: "e1" in w1.up(), within_s=40)


@pytest.mark.hostile("evicted-again")
def test_an_evicted_stack_gets_in_by_no_way(two: Two) -> None:
    w1, e2 = two["w1"], two["e2"]
    assert w1.cli("peers", "evict", "e2", "--yes").code == 0
    wait_until("e2 has no link to w1", lambda: not e2.status()["links"], within_s=10)
    token = w1.rpc("invite")["token"]
    assert e2.cli("join", token).code == 6
    assert w1.cli("peers", "approve", "e2").code == 6
    two.invite("e1", "e2", mode="full")
    assert e2.stop() == 0
    e2.spawn()
    e2.wait_ready()
    wait_until("e2 is up at e1", lambda: "e2" in two["e1"].up(), within_s=20)
    assert "e2" not in w1.up()
    assert {p["name"]: p["state"] for p in w1.rpc("peers")}["e2"] == "evicted"
    assert e2.cli("send", "numa@w1", "x", "--timeout", "3").code in (4, 5)


def test_no_byte_of_what_is_not_shared_is_anywhere_else(two: Two) -> None:
    """The last test of the module: everybody has said everything."""
    folder = two.mesh.folder
    own = two["w1"].home
    for stack in two.mesh.stacks.values():
        assert stack.process is not None
        if stack.process.poll() is None:
            stack.stop()
    searched = 0
    for path in folder.rglob("*"):
        if not path.is_file() or own in path.parents:
            continue
        data = path.read_bytes()
        searched += len(data)
        for canary in (SECRET, PRIVATE):
            if canary == PRIVATE and path.name == "w1.log":
                continue  # its own log may say what it registered
            assert canary.encode() not in data or _guessed(path, canary), (path, canary)
    assert (folder / "wire").stat().st_size > 100_000 and searched > 500_000
    assert SECRET.encode() in b"".join(p.read_bytes() for p in own.glob("mesh.db*"))


def _guessed(path: Path, canary: str) -> bool:
    """e1 guessed the name itself, so that its own log and database may hold the guess."""
    own = path.name == "e1.log" or {"e1", "audit"} <= set(path.parts)
    return canary == PRIVATE and own
