"""The courses of a comparison, their rows, and what is done with these."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts.comparison.__main__ import (
    TABLES,
    TABLES_END,
    heading,
    line,
    measure,
    read,
    save,
    with_tables,
)
from tektonmesh.sim.compare import (
    CHANGES,
    CONDITIONS,
    CORE,
    PROTOCOLS,
    Course,
    courses,
    row_of,
    run_course,
)
from tektonmesh.sim.options import Options, connected, edges_of, links_each
from tektonmesh.sim.regions import REGIONS, one_way_s, region_of

KEYS = ["protocol", "nodes", "condition", "worlds", "changes", "p50_ms", "p99_ms", "redundancy"]


def test_the_production_core_runs_the_same_course_as_the_others() -> None:
    for protocol in (CORE, "flooding"):
        course = Course(protocol, 6, "calm")
        report = run_course(course)
        row = row_of([course], [report])
        assert list(row)[: len(KEYS)] == KEYS
        assert not row["violations"]
        assert row["missed"] == 0
        assert len(report.propagation_ms) == 5 * CHANGES
        assert 0 < row["p50_ms"] <= row["p99_ms"] < 1000
        assert row["bytes_per_change"] > 100
    assert run_course(Course(CORE, 6, "calm")).figures()["idle_bytes_s"] > 0


def test_a_tenth_of_the_hosts_falls_silent_and_the_writer_stays() -> None:
    report = run_course(Course("memberlist", 20, "crashed"))
    assert report.missed == 0
    assert len(report.propagation_ms) == 17 * CHANGES
    assert report.figures()["idle_bytes_s"] is None


def test_a_loss_shows_in_the_time_and_nowhere_else() -> None:
    calm, lossy = (run_course(Course("flooding", 20, it)) for it in ("calm", "loss"))
    assert sum(lossy.propagation_ms) > sum(calm.propagation_ms)
    assert lossy.copies == calm.copies


def test_small_worlds_are_run_with_more_seeds() -> None:
    groups = courses(PROTOCOLS, (8, 32, 128), CONDITIONS)
    assert len(groups) == len(PROTOCOLS) * 3 * len(CONDITIONS)
    worlds = {group[0].nodes: len(group) for group in groups}
    assert worlds == {8: 12, 32: 3, 128: 1}
    for group in groups:
        assert len(dict.fromkeys((it.protocol, it.nodes, it.condition) for it in group)) == 1
        assert len(dict.fromkeys(it.rng_seed for it in group)) == len(group)


def test_rows_come_in_order_from_several_processes() -> None:
    groups = courses(("flooding", "central"), (40,), ("calm", "crashed"))
    rows = list(measure(groups, 2))
    assert [(row["protocol"], row["condition"]) for row in rows] == [
        ("flooding", "calm"),
        ("flooding", "crashed"),
        ("central", "calm"),
        ("central", "crashed"),
    ]
    assert rows[0] == row_of(groups[0], [run_course(it) for it in groups[0]])


# --- the file and the table ----------------------------------------------------------------------


def row(protocol: str, nodes: int, p50_ms: float | None, condition: str = "calm") -> dict:
    return {"protocol": protocol, "nodes": nodes, "condition": condition, "p50_ms": p50_ms}


def test_rows_that_were_not_measured_anew_stay_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    save([row("flooding", 32, 1.0), row(CORE, 8, 2.0), row(CORE, 8, 3.0, "loss")], path)
    save([row("flooding", 32, 4.0), row("flooding", 8, 5.0)], path)
    assert [(it["protocol"], it["nodes"], it["p50_ms"]) for it in read(path)] == [
        (CORE, 8, 2.0),
        (CORE, 8, 3.0),
        ("flooding", 8, 5.0),
        ("flooding", 32, 4.0),
    ]
    assert json.loads(path.read_text()) == read(path)


def test_a_table_line_stands_under_its_headings() -> None:
    shown = line(row(CORE, 32, 12345.678) | {"missed": 0, "idle_bytes_s": 0.125})
    assert len(shown) == len(heading())
    assert shown.startswith("tektonmesh ")
    assert "12,346" in shown
    assert "0.125" in shown
    assert line(row(CORE, 32, None)).count("-") >= 5


def test_a_page_gets_its_tables_between_the_marks_and_nowhere_else() -> None:
    rows = [row(CORE, 8, 99.44), row("central", 8, None) | {"missed": 7}, row(CORE, 8, 1.5, "loss")]
    page = f"Before.\n{TABLES}\nold\n{TABLES_END}\nAfter.\n"
    renewed = with_tables(page, rows)
    assert renewed.startswith(f"Before.\n{TABLES}\n**calm**\n")
    assert renewed.endswith(f"{TABLES_END}\nAfter.\n")
    assert "| protocol | nodes | p50 ms | missed |\n" in renewed
    assert "| tektonmesh | 8 | 99.4 | - |\n| central | 8 | - | 7 |\n" in renewed
    assert "**loss**\n\n| protocol | nodes | p50 ms |\n" in renewed
    assert "crashed" not in renewed
    assert "old" not in renewed
    assert with_tables(renewed, rows) == renewed
    assert with_tables("No marks.", rows) == "No marks."


def test_a_drawing_is_the_same_each_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="./scripts/bootstrap report installs what draws")
    from scripts.comparison.plot import plot

    rows = [row(name, nodes, 10.0 * nodes) for name in (CORE, "other") for nodes in (8, 32)]
    drawings = []
    for name in ("one.svg", "two.svg"):
        plot(rows, tmp_path / name)
        drawings.append((tmp_path / name).read_bytes())
    assert drawings[0] == drawings[1]
    assert b"<svg" in drawings[0]


# --- the world of a course -----------------------------------------------------------------------


@pytest.mark.parametrize("count", [3, 4, 7, 8, 32, 128])
def test_a_regular_overlay_gives_everybody_about_as_many_links(count: int) -> None:
    edges = edges_of(Options(nodes=count, topology="regular"))
    links = dict.fromkeys(range(count), 0)
    for one, other in edges:
        links[one] += 1
        links[other] += 1
    assert connected(count, edges, ())
    assert all(one != other for one, other in edges)
    assert len({tuple(sorted(pair)) for pair in edges}) == len(edges)
    assert max(links.values()) <= min(links_each(count), count - 1)
    assert sum(links.values()) >= 0.98 * count * min(links_each(count), count - 1) - 1


def test_everybody_has_more_links_in_a_larger_mesh() -> None:
    assert [links_each(count) for count in (8, 32, 128, 512, 10_000)] == [3, 4, 5, 7, 10]


def test_regions_are_as_far_from_one_another_in_both_directions() -> None:
    count = len(REGIONS)
    for one in range(count):
        assert one_way_s(one, one + count) < 0.001
        assert region_of(one) == region_of(one + count)
        for other in range(count):
            assert one_way_s(one, other) == one_way_s(other, one)
            assert one == other or 0.03 < one_way_s(one, other) < 0.12
