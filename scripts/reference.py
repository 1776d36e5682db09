"""Writes the pages of docs/reference that are made from the code, or checks that they are current.

`python -m scripts.reference [--check]`, from the top of the checkout.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from tektonmesh.api.http.families import FAMILIES, shown_name
from tektonmesh.cli.main import group
from tektonmesh.cli.verbs import GROUPS, VERBS
from tektonmesh.config.settings import FILE_NAME, SETTINGS
from tektonmesh.core.notices import KINDS
from tektonmesh.core.releases import RELEASES
from tektonmesh.errors import CODES

FOLDER = Path(__file__).parent.parent / "docs" / "reference"
_NOTE = "<!-- Made from the code by ./scripts/docs; changes here are overwritten. -->"
_COMMON = ("home", "socket", "as_json", "help")


def commands_page() -> str:
    """Every verb with its options and example."""
    return "\n".join(_commands()) + "\n"


def _commands() -> Iterator[str]:
    yield from ("# Commands", "", _NOTE, "")
    yield "`tektonmesh VERB`. After any verb: `--home PATH` (the stack's home), `--socket PATH`"
    yield "(its daemon's socket), `--json` (JSON and nothing else on stdout; the last word `json`"
    yield "does the same where a verb takes no free text), `--help` (or the lone word `help`)."
    yield ""
    yield '`tektonmesh numa@west "hello"` is short for `send`.'
    yield ""
    yield "Exit codes: 0 done; 1 failed; 2 usage; 3 no daemon answers; 4 no such stack, CI or"
    yield "thing; 5 not reachable or timed out; 6 refused by policy; 130 interrupted. Every"
    yield "error is one line on stderr that says what is wrong and what to try."
    context = click.Context(group, info_name="tektonmesh")
    for title, names in GROUPS:
        yield from ("", f"## {title}")
        for name in names:
            command = group.get_command(context, name)
            assert command is not None
            yield from _command(name, command, context)


def _command(name: str, command: click.Command, context: click.Context) -> Iterator[str]:
    own = click.Context(command, info_name=name, parent=context)
    pieces = " ".join(command.collect_usage_pieces(own))
    yield from ("", f"### {name}", "", VERBS[name], "", f"    tektonmesh {name} {pieces}", "")
    yield _paragraphs(command.help or "")
    rows = [
        parameter.get_help_record(own)
        for parameter in command.params
        if isinstance(parameter, click.Option) and parameter.name not in _COMMON
    ]
    if rows:
        yield from ("", "| option | is |", "|---|---|")
        for row in rows:
            assert row is not None
            yield f"| `{_cell(row[0])}` | {_cell(row[1])} |"
    if command.epilog:
        example = command.epilog.removeprefix("Example: ")
        yield from ("", f"Example: `{example}`")


def _paragraphs(text: str) -> str:
    parts = text.replace("\b", "").split("\n\n")
    return "\n\n".join(" ".join(part.split()) for part in parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def settings_page() -> str:
    """Every setting of the file."""
    lines = ["# Settings", "", _NOTE, ""]
    lines.append(
        f"`{FILE_NAME}` in the home folder. `tektonmesh init` writes it with every setting"
    )
    lines.append("as a comment. Unknown keys and wrong types are refused by name. Options of")
    lines.append("`tektonmesh run` win over the file, the file over the environment.")
    lines += ["", "| setting | default | is |", "|---|---|---|"]
    for setting in SETTINGS:
        meaning = " ".join(setting.help.split())
        lines.append(f"| `{setting.key}` | {_cell(setting.default)} | {_cell(meaning)} |")
    lines += ["", "## Environment", "", "| variable | is |", "|---|---|"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in _ENVIRONMENT]
    return "\n".join(lines) + "\n"


_ENVIRONMENT = (
    ("TEKTONMESH_HOME", "The home, unless `--home` names one."),
    ("TEKTONMESH_SOCKET", "The daemon's socket, unless `--socket` or `--home` is given."),
    ("TEKTON_ROOT", "A Tekton installation: the home is `.tekton/tektonmesh` in it, HTTP is on."),
    ("TEKTON_REGISTRY_NAME", "The stack's name, unless option or file name one."),
    ("TEKTONMESH_PORT", "The port of HTTP on 127.0.0.1."),
    ("TEKTON_PORT_BASE", "With Tekton, HTTP is at this number + 90 unless the one above is set."),
    ("NO_COLOR", "No colour, whatever the terminal."),
    ("TEKTONMESH_TRACEBACK", "Show the traceback of a fault as well, for a report."),
)


def errors_page() -> str:
    """The one table of error codes."""
    lines = ["# Errors", "", _NOTE, ""]
    lines.append("One table for every door: JSON-RPC errors, HTTP statuses, answers between stacks")
    lines.append("and exit codes. `retry` says when the same call may succeed.")
    lines += ["", "| code | means | exit | HTTP | JSON-RPC | retry |", "|---|---|---|---|---|---|"]
    for code in CODES.values():
        row = (f"`{code.name}`", code.meaning, code.exit, code.http, code.jsonrpc, code.retry)
        lines.append("| " + " | ".join(str(cell) for cell in row) + " |")
    lines += ["", "## Between stacks", ""]
    lines.append(
        "A destination refuses a message in a nack that it sealed, with one of the codes above"
    )
    lines.append(
        "and an outcome: `released` (it certainly did nothing) or `indeterminate`. Hops give"
    )
    lines.append("envelopes back with the codes below; no message fails by such a word alone.")
    lines += ["", "| code | speaks of | means | a copy may be on its way | the hop before |"]
    lines.append("|---|---|---|---|---|")
    for name, one in RELEASES.items():
        doubt = "no" if one.certain else "yes"
        lines.append(f"| `{name}` | {one.scope} | {one.meaning} | {doubt} | {one.next_step} |")
    lines.append("")
    lines.append("Any other code is taken for one after which a copy may be on its way.")
    return "\n".join(lines) + "\n"


def events_page() -> str:
    """The table of notices."""
    lines = ["# Events", "", _NOTE, ""]
    lines.append(
        "What `tektonmesh watch`, `/api/events` and `subscribe` show. Every notice has `seq`, `at`"
    )
    lines.append(
        "(seconds since 1970) and `kind`; `dropped` says how many were lost before it because the"
    )
    lines.append(
        "reader was too slow. A subscription may name kinds, or the first word of several: `stack`"
    )
    lines.append("stands for all that begin with `stack_`.")
    lines += ["", "| kind | is given when |", "|---|---|"]
    lines += [f"| `{kind}` | {_cell(meaning)} |" for kind, meaning in KINDS.items()]
    return "\n".join(lines) + "\n"


def metrics_page() -> str:
    """The table of metrics."""
    lines = ["# Metrics", "", _NOTE, ""]
    lines.append(
        "What `GET /metrics` shows, on the Unix socket and over TCP, in the text format of"
    )
    lines.append(
        "Prometheus. A counter only grows while the daemon runs; a histogram has `_bucket`,"
    )
    lines.append("`_sum` and `_count`. The numbers of the registry are also in `tektonmesh status")
    lines.append("--json` under `registry`.")
    lines += ["", "| metric | kind | label | is |", "|---|---|---|---|"]
    for name, family in FAMILIES.items():
        label = f"`{family.label}`" if family.label else ""
        lines.append(f"| `{shown_name(name)}` | {family.kind} | {label} | {_cell(family.text)} |")
    return "\n".join(lines) + "\n"


PAGES = {
    "commands.md": commands_page,
    "settings.md": settings_page,
    "errors.md": errors_page,
    "events.md": events_page,
    "metrics.md": metrics_page,
}


def main(words: list[str]) -> int:
    """Write the pages, or with `--check` say which are not current."""
    check = words == ["--check"]
    FOLDER.mkdir(parents=True, exist_ok=True)
    stale = []
    for name, make in PAGES.items():
        path, text = FOLDER / name, make()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            path.write_text(text, encoding="utf-8")
            print(f"docs: wrote docs/reference/{name}")
    if check and stale:
        print(f"docs: run ./scripts/docs: {', '.join(stale)} is not current", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
