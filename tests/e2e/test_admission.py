"""Two organisations on real daemons: an invite, its limits, what each may do, and an eviction."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.stacks import Mesh, Stack, wait_until


def organisation(mesh: Mesh, name: str) -> Stack:
    """A stack without a secret that dials nobody by itself."""
    (mesh.folder / name).mkdir(mode=0o700)
    # What the audit log ends with rides along with the next sign of life.
    (mesh.folder / name / "tektonmesh.toml").write_text("refresh_s = 1\n")
    words = ("--mesh", "joint", "--no-mdns", "--seeds-only", "--listen", "127.0.0.1:0")
    return mesh.add(name, *words).start()


def peers(stack: Stack) -> dict[str, str]:
    return {row["name"]: row["state"] for row in stack.rpc("peers")}


def test_an_invite_admits_once_and_grants_what_its_terms_say(mesh: Mesh, tmp_path: Path) -> None:
    west, east = organisation(mesh, "west"), organisation(mesh, "east")
    west.start_echo("numa", "--share", "partners")
    west.start_echo("athena", "--share", "partners")
    west.start_echo("rhetor")
    invite = west.cli("invite", "--mode", "partial", "--ci", "numa")
    token = invite.out.strip().splitlines()[-1]
    assert token.startswith("tmi_"), invite
    joined = east.cli("join", token)
    assert joined.code == 0, joined
    wait_until("both are linked", lambda: east.up() == west.up() == ["east", "west"], within_s=10)

    # The policy says why, rule by rule.
    verdict = west.cli("policy", "check", "east", "message", "numa")
    assert verdict.code == 0 and "mode partial" in verdict.out, verdict
    verdict = west.cli("policy", "check", "east", "message", "rhetor", "--json")
    assert verdict.code == 1 and '"not_found"' in verdict.out, verdict

    # Both ends have it in their logs, and each is the other's witness.
    def kinds(stack: Stack) -> list[str]:
        return [entry["kind"] for entry in stack.cli("audit", "tail", "-n", "99", "--json").lines()]

    wait_until("west's log has it", lambda: "invite_used" in kinds(west), within_s=5)
    wait_until("east's log has it", lambda: "joined" in kinds(east), within_s=5)
    wait_until(
        "east has witnessed west's log",
        lambda: west.rpc("audit", witness=True)["witnesses"] or None,
        within_s=10,
    )
    verified = west.cli("audit", "verify", "--witness")
    assert verified.code == 0 and "Witnessed by east" in verified.out, verified

    # A token is good once, and a cut one is none.
    third = organisation(mesh, "third")
    again = third.cli("join", token)
    assert again.code == 6 and "used up" in again.err, again
    assert third.cli("join", token[:40]).code == 2
    assert peers(west)["third"] == "pending"

    # Approval by a person, with terms of its own.
    assert west.cli("peers", "approve", "third", "--mode", "read-only").code == 0
    wait_until("third is linked", lambda: "third" in west.up(), within_s=10)

    # An eviction is for ever: by the same invite, by approval, by a new invite.
    assert west.cli("peers", "evict", "third", "--yes").code == 0
    assert west.cli("peers", "approve", "third").code == 6
    fresh = west.cli("invite").out.strip().splitlines()[-1]
    back = third.cli("join", fresh)
    assert back.code == 6, back
    assert peers(west)["third"] == "evicted"
    assert west.stop() == 0

    # A log that was changed afterwards is found without any daemon.
    assert west.cli("audit", "verify").code == 0
    (log,) = (west.home / "audit").iterdir()
    log.write_bytes(log.read_bytes().replace(b'"evict"', b'"grant"'))
    changed = west.cli("audit", "verify", "--json")
    assert changed.code == 1 and '"bad":' in changed.out, changed


CANARY = "canary-public-ci"


def test_a_relay_between_two_organisations_carries_what_it_never_sees(mesh: Mesh) -> None:
    """Both dial it and nobody else, as from behind two firewalls; each of them runs seeds-only, and
    finds it again after a restart since it was joined."""
    west, east, relay = (organisation(mesh, name) for name in ("west", "east", "relay"))
    for stack in (west, east):
        token = relay.cli("invite").out.strip().splitlines()[-1]
        assert stack.cli("join", token).code == 0
        assert stack.cli("peers", "terms", "relay", "--role", "relay").code == 0
        assert stack.stop() == 0
        stack.start()
        wait_until("the relay is found again", lambda s=stack: "relay" in s.up(), within_s=15)
        done = relay.cli("grant", stack.name, "relay")
        assert done.code == 0, done
    west.start_echo(CANARY, "--share", "public")
    ids = {stack.name: stack.status()["id"] for stack in (west, east)}
    assert west.cli("peers", "approve", ids["east"], "--mode", "full").code == 0
    assert east.cli("peers", "approve", ids["west"], "--mode", "full").code == 0
    wait_until("east knows west", lambda: "west" in east.up(), within_s=20)
    west.start_echo(f"{CANARY}-partners", "--share", "partners")
    wait_until("it is shared", lambda: f"{CANARY}-partners@west" in east.cis(), within_s=20)
    sent = east.rpc("send", to=f"{CANARY}-partners@west", body="over it", timeout_s=20)
    assert (sent["body"], sent["path"]) == ("over it", ["east", "relay", "west"])
    assert all(CANARY not in address for address in relay.cis())
    for stack in (west, east, relay):
        assert stack.status()["converged"], stack.status()["divergence"]
        assert stack.stop() == 0
    for path in relay.home.rglob("*"):
        assert not path.is_file() or CANARY.encode() not in path.read_bytes(), path
    assert CANARY not in relay.log.read_text()


def test_a_guest_in_a_mesh_with_a_secret_is_named_on_both_sides(mesh: Mesh) -> None:
    a, b = mesh.chain("ab")
    for stack in (a, b):
        stack.start_echo("numa")
    words = ("--mesh", "own", "--no-mdns", "--listen", "127.0.0.1:0")
    guest = mesh.add("guest", *words).start()
    token = a.cli("invite", "--mode", "full").out.strip().splitlines()[-1]
    assert guest.cli("join", token).code == 0
    wait_until("the guest sees numa", lambda: "numa@a" in guest.cis(), within_s=10)
    for stack in (a, b, guest):
        # Each leaves out whom it cannot believe, after a moment, and they agree on the rest.
        wait_until(
            f"{stack.name} has converged", lambda s=stack: s.status()["converged"], within_s=30
        )
    assert guest.up() == ["a", "guest"] and b.up() == ["a", "b"]
    assert guest.cli("send", "numa@a", "hello").out.strip() == "hello"
    assert guest.cli("send", "numa@b", "hello").code == 4
    assert "guest is a guest" in a.cli("doctor").out
    assert "1 stacks are left out" in guest.cli("doctor").out
    assert a.rpc("policy")["guests"] == [guest.status()["id"]]


@pytest.fixture
def stack(mesh: Mesh) -> Stack:
    return organisation(mesh, "alone")


def test_verbs_of_policy_refuse_what_cannot_be(stack: Stack) -> None:
    assert stack.cli("grant", "nobody", "message").code == 4
    assert stack.cli("policy", "check", "nobody", "message", "x").code == 4
    assert stack.cli("revoke", "0123456789").code == 4
    assert stack.cli("join", "nonsense").code == 2
    assert stack.cli("invite", "--expires", "25h").code == 2
    other = "a" * 51 + "a"
    made = stack.cli("grant", other, "tool.call:search*", "numa", "--expires", "1h", "--json")
    grant = made.lines()[0]
    assert (grant["verb"], grant["ci"]) == ("tool.call:search*", "numa")
    assert stack.cli("grant", other, "fly").code == 2
    assert stack.cli("policy", "show").code == 0
    assert stack.cli("revoke", grant["id"]).code == 0
    assert stack.cli("grant", "--json").lines() == []
    listed = stack.cli("invite", "--json").lines()[0]
    assert stack.cli("invite", "--withdraw", listed["id"]).code == 0
