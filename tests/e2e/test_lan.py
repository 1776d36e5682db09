"""Test stacks on a LAN find one another with nothing said; stacks behind a router need one seed."""

import time

from tests.e2e.lab import a_lab
from tests.e2e.stacks import Mesh


def test_five_test_stacks_on_one_bridge_list_one_another_and_two_without_multicast_join(
    mesh: Mesh,
) -> None:
    with a_lab("lan") as lab:
        lab.bridge("br0", "10.77.0.254/24")
        lab.bridge("far1", "10.77.1.254/24")
        lab.bridge("far2", "10.77.2.254/24")
        five = []
        for number in range(1, 6):
            netns = lab.host(f"h{number}", "br0", f"10.77.0.{number}/24", "10.77.0.254")
            five.append(mesh.add(f"s{number}", "--lan", netns=netns))
        for stack in five:
            stack.spawn()
        for stack in five:
            stack.wait_ready()
        began = time.monotonic()
        mesh.wait_all_see(five, within_s=10)
        took = time.monotonic() - began
        print(f"five stacks listed one another {took:.2f} s after the last was ready")
        assert took < 3.0

        # Multicast does not pass a router: these two have one seed each, on different stacks.
        for number, seed in ((1, five[0]), (2, five[3])):
            netns = lab.host(
                f"f{number}", f"far{number}", f"10.77.{number}.1/24", f"10.77.{number}.254"
            )
            at = f"10.77.0.{seed.name[1]}:{seed.port}"
            five.append(mesh.add(f"far{number}", "--lan", "--seed", at, netns=netns).start())
        took = mesh.wait_all_see(five, within_s=10)
        print(f"seven stacks listed one another after {took:.2f} s")
