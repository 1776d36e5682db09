"""The checks of `tektonmesh doctor`: each looks at one thing and says what to do about it.

Checks read only. Those of the running daemon ask its socket; the others work without one, since
a daemon that does not start is why most people come here.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tektonmesh import __version__
from tektonmesh.cli.common import Where
from tektonmesh.cli.doctor_closed import check_audit, check_openness, check_rights
from tektonmesh.cli.sentences import gap
from tektonmesh.config.home import is_test_home
from tektonmesh.errors import MeshError

DISK_LOW_BYTES = 200 << 20
DISK_FULL_BYTES = 20 << 20
YEAR_MIN, YEAR_MAX = 2024, 2100
"""A machine without a battery starts in 1970."""
_REACH_S = 2.0
_PYTHON_MIN = (3, 11)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: `level` is ok, warn or fail; `advice` is empty when there is nothing to do."""

    check: str
    level: str
    detail: str
    advice: str = ""


@dataclass(slots=True)
class Patient:
    """What the checks look at. `status` is None while no daemon answers."""

    where: Where
    home: Path
    status: dict[str, Any] | None = None


def examine(where: Where) -> Iterator[Finding]:
    """All findings, in an order in which the first failure is likely the cause of the others."""
    patient = Patient(where, where.resolved_home())
    for check in CHECKS:
        yield from check(patient)


# --- without a daemon ----------------------------------------------------------------------------


def check_python(_patient: Patient) -> Iterator[Finding]:
    """The interpreter."""
    running = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info[:2] < _PYTHON_MIN:
        yield Finding("python", "fail", f"Python {running}", "Use Python 3.11 or later.")
    else:
        yield Finding("python", "ok", f"Python {running}, tektonmesh {__version__}")


def check_packages(_patient: Patient) -> Iterator[Finding]:
    """Every package we depend on, and its lowest version."""
    from importlib.metadata import PackageNotFoundError, requires, version

    try:
        wanted = requires("tektonmesh") or []
    except PackageNotFoundError:
        yield Finding("packages", "warn", "run from a folder, not installed", "pip install .")
        return
    wrong = []
    for line in wanted:
        found = re.match(r"([A-Za-z0-9._-]+)[^;]*?>=\s*([0-9.]+)(?!.*extra)", line)
        if found is None:
            continue
        name, lowest = found.groups()
        try:
            present = version(name)
        except PackageNotFoundError:
            wrong.append(f"{name} is missing")
            continue
        if _numbers(present) < _numbers(lowest):
            wrong.append(f"{name} {present} is older than {lowest}")
    if wrong:
        yield Finding("packages", "fail", "; ".join(wrong), "Run ./scripts/demo, or pip install .")
    else:
        yield Finding("packages", "ok", "all there")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def check_home(patient: Patient) -> Iterator[Finding]:
    """The home folder and what is in it that nobody else may read."""
    home = patient.home
    if not home.is_dir():
        yield Finding("home", "fail", f"{home} does not exist", f"tektonmesh init --home {home}")
        return
    yield _permissions("home", home, 0o077)
    identity = home / "identity"
    if not identity.is_dir():
        yield Finding("identity", "fail", "no identity yet", f"tektonmesh init --home {home}")
        return
    yield _permissions("identity", identity, 0o077)
    yield from _keys(home)
    yield from check_audit(home)


def _keys(home: Path) -> Iterator[Finding]:
    """The key files as the daemon itself would read them; this folder exists, so none is made."""
    from tektonmesh.core.ids import show_id
    from tektonmesh.net.identity import load_or_create

    try:
        identity, _ = load_or_create(home, "doctor", "doctor", ())
    except MeshError as error:
        yield Finding("keys", "fail", error.detail, error.hint)
    else:
        yield Finding("keys", "ok", f"those of {show_id(identity.stack_id)}")


def _permissions(check: str, path: Path, refused: int) -> Finding:
    found = path.lstat()
    if found.st_uid != os.geteuid():
        owner = f"{path} belongs to user {found.st_uid}"
        return Finding(check, "fail", owner, f"Run as that user, or chown it to {os.geteuid()}.")
    if stat.S_ISLNK(found.st_mode):
        return Finding(check, "fail", f"{path} is a symbolic link", "Put the real thing there.")
    if found.st_mode & refused:
        mode = "700" if stat.S_ISDIR(found.st_mode) else "600"
        detail = f"{path} can be read or changed by others"
        return Finding(check, "fail", detail, f"chmod {mode} {path}")
    return Finding(check, "ok", f"{path} is ours alone")


