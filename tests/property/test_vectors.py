"""What was kept from fuzzing, and the golden bytes of the wire.

`./scripts/fuzz` finds inputs; those worth keeping lie in tests/vectors/fuzz and pass through the
same checks here, without the fuzzer.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from time import process_time

import pytest

from scripts.fuzzing import golden
from scripts.fuzzing.guard import INPUT_MS_MAX, Guard, where
from scripts.fuzzing.mutate import Mutator
from scripts.fuzzing.parser import Parser, is_shown_in
from scripts.fuzzing.parsers import PARSERS
from scripts.fuzzing.seeds import is_typed, messages
from scripts.fuzzing.table import as_markdown
from scripts.fuzzing.vectors import ALL_SIZE_MAX, FOLDER, KEPT_MAX, KEPT_SIZE_MAX, kept
from tektonmesh.core.messages import HopAck, Want
from tektonmesh.core.types import ContentVersion
from tektonmesh.wire.codec import KIND, decode_message, encode_message

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = {line["name"]: line for line in golden.held()}
BY_NAME = {kind.__name__: kind for kind in KIND}


@pytest.mark.parametrize("name", PARSERS)
def test_no_kept_input_breaks_a_promise_of_its_parser(name: str, tmp_path: Path) -> None:
    guard = Guard(PARSERS[name], tmp_path)
    for data in kept(name):
        guard.feed(data)
    assert not guard.findings


@pytest.mark.parametrize("name", PARSERS)
def test_what_a_stack_writes_itself_is_accepted(name: str) -> None:
    parser = PARSERS[name]
    assert sum(map(parser.check, parser.seeds())) > 0


@pytest.mark.parametrize("name", [name for name, one in PARSERS.items() if one.heavy is not list])
def test_the_largest_and_worst_inputs_are_dealt_with_in_time(name: str, tmp_path: Path) -> None:
    guard = Guard(PARSERS[name], tmp_path)
    for data in PARSERS[name].heavy():
        guard.feed(data)
    assert not guard.findings and guard.slowest_ms <= INPUT_MS_MAX


@pytest.mark.parametrize("name", PARSERS)
def test_a_few_hundred_changed_inputs_break_no_promise_either(name: str, tmp_path: Path) -> None:
    parser, rng = PARSERS[name], random.Random(name)
    guard, pool = Guard(parser, tmp_path), [*parser.seeds(), *kept(name)]
    mutator = Mutator(rng, packed=parser.packed, text=parser.text, size_max=parser.size_max)
    for _ in range(200):
        guard.feed(mutator.mutate(rng.choice(pool), pool))
    assert not guard.findings


@pytest.mark.parametrize("kind", KIND, ids=lambda kind: kind.__name__)
def test_messages_made_of_their_fields_types_are_of_these_types(kind: type) -> None:
    made = messages(kind)
    assert made and all(is_typed(message, kind) for message in made)


def test_true_is_no_integer_and_a_list_no_tuple() -> None:
    assert is_typed(Want(((b"x", None),)), Want)
    assert is_typed(Want(((b"x", ContentVersion(1, 2, 3)),)), Want)
    assert not is_typed(Want([(b"x", None)]), Want)  # type: ignore[arg-type]
    assert not is_typed(Want(((b"x", ContentVersion(1, 2, True)),)), Want)
    assert not is_typed(Want(((b"x",),)), Want)  # type: ignore[arg-type]
    assert not is_typed(HopAck(True), HopAck)
    assert not is_typed(HopAck(1), Want)


def test_every_kind_of_message_has_a_parser() -> None:
    assert {f"message-{kind.__name__.lower()}" for kind in KIND} <= set(PARSERS)


def test_the_kept_inputs_are_few_and_small() -> None:
    sizes = {path: path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()}
    assert {path.parent.name for path in sizes} <= set(PARSERS)
    assert all(size <= KEPT_SIZE_MAX for size in sizes.values())
    assert sum(sizes.values()) <= ALL_SIZE_MAX
    assert all(len(kept(name)) <= KEPT_MAX for name in PARSERS)


# --- the watch itself ----------------------------------------------------------------------------


def parser_that(*, error: BaseException | None = None, takes_s: float = 0.0) -> Parser:
    """A parser for which every input ends so."""

    def check(_data: bytes) -> bool:
        end = process_time() + takes_s
        while takes_s and process_time() < end:
            continue
        if error is not None:
            raise error
        return True

    return Parser("made-up", check, check, lambda: [b"x"])


@pytest.mark.parametrize(
    "error", [ValueError("x"), RecursionError(), MemoryError(), AssertionError(), BaseException()]
)
def test_whatever_leaves_a_parser_is_found_and_kept(error: BaseException, tmp_path: Path) -> None:
    guard = Guard(parser_that(error=error), tmp_path)
    guard.feed(b"the input")
    guard.feed(b"another input for the same line")
    assert list(guard.findings) == [where(error)]
    assert [path.read_bytes() for path in tmp_path.glob("*.bin")] == [b"the input"]


def test_an_input_that_takes_too_long_is_found(tmp_path: Path) -> None:
    guard = Guard(parser_that(takes_s=1.2 * INPUT_MS_MAX / 1e3), tmp_path)
    guard.feed(b"x")
    assert list(guard.findings) == ["slow"] and guard.slowest_ms > INPUT_MS_MAX


def test_a_parser_that_keeps_its_promises_is_not_blamed(tmp_path: Path) -> None:
    guard = Guard(parser_that(), tmp_path)
    for _ in range(2500):
        guard.feed(b"x")
    figures = guard.figures()
    assert (figures["inputs"], figures["accepted"], figures["findings"]) == (2500, 2500, [])


def test_the_same_seed_changes_inputs_alike_and_within_their_size() -> None:
    def changed(seed: int) -> list[bytes]:
        mutator = Mutator(random.Random(seed), packed=True, text=False, size_max=100)
        return [mutator.mutate(b"\x92\x01\xc4\x02\x91\x05", [b"other"]) for _ in range(300)]

    assert changed(1) == changed(1) != changed(2)
    assert all(len(data) <= 100 for data in changed(1))
    assert len(set(changed(1))) > 250


@pytest.mark.parametrize(
    ("given", "fits"),
    [
        ([1, [2, 3]], True),
        ([1, [2, 3, 4], 5], True),
        ([1, [2]], False),
        ([1, [2, True]], False),
        ([1.0, [2, 3]], False),
        ({}, False),
    ],
)
def test_only_more_fields_at_the_ends_are_taken_for_a_later_version(
    given: object, fits: bool
) -> None:
    assert is_shown_in([1, [2, 3]], given) is fits


@pytest.mark.parametrize("how", ["blind", "heavy"])
def test_a_run_says_how_many_inputs_it_ran(how: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scripts.fuzzing.engine", "json-line", "--how", how]
    command += ["--inputs", "60", "--corpus", f"{tmp_path}/corpus", "--findings", f"{tmp_path}/f"]
    subprocess.run([*command, "--figures", f"{tmp_path}/figures"], cwd=ROOT, check=True)
    figures = json.loads((tmp_path / "figures").read_text())
    assert (figures["parser"], figures["inputs"], figures["findings"]) == ("json-line", 60, [])
    assert 0 < figures["accepted"] < 60 and figures["slowest_ms"] > 0


def test_the_table_adds_up_the_runs_of_each_parser() -> None:
    def row(parser: str, inputs: int, slowest_ms: float, edges: int | None) -> dict[str, object]:
        counted = dict.fromkeys(("accepted", "guided", "heavy", "seconds"), 1)
        measured = dict.fromkeys(("slowest_guided_ms", "slowest_heavy_ms", "peak_mib"), 2.0)
        found = [] if edges else ["slow"]
        shown = {"parser": parser, "inputs": inputs, "slowest_ms": slowest_ms, "edges": edges}
        return shown | counted | measured | {"features": 5, "grown_mib": 3.0, "findings": found}

    table = as_markdown([row("a", 1000, 1.0, 7), row("b", 10, 4.0, None), row("a", 500, 9.0, 6)])
    a, b, everything = [line.split(" | ") for line in table.splitlines()[2:]]
    assert a[:5] == ["| a", "1,500", "2", "2", "2"] and a[6:9] == ["7", "5", "9.00"]
    assert b[6] == "" and b[-1] == "1 |"
    assert everything[:2] == ["| all", "1,510"] and everything[8] == "9.00"


# --- golden bytes --------------------------------------------------------------------------------


def test_every_kind_has_golden_bytes() -> None:
    missing = [line["name"] for line in golden.written_today() if line["name"] not in GOLDEN]
    assert not missing, "run ./scripts/fuzz --golden and commit the new lines"


@pytest.mark.parametrize("name", [name for name in GOLDEN if name in BY_NAME])
def test_a_message_is_read_from_and_written_as_its_golden_bytes(name: str) -> None:
    line, packed = GOLDEN[name], bytes.fromhex(GOLDEN[name]["hex"])
    number, _, shown = line["value"].partition(" ")
    message = decode_message(int(number), packed)
    assert repr(message)[: len(shown)] == shown and int(number) == KIND[BY_NAME[name]]
    assert message is not None and encode_message(message) == packed


@pytest.mark.parametrize("name", golden.DOCUMENTS)
def test_a_frame_or_document_is_written_and_accepted_as_its_golden_bytes(name: str) -> None:
    packed = bytes.fromhex(GOLDEN[name]["hex"])
    assert golden.DOCUMENTS[name]() == packed
    assert PARSERS[name].check(packed)


def test_the_golden_bytes_are_of_kinds_that_exist() -> None:
    assert set(GOLDEN) == {*BY_NAME, *golden.DOCUMENTS}
