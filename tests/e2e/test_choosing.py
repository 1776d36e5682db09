"""Messages to whoever fits and to whole teams, on real daemons."""

import json

from tests.e2e.stacks import Mesh, Stack, wait_until


def fan(mesh: Mesh) -> tuple[Stack, list[Stack]]:
    """a - m - {b, c}: a CI of the specialty vision and the team red on each of the last two."""
    a = mesh.private("a").start()
    m = mesh.private("m", a).start()
    ends = [mesh.private(name, m).start() for name in "bc"]
    mesh.wait_all_see([a, m, *ends])
    for stack in ends:
        stack.start_echo(f"eye-{stack.name}", "--specialty", "vision", "--team", "red")
    wait_until("both on a", lambda: {"eye-b@b", "eye-c@c"} <= set(a.cis()), within_s=5)
    return a, ends


def test_a_selector_reaches_one_that_fits_and_the_next_when_its_stack_is_killed(
    mesh: Mesh,
) -> None:
    a, ends = fan(mesh)
    shown = json.loads(a.cli("trace", "specialty:vision", "--dry-run", "--json").out)
    assert {one["to"] for one in shown["candidates"]} == {"eye-b@b", "eye-c@c"}

    answers = [json.loads(a.cli("send", "specialty:vision", "hi", "--json").out) for _ in range(4)]
    assert {answer["body"] for answer in answers} == {"hi"}
    assert {answer["to"] for answer in answers} <= {"eye-b@b", "eye-c@c"}

    same = {a.rpc("send", to="ci:eye-b@*", body="x", conversation="one")["to"] for _ in range(3)}
    assert same == {"eye-b@b"}

    ends[0].kill()
    wait_until("b is gone", lambda: a.stacks()["b"]["state"] == "unreachable", within_s=10)
    plain = a.cli("send", "specialty:vision", "still there?")
    assert (plain.code, plain.out.strip()) == (0, "still there?")
    nobody = a.cli("send", "specialty:poetry", "hello")
    assert nobody.code == 4 and "specialty:poetry" in nobody.err


def test_a_team_gets_one_message_and_each_member_has_a_row(mesh: Mesh) -> None:
    a, ends = fan(mesh)
    sent = a.cli("send", "team:red", "all hands")
    assert sent.code == 0, sent
    assert sent.out.splitlines() == ["eye-b@b: all hands", "eye-c@c: all hands"]

    ends[1].kill()
    wait_until("c is gone", lambda: a.stacks()["c"]["state"] == "unreachable", within_s=10)
    half = a.cli("send", "team:red", "who is left", "--json", "--timeout", "5")
    answer = json.loads(half.out)
    assert half.code == 1
    assert (answer["answered"], answer["failed"]) == (1, 1)
    rows = {row["to"]: row for row in answer["targets"]}
    assert rows["eye-b@b"]["body"] == "who is left"
    assert rows["eye-c@c"]["error"]["code"] == "unreachable"
