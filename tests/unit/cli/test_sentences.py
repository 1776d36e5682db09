"""Each event reads as a sentence, whatever it lacks."""

from __future__ import annotations

import re

import pytest

from tektonmesh.cli.sentences import SENTENCES, gap, sentence
from tektonmesh.core.notices import KINDS

ID = "gwvlnopdxrrbefepexvdjie6242tbbbrrv26qpe4pitprwyn766a"


def test_every_kind_of_notice_has_a_sentence_and_there_is_none_for_another() -> None:
    assert sorted(SENTENCES) == sorted(KINDS)


@pytest.mark.parametrize("kind", SENTENCES)
def test_an_event_that_lacks_its_values_is_a_sentence_all_the_same(kind: str) -> None:
    said = sentence({"seq": 1, "at": 1.0, "kind": kind}, {})
    assert said[0].isupper() or said.startswith("?")
    assert "{" not in said


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ({"kind": "stack_up", "stack": "west", "id": ID, "name": "west"}, "west can be reached."),
        ({"kind": "stack_up", "stack": "", "id": ID, "name": ""}, "gwvlnopd can be reached."),
        (
            {"kind": "link_up", "name": "lab", "id": ID, "address": "10.0.0.1:7700",
             "outbound": True},
            "A link to lab came up (10.0.0.1:7700, called by us).",
        ),
        ({"kind": "not_converged", "stack": ID},
         "lab still differs after several repairs; `status` says by how much."),
        ({"kind": "ci_seen", "ci": "numa@west"}, "CI numa@west of another stack appeared."),
        ({"kind": "ci_seen", "stack": "west", "count": 12}, "12 CIs of west appeared."),
        ({"kind": "message_done", "to_stack": "west", "ok": False, "ms": 12.5, "hops": 2},
         "A message to west failed in 12.5 ms."),
        ({"kind": "daemon_started", "name": "west", "listen": ["a:1", "b:2"]},
         "The daemon of west is ready on a:1, b:2."),
        ({"kind": "stack_left", "stack": "west", "dropped": 3},
         "west left the mesh. (3 events before it were lost.)"),
        ({"kind": "of_a_newer_daemon", "id": ID, "n": 5}, "id=lab n=5"),
    ],
)  # fmt: skip
def test_an_event_reads_with_names_before_ids(event: dict[str, object], said: str) -> None:
    names = {} if event.get("kind") == "stack_up" else {ID: "lab"}
    assert sentence({"seq": 1, "at": 1.0} | event, names) == said


def test_no_sentence_shows_a_whole_id() -> None:
    event = {"kind": "peer_admitted", "id": ID, "name": "west"}
    assert not re.search(r"\w{20}", sentence(event, {}))


@pytest.mark.parametrize(
    ("owners", "said"),
    [
        (None, "lab (by an unknown number, for 12 s)"),
        (1, "lab (1 stack differs for 12 s)"),
        (3, "lab (3 stacks differ for 12 s)"),
    ],
)
def test_a_gap_says_with_whom_by_how_much_and_for_how_long(owners: int | None, said: str) -> None:
    assert gap({"stack": "lab", "owners": owners, "since_s": 12.0}) == said
