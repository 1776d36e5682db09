"""Every verb against reality: wrong arguments, no daemon, names that nobody has. One clear line on
stderr, no traceback, the right exit code."""

from __future__ import annotations

import json
import select
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tektonmesh.cli.verbs import VERBS
from tests.e2e.stacks import COMMAND, Mesh, Result, Stack, a_mesh, wait_until


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Stack]]:
    """Two linked stacks; the second has the CI `echo`, one that always fails and one offline."""
    with a_mesh(tmp_path_factory.mktemp("cli")) as mesh:
        a = mesh.private("a").start()
        b = mesh.private("b", a).start()
        mesh.wait_all_see([a, b])
        b.start_echo("echo")
        broken = ["attach", "broken", "--", "sh", "-c", "echo the reason >&2; exit 3"]
        b.children.append(
            subprocess.Popen([*COMMAND, *broken], env=b.environment(), stderr=subprocess.DEVNULL)
        )
        assert b.cli("register", "listed", "--type", "note").code == 0
        wait_until("the CIs on a", lambda: {"echo@b", "broken@b", "listed@b"} <= set(a.cis()),
                   within_s=10)  # fmt: skip
        yield a, b


def nobody(folder: Path) -> Stack:
    """A stack that was never started."""
    return Mesh(folder).add("nobody")


def one_line(result: Result, code: int) -> str:
    assert result.code == code, result
    assert result.err.count("\n") == 1, result
    assert result.err.startswith("tektonmesh: "), result
    assert "Traceback" not in result.err
    return result.err


# --- no daemon -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        "status", "stacks", "cis", "find x", "register x", "deregister x", "attach x -- cat",
        "send x hi", "x@y hi", "trace x", "watch", "peers", "peers approve x", "explain x",
    ],
)  # fmt: skip
def test_without_a_daemon_every_verb_that_needs_one_exits_3(tmp_path: Path, words: str) -> None:
    line = one_line(nobody(tmp_path).cli(*words.split()), 3)
    assert "tektonmesh run" in line


def test_a_socket_left_by_a_killed_daemon_is_no_daemon(tmp_path: Path) -> None:
    stack = nobody(tmp_path)
    stack.home.mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(stack.home / "tektonmesh.sock"))
    one_line(stack.cli("status"), 3)


# --- wrong arguments -----------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_an_unknown_option_of_any_verb_is_a_usage_error(tmp_path: Path, verb: str) -> None:
    one_line(nobody(tmp_path).cli(verb, "--no-such-option"), 2)


@pytest.mark.parametrize(
    "words",
    ["", "statsu", "status one two", "send", "trace", "cis --stack", "explain", "explain a b"],
)
def test_wrong_words_are_a_usage_error(tmp_path: Path, words: str) -> None:
    if words:
        one_line(nobody(tmp_path).cli(*words.split()), 2)
    else:
        assert nobody(tmp_path).cli().code == 0


def test_a_daemon_with_wrong_settings_does_not_start_and_says_why(tmp_path: Path) -> None:
    stack = nobody(tmp_path)
    assert stack.cli("init").code == 0
    settings = stack.home / "tektonmesh.toml"
    settings.write_text(settings.read_text() + "\nshare_defualt = 'public'\n")
    line = one_line(stack.cli("run"), 2)
    assert "share_default" in line
    assert str(settings) in line


def test_a_daemon_with_a_key_that_others_can_read_does_not_start(tmp_path: Path) -> None:
    stack = nobody(tmp_path)
    assert stack.cli("init").code == 0
    (stack.home / "identity" / "op.key").chmod(0o644)
    assert "op.key" in one_line(stack.cli("run", "--no-mdns"), 2)


def test_a_secret_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x" * 40)
    secret.chmod(0o644)
    line = one_line(nobody(tmp_path).cli("run", "--secret-file", str(secret)), 2)
    assert "chmod 600" in line


def test_an_address_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = nobody(tmp_path).cli("run", "--no-mdns", "--listen", address)
    assert result.code not in (0, 3)
    assert address in result.err.splitlines()[-1]
    assert "Traceback" not in result.err


def test_a_home_of_one_profile_is_refused_to_the_other(tmp_path: Path) -> None:
    stack = nobody(tmp_path)
    assert stack.cli("init").code == 0
    assert "normal mode" in one_line(stack.cli("run", "--lan"), 2)


def test_init_twice_changes_nothing(tmp_path: Path) -> None:
    stack = nobody(tmp_path)
    first = stack.cli("init", "--name", "west", "--json").lines()[0]
    again = stack.cli("init", "--name", "east", "--json").lines()[0]
    assert (first["new"], again["new"]) == (True, False)
    assert (again["id"], again["name"]) == (first["id"], "west")


# --- names that nobody has -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        "send nobody hi", "send nobody@b hi", "send echo@nowhere hi", "nobody@b hi",
        "trace echo@nowhere", "trace nowhere", "trace nowhere --dry-run", "cis --stack nowhere",
        "deregister nobody", "find zzzzzz", "explain nobody", "explain echo@nowhere",
    ],
)  # fmt: skip
def test_an_unknown_name_exits_4(pair: tuple[Stack, Stack], words: str) -> None:
    one_line(pair[0].cli(*words.split()), 4)


