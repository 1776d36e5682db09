"""The options by which several verbs say what another stack may do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

MODES = ("full", "partial", "read-only")
ROLES = ("member", "observer", "relay")


def terms_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--mode`, `--ci` and `--role`."""
    options = (
        click.option(
            "--mode",
            type=click.Choice(MODES),
            help="What it may do with the CIs that are shared with it.",
        ),
        click.option(
            "--ci",
            "shared_cis",
            metavar="NAME",
            multiple=True,
            help="Share only this CI with it (repeatable; a glob such as 'vision-*' is fine).",
        ),
        click.option(
            "--role",
            type=click.Choice(ROLES),
            help="An observer reads only; a relay forwards and sees no CI.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def terms_of(mode: str | None, shared_cis: tuple[str, ...], role: str | None) -> dict[str, Any]:
    """What was given, as the operations take it."""
    chosen = {"mode": mode, "shared_cis": list(shared_cis) or None, "role": role}
    return {key: value for key, value in chosen.items() if value is not None}