def check_settings(patient: Patient) -> Iterator[Finding]:
    """The settings file, and where it is more open than the defaults."""
    from tektonmesh.config.settings import FILE_NAME, read_settings

    if not (patient.home / FILE_NAME).exists():
        return
    try:
        settings = read_settings(patient.home)
    except MeshError as error:
        yield Finding("settings", "fail", error.detail, error.hint)
        return
    yield Finding("settings", "ok", f"{patient.home / FILE_NAME} is valid")
    secret = settings.get("secret_file")
    if secret:
        path = patient.home / Path(secret).expanduser()
        if path.exists():
            yield _permissions("secret", path, 0o077)
    yield from check_openness(settings)


def check_disk(patient: Patient) -> Iterator[Finding]:
    """Room for the registry and the log."""
    folder = patient.home
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    detail = f"{free >> 20} MiB free at {folder}"
    if free < DISK_FULL_BYTES:
        yield Finding("disk", "fail", detail, "Make room: nothing can be stored.")
    elif free < DISK_LOW_BYTES:
        yield Finding("disk", "warn", detail, "Make room before it is full.")
    else:
        yield Finding("disk", "ok", detail)


# --- the running daemon --------------------------------------------------------------------------


def check_daemon(patient: Patient) -> Iterator[Finding]:
    """Whether a daemon answers, and the socket's permissions. The later checks need this one."""
    path = patient.where.socket_path()
    try:
        with patient.where.client() as client:
            patient.status = client.status()
    except MeshError as error:
        yield Finding("daemon", "fail", error.detail, error.hint)
        return
    yield Finding("daemon", "ok", f"{patient.status['name']} answers on {path}")
    yield _permissions("socket", path, 0o077)


def check_clock(patient: Patient) -> Iterator[Finding]:
    """The wall clock against the time the mesh agrees on."""
    if patient.status is None:
        return
    year = time.gmtime().tm_year
    advice = "Set the clock (NTP, timedatectl) and restart the daemon."
    if patient.status.get("clock_alarm"):
        yield Finding("clock", "fail", "a minute or more off the time of the mesh", advice)
    elif not YEAR_MIN <= year <= YEAR_MAX:
        yield Finding("clock", "fail", f"the year is {year}", advice)
    elif patient.status.get("links"):
        yield Finding("clock", "ok", "agrees with the neighbours")
    else:
        yield Finding("clock", "ok", f"the year is {year}; no neighbour to compare with")


def check_listening(patient: Patient) -> Iterator[Finding]:
    """Whether each address the daemon tells others can be reached, at least from here."""
    if patient.status is None:
        return
    for address in patient.status.get("listen", []):
        host, _, port = address.rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S):
                yield Finding("listen", "ok", f"{address} takes connections")
        except OSError as error:
            detail = f"{address} cannot be reached: {error.strerror or error}"
            yield Finding("listen", "warn", detail, "Check firewall and --listen.")


def check_mesh(patient: Patient) -> Iterator[Finding]:
    """Links, agreement with the neighbours, the test profile, and who waits for approval."""
    status = patient.status
    if status is None:
        return
    links = status.get("links", [])
    if not links:
        advice = "Start another stack, add a --seed, or look at `tektonmesh peers`."
        yield Finding("links", "warn", "no link to any stack", advice)
    else:
        yield Finding("links", "ok", ", ".join(link["stack"] for link in links))
        if status.get("converged"):
            yield Finding("registry", "ok", "converged with all neighbours")
        else:
            advice = "Wait some seconds and look again."
            others = ", ".join(gap(row) for row in status.get("divergence", []))
            yield Finding("registry", "warn", f"not converged with {others}", advice)
    if is_test_home(patient.home):
        detail = "this is a test stack: the whole local network may join it"
        yield Finding("profile", "warn", detail, "Fine for tests; use `run` without --lan else.")
    yield from check_rights(patient.where)
    with patient.where.client() as client:
        pending = [peer for peer in client.peers() if peer["state"] == "pending"]
    for peer in pending[:5]:
        detail = f"{peer.get('name') or 'a stack'} waits for approval"
        yield Finding("peers", "warn", detail, f"tektonmesh peers approve {peer['id']}")


CHECKS: tuple[Callable[[Patient], Iterator[Finding]], ...] = (
    check_python,
    check_packages,
    check_home,
    check_settings,
    check_disk,
    check_daemon,
    check_clock,
    check_listening,
    check_mesh,
)