@pytest.mark.parametrize("words", ["peers approve zzz", "send @ hi", "register a@b"])
def test_a_word_that_cannot_be_what_it_should_exits_2(
    pair: tuple[Stack, Stack], words: str
) -> None:
    result = pair[0].cli(*words.split())
    assert result.code in (2, 4), result
    one_line(result, result.code)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--mcp", ""], "needs a command"),
        (["--mcp", "'"], "is no command line"),
        (["--mcp", "/no/such/program x"], "no program '/no/such/program'"),
        (["--mcp", "http://127.0.0.1:1/mcp"], "--mcp-url"),
        (["--mcp", "cat", "--mcp-url", "http://127.0.0.1:1/mcp"], "exclude"),
        (["--mcp-url", ""], "url"),
    ],
)
def test_a_server_that_cannot_be_one_is_no_registration(
    pair: tuple[Stack, Stack], given: list[str], told: str
) -> None:
    result = pair[1].cli("register", "served", *given)
    assert told in one_line(result, result.code) and result.code
    assert "served@b" not in pair[1].cis()


def test_a_failing_command_is_a_failure_with_its_last_line(pair: tuple[Stack, Stack]) -> None:
    result = pair[0].cli("send", "broken@b", "hi")
    assert "the reason" in one_line(result, 1)


def test_a_ci_that_takes_no_messages_is_not_reachable(pair: tuple[Stack, Stack]) -> None:
    one_line(pair[0].cli("send", "listed@b", "hi"), 5)


def test_a_failed_send_under_json_is_an_object_with_code_and_outcome(
    pair: tuple[Stack, Stack],
) -> None:
    result = pair[0].cli("send", "nobody@b", "hi", "--json")
    assert result.code == 4
    error = json.loads(result.out)["error"]
    assert set(error) >= {"code", "detail", "outcome", "retry"}


# --- what works ----------------------------------------------------------------------------------


def test_every_reading_verb_speaks_json_and_nothing_else(pair: tuple[Stack, Stack]) -> None:
    a, _b = pair
    (status,) = a.cli("status", "--json").lines()
    assert set(status) >= {
        "name", "id", "mesh", "version", "uptime_s", "socket", "listen", "http", "links",
        "converged", "fingerprint", "stacks", "cis", "queues", "diverged", "divergence", "registry",
    }  # fmt: skip
    stacks = a.cli("stacks", "--json").lines()
    assert {row["name"]: row["state"] for row in stacks} == {"a": "self", "b": "up"}
    assert a.cli("cis", "json").lines() == a.cli("cis", "--json").lines()
    assert {row["address"] for row in a.cli("cis", "--stack", "b", "--json").lines()} == {
        "echo@b", "broken@b", "listed@b",
    }  # fmt: skip
    assert a.cli("cis", "--local", "--json").lines() == []
    assert a.cli("find", "echo", "--json").lines()[0]["address"] == "echo@b"
    assert a.cli("trace", "echo@b", "--json").lines()[0]["stack"] == "b"
    assert a.cli("trace", "echo@b", "--dry-run", "--json").lines()[0]["candidates"]
    assert a.cli("peers", "--json").lines()[0]["state"] == "admitted"
    (explained,) = a.cli("explain", "b", "--json").lines()
    assert (explained["name"], explained["state"]) == ("b", "up")
    assert explained["changes"] and explained["links"] and explained["signed"]
    assert {row["name"]: row["why"] for row in stacks}["b"].startswith("This stack is linked")


def test_every_reading_verb_has_a_table_for_people(pair: tuple[Stack, Stack]) -> None:
    a, _b = pair
    for words in (
        "status",
        "stacks",
        "cis",
        "find echo",
        "trace b",
        "explain b",
        "peers",
        "doctor",
    ):
        result = a.cli(*words.split())
        assert result.code == 0, result
        assert result.out.strip()
        assert "\x1b" not in result.out


def test_text_comes_from_stdin_when_none_is_given(pair: tuple[Stack, Stack]) -> None:
    result = pair[0].cli("send", "echo@b", text="from a pipe\n")
    assert (result.code, result.out) == (0, "from a pipe\n")


def test_no_wait_prints_the_id_last(pair: tuple[Stack, Stack]) -> None:
    result = pair[0].cli("send", "echo@b", "hi", "--no-wait")
    assert result.code == 0, result
    message_id = result.out.splitlines()[-1]
    assert bytes.fromhex(message_id)


def watching(stack: Stack) -> subprocess.Popen[bytes]:
    """A `watch` that has shown its first event."""
    process = subprocess.Popen(
        [*COMMAND, "watch", "--json"],
        env=stack.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout

    def an_event() -> bool:
        make_an_event(stack)
        return bool(select.select([process.stdout], [], [], 0)[0])

    wait_until("an event", an_event, within_s=20)
    return process


def make_an_event(stack: Stack) -> None:
    stack.rpc("register", name="short-lived", attach=False, persist=True)
    stack.rpc("deregister", name="short-lived")


def test_a_reader_that_goes_away_is_no_failure(pair: tuple[Stack, Stack]) -> None:
    a, _b = pair
    process = watching(a)
    assert process.stdout and process.stderr
    process.stdout.close()

    def ended() -> bool:
        make_an_event(a)
        return process.poll() is not None

    wait_until("watch ends", ended, within_s=20)
    assert (process.returncode, process.stderr.read()) == (0, b"")
    process.stderr.close()


def test_ctrl_c_is_quiet_and_130(pair: tuple[Stack, Stack]) -> None:
    process = watching(pair[0])
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (130, b"")


def test_status_costs_less_than_four_tenths_of_a_second_of_cpu(pair: tuple[Stack, Stack]) -> None:
    a, _b = pair
    script = (
        "import resource, subprocess, sys;"
        "subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True);"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN);"
        "print(used.ru_utime + used.ru_stime)"
    )
    costs = [
        float(
            subprocess.run(
                [COMMAND[0], "-c", script, *COMMAND, "status"], env=a.environment(),
                capture_output=True, text=True, check=True, timeout=30,
            ).stdout
        )
        for _ in range(3)
    ]  # fmt: skip
    assert min(costs) < 0.4, costs
