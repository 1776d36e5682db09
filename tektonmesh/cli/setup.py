"""Making a home: what `init` and a first `run` have in common."""

from __future__ import annotations

from pathlib import Path

from tektonmesh.config.home import claim_home
from tektonmesh.config.load import default_name
from tektonmesh.config.names import check_name
from tektonmesh.config.settings import write_settings


def prepare_home(home: Path, *, name: str | None, mesh: str | None, lan: bool = False) -> bool:
    """Make the home and its settings file unless they are there; True if anything was made.

    The name is written down in a normal home, so that the stack keeps it when the host is renamed;
    one that Tekton gives stays Tekton's to change. Test stacks are named anew at each start.
    Raises LocalError when the home serves the other profile.
    """
    given: dict[str, str] = {}
    if name:
        given["name"] = check_name(name, "--name")
    elif not _tekton_names_it():
        given["name"] = default_name()
    if mesh:
        given["mesh"] = check_name(mesh, "--mesh")
    new = claim_home(home, lan=lan)
    return write_settings(home, {} if lan else given) or new


def _tekton_names_it() -> bool:
    from tektonmesh.config.home import tekton_environment

    return bool(tekton_environment().get("TEKTON_REGISTRY_NAME"))
