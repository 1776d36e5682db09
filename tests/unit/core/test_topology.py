"""What is asked of a link graph before there is one."""

from __future__ import annotations

from tektonmesh.core.topology import NoTopology
from tests.support import seed_bytes

SOMEBODY = seed_bytes("b")


def test_a_node_without_a_graph_knows_of_no_witness_and_no_path() -> None:
    nobody = NoTopology()
    assert not nobody.witnesses(SOMEBODY) and not nobody.edges(SOMEBODY) and not nobody.adrift()
    assert not nobody.reachable(SOMEBODY) and not nobody.connected(SOMEBODY)
