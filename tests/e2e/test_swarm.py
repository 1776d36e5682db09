"""Twelve daemons as one swarm: three die at once, then all, and nothing is lost."""

from tests.e2e.stacks import Mesh
from tests.e2e.swarm import Swarm


def test_a_swarm_survives_kills_of_some_and_of_all_with_equal_fingerprints(mesh: Mesh) -> None:
    swarm = Swarm(mesh, 12)
    swarm.start()
    took = swarm.converge(within_s=20)
    swarm.register(cis_each=2)
    swarm.converge(within_s=20)
    print(f"12 started at once: converged {took:.2f} s after the last was ready")

    victims = swarm.stacks[2:5]
    deaths = swarm.kill(victims, within_s=10, hold_s=1.0)
    print(f"3 killed at once: shown everywhere after {max(deaths.waits_s):.2f} s")
    assert max(deaths.waits_s) < 6.0
    assert not deaths.strays, "nobody tells of the end of one who lives"
    swarm.start(victims)
    took = swarm.converge(within_s=20)
    print(f"3 restarted: converged {took:.2f} s after the last was ready")

    for stack in swarm.stacks:
        stack.kill()
    swarm.start()
    took = swarm.converge(within_s=30)
    print(f"all restarted: converged {took:.2f} s after the last was ready")
    swarm.check_cis()

    codes, took = swarm.stop()
    print(f"SIGTERM to all: ended after {took:.2f} s")
    assert codes == [0] * 12
