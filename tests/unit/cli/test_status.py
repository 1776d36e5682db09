"""How the state of the registry reads in `status`."""

from __future__ import annotations

from typing import Any

import pytest

from tektonmesh.cli.commands.status import _converged

LINKED: dict[str, Any] = {"links": [{"stack": "lab"}]}
GAP = {"stack": "lab", "owners": 3, "since_s": 12.0}


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (LINKED | {"converged": True}, "converged"),
        ({"converged": True, "links": []}, "no neighbour to compare with"),
        (
            LINKED | {"converged": False, "divergence": [GAP], "diverged": ["lab"]},
            "not converged with lab (3 stacks differ for 12 s)",
        ),
        (
            LINKED | {"converged": False, "divergence": [GAP, GAP | {"stack": "west"}]},
            "not converged with lab (3 stacks differ for 12 s), west (3 stacks differ for 12 s)",
        ),
        (LINKED | {"converged": False, "diverged": ["lab"]}, "not converged with lab"),
        (LINKED | {"converged": False}, "not converged with a neighbour, being repaired"),
    ],
)
def test_status_says_converged_or_with_whom_not_and_by_how_much(
    status: dict[str, Any], said: str
) -> None:
    assert _converged(status) == said
