"""Two halves of a mesh cut apart for a minute, changed on both sides, and joined again."""

import time

from tests.e2e.lab import a_lab
from tests.e2e.stacks import Mesh, pause, wait_until


def test_two_halves_cut_for_a_minute_are_one_registry_soon_after_the_heal(mesh: Mesh) -> None:
    with a_lab("cut") as lab:
        lab.bridge("left")
        lab.bridge("right")
        lab.join("left", "right")
        stacks = []
        for number in range(1, 7):
            side = "left" if number <= 3 else "right"
            netns = lab.host(f"h{number}", side, f"10.77.3.{number}/24")
            stacks.append(mesh.add(f"s{number}", "--lan", netns=netns))
        for stack in stacks:
            stack.spawn()
        for stack in stacks:
            stack.wait_ready()
        mesh.wait_all_see(stacks)

        lab.cut()
        began = time.monotonic()
        left, right = stacks[:3], stacks[3:]
        for half, others in ((left, right), (right, left)):
            names = sorted(stack.name for stack in half)
            for stack in half:
                wait_until(
                    f"{stack.name} sees the cut", lambda s=stack, n=names: s.up() == n, within_s=20
                )
            half[0].rpc("register", name=f"born-{others[0].name}", type="x", persist=True)
        pause(max(0.0, began + 60 - time.monotonic()))

        lab.heal()
        healed = time.monotonic()

        def one_registry() -> bool:
            prints = {stack.status()["fingerprint"] for stack in stacks}
            everybody = all(len(stack.up()) == 6 for stack in stacks)
            both = all({"born-s4@s1", "born-s1@s4"} <= set(stack.cis()) for stack in stacks)
            return len(prints) == 1 and everybody and both

        wait_until("one registry", one_registry, within_s=30)
        took = time.monotonic() - healed
        print(f"one registry, equal fingerprints {took:.2f} s after the heal")
        assert took < 15
