"""Who is not admitted learns nothing, and both sides say so in one clear line."""

from tests.e2e.stacks import Mesh, wait_until


def test_a_wrong_secret_is_refused_with_a_clear_line_on_both_sides(mesh: Mesh) -> None:
    a = mesh.private("a").start()
    a.rpc("register", name="numa", type="x", persist=True)
    wrong = mesh.folder / "wrong.secret"
    wrong.write_text("quite another secret of more than thirty-two characters\n")
    wrong.chmod(0o600)
    stranger = mesh.add(
        "eve",
        "--mesh",
        "own",
        "--secret-file",
        str(wrong),
        "--no-mdns",
        "--seeds-only",
        "--listen",
        "127.0.0.1:0",
        "--seed",
        a.seed,
    ).start()
    row = wait_until(
        "eve in peers of a",
        lambda: [row for row in a.cli("peers", "--json").lines() if row["name"] == "eve"],
        within_s=10,
    )[0]
    assert row["state"] == "pending"
    assert row["reason"]
    assert a.up() == ["a"]
    assert stranger.up() == ["eve"]
    assert stranger.cis() == {}
    for stack in (a, stranger):
        lines = [line for line in stack.log.read_text().splitlines() if "refused" in line.lower()]
        assert lines, stack.log.read_text()
        assert "secret" in lines[0].lower()


def test_a_strangers_key_is_refused_until_it_is_approved(mesh: Mesh) -> None:
    common = ["--no-mdns", "--seeds-only", "--listen", "127.0.0.1:0"]
    a = mesh.add("a", *common).start()
    a.rpc("register", name="numa", type="x", persist=True, share="public")
    stranger_id = None
    eve = mesh.add("eve", *common, "--seed", a.seed, "--admit", a.status()["id"]).start()
    stranger_id = eve.status()["id"]
    row = wait_until(
        "eve in peers of a",
        lambda: [row for row in a.cli("peers", "--json").lines() if row["id"] == stranger_id],
        within_s=10,
    )[0]
    assert row["state"] == "pending"
    assert eve.cis() == {}
    assert b"numa" not in b"".join(p.read_bytes() for p in eve.home.rglob("*") if p.is_file())
    assert a.cli("peers", "approve", stranger_id).code == 0
    mesh.wait_all_see([a, eve])
