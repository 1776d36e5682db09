"""Links that are reset under load, by the kernel, on real daemons (docs/design/decisions/0016)."""

import itertools
import threading
import time

import pytest

from tests.e2e.lab import need_namespaces
from tests.e2e.stacks import Mesh, Stack, wait_until
from tests.e2e.steady import Steady, reset_links

RESETS = 3


@pytest.fixture(autouse=True)
def may_reset() -> None:
    need_namespaces()  # the kernel lets root only abort the connections of others


def line(mesh: Mesh, *, second_way: bool) -> tuple[Stack, Stack, Stack]:
    """a - b - c, and a - d - c where there is a second way; b is the one that is passed."""
    a = mesh.private("a").start()
    b = mesh.private("b", a).start()
    relays = [b, mesh.private("d", a).start()] if second_way else [b]
    c = mesh.private("c", *relays).start()
    mesh.wait_all_see(list(mesh.stacks.values()))
    return a, b, c


def reset_one_after_the_other(a: Stack, relays: list[Stack], every_s: float) -> int:
    """Reset the links of `a`, each some time after the one before (a peer is dialled once a second
    at most); how many there were."""
    count = 0
    for turn in range(RESETS):
        threading.Event().wait(every_s)
        count += reset_links(a, relays[turn % len(relays)])
    return count


@pytest.mark.parametrize("second_way", [True, False])
def test_a_reset_of_the_next_hop_loses_doubles_and_delays_nothing(
    mesh: Mesh, second_way: bool
) -> None:
    a, b, c = line(mesh, second_way=second_way)
    kept = [c.start_keeper(name) for name in ("calm", "keep")][1]
    wait_until("both on a", lambda: {"calm@c", "keep@c"} <= set(a.cis()), within_s=5)
    calm = Steady(a, "calm@c", rate=200, total=400)
    calm.finish()
    flow = Steady(a, "keep@c", rate=200, total=1250)
    flow.wait_for(0.1)
    relays = [mesh.stacks["d"], b] if second_way else [b]
    resets = reset_one_after_the_other(a, relays, every_s=1.5)
    assert flow.answered < flow.total, "all resets came under load"
    flow.finish()
    lost, doubled = flow.lost_and_doubled(kept)
    before_s, p99_s = calm.at(0.99), flow.at(0.99)
    print(
        f"{resets} resets under 200/s, second way {second_way}: {lost} lost, {doubled} doubled,"
        f" p99 {before_s * 1000:.0f} -> {p99_s * 1000:.0f} ms, {flow.at(1.0) * 1000:.0f} at worst"
    )
    assert resets == RESETS
    assert (lost, doubled, flow.errors) == (0, 0, {})
    # Without a second way all of it waits for the new link, which two busy cores make later.
    assert p99_s - before_s < (0.15 if second_way else 0.5)


def test_a_token_stream_over_one_link_that_is_reset_goes_on_at_once_and_misses_nothing(
    mesh: Mesh,
) -> None:
    a, b, c = line(mesh, second_way=False)
    tokens = [f"t{number} " for number in range(300)]
    with c.connect() as ci, a.connect() as caller:
        ci.say(id=0, method="register", params={"name": "poet", "type": "x"})
        assert "result" in ci.hear()
        wait_until("poet@c on a", lambda: "poet@c" in a.cis(), within_s=5)
        asked = {"to": "poet@c", "body": "go", "stream": True, "timeout_s": 60}
        caller.say(id=1, method="send", params=asked)
        message = ci.hear()["id"]

        def speak() -> None:
            for token in tokens:
                threading.Event().wait(0.02)
                ci.say(method="reply.chunk", params={"id": message, "data": token})

        speaking = threading.Thread(target=speak, daemon=True)
        resetting = threading.Thread(
            target=reset_one_after_the_other, args=(a, [b], 1.5), daemon=True
        )
        speaking.start()
        resetting.start()
        text, at = "", [time.monotonic()]
        while len(text) < len("".join(tokens)):
            text += caller.hear()["params"]["data"]
            at.append(time.monotonic())
        speaking.join(20)
        resetting.join(20)
        # The last token was here although nothing followed it.
        ci.say(id=message, result={"body": "end"})
        rest = caller.hear()
        assert rest["params"]["data"] == "end" and "result" in caller.hear()
    gaps = sorted(later - one for one, later in itertools.pairwise(at))
    print(f"{RESETS} resets: the longest silences {[round(gap * 1000) for gap in gaps[-6:]]} ms")
    assert text == "".join(tokens)
    assert gaps[-1] < 1.0
