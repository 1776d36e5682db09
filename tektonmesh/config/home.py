"""Where a stack lives: its home folder, its socket, and what a Tekton installation says of both.

Several stacks on one machine are the normal case, so everything hangs off the home. This module
decides paths only; it makes the home folder and the short socket folder, and writes no settings.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from tektonmesh.errors import LocalError

SOCKET_NAME = "tektonmesh.sock"
SOCKET_PATH_MAX = 100
"""Bytes. Linux allows 107 and macOS 103 in `sun_path`; 100 leaves room for a temporary suffix."""

_PROFILE_NAME = "profile"
_LAN_HOMES_MAX = 1000


def tekton_root(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The Tekton installation this stack belongs to, if `$TEKTON_ROOT` names one."""
    root = environ.get("TEKTON_ROOT", "")
    return Path(root).expanduser().absolute() if root else None


def tekton_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that count for us: `.env.tekton`, then `.env.local`, then the process's own.

    Later ones win, as in Tekton; the process's environment wins over both files.
    """
    found: dict[str, str] = {}
    root = tekton_root(environ)
    if root is not None:
        for name in (".env.tekton", ".env.local"):
            found.update(_read_env_file(root / name))
    found.update(environ)
    return found


def _read_env_file(path: Path) -> Iterator[tuple[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        key, equals, value = line.strip().removeprefix("export ").partition("=")
        key, value = key.strip(), value.strip()
        if not equals or key.startswith("#") or not key.isidentifier():
            continue
        if value[:1] in ("'", '"'):
            value = value[1:].partition(value[0])[0]
        else:
            value = value.partition(" #")[0].strip()
        yield key, value


def state_folder() -> Path:
    """The platform's folder for state, with our name: homes without a better place live there."""
    import platformdirs

    return Path(platformdirs.user_state_dir()) / "tektonmesh"


def resolve_home(home: str | Path | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """The home: as given, else `$TEKTONMESH_HOME`, else in `$TEKTON_ROOT`, else the platform's.

    A bare word, such as `lan-2`, means the home of that name beside the default one where there
    is such a home and no folder of that name here.
    """
    if home or environ.get("TEKTONMESH_HOME"):
        given = Path(home or environ["TEKTONMESH_HOME"]).expanduser()
        if len(given.parts) == 1 and not given.is_absolute() and not given.exists():
            beside = state_folder() / given
            return beside if beside.is_dir() else given.absolute()
        return given.absolute()
    root = tekton_root(environ)
    if root is not None:
        return root / ".tekton" / "tektonmesh"
    return state_folder() / "default"


def lan_homes() -> Iterator[tuple[int, Path]]:
    """The homes that `run --lan` may take, with their numbers, in the order it tries them."""
    folder = state_folder()
    for number in range(1, _LAN_HOMES_MAX + 1):
        yield number, folder / f"lan-{number}"


def lan_number(home: Path) -> int:
    """The number of one of these homes; 1 for any other."""
    number = home.name.removeprefix("lan-")
    ours = home.parent == state_folder() and home.name != number
    return int(number) if ours and number.isascii() and number.isdigit() else 1


def is_test_home(home: Path) -> bool:
    """Whether this home belongs to a test stack."""
    return _read_profile(home) == "lan"


# --- the socket ----------------------------------------------------------------------------------


def socket_path(home: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """The socket of the daemon in `home`: in the home, or, where that path is too long for the
    system, a short one that depends on the home's path alone.

    A short path that already exists is preferred, so that a client started without
    `$XDG_RUNTIME_DIR` (cron, sudo) still finds the daemon that was started with it. One in a
    folder that somebody else could have made is never taken.
    """
    plain = home / SOCKET_NAME
    if len(os.fsencode(plain)) <= SOCKET_PATH_MAX:
        return plain
    candidates = _short_paths(home, environ)
    for path in candidates:
        if path.exists() and _folder_is_private(path.parent, _owner_of(home)):
            return path
    return candidates[0]


def _short_paths(home: Path, environ: Mapping[str, str]) -> list[Path]:
    import tempfile

    digest = hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:16]
    folders = [Path(tempfile.gettempdir()), Path("/tmp")]
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime:
        folders.insert(0, Path(runtime))
    paths = [folder / f"tektonmesh-{_owner_of(home)}" / f"{digest}.sock" for folder in folders]
    return [path for path in paths if len(os.fsencode(path)) <= SOCKET_PATH_MAX] or paths


def _owner_of(home: Path) -> int:
    try:
        return home.stat().st_uid
    except OSError:
        return os.geteuid()


def _folder_is_private(folder: Path, owner: int) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    private = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o077
    return private and found.st_uid == owner


def prepare_socket_folder(path: Path, home: Path) -> None:
    """Make sure that the folder of a short socket path is ours alone. Raises LocalError if not."""
    folder = path.parent
    if folder == home or not folder.name.startswith("tektonmesh-"):
        return
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        if not _folder_is_private(folder, _owner_of(home)):
            raise LocalError(
                f"The folder {folder} for the socket is not ours alone.",
                hint="Remove it, or choose another socket with --socket.",
            ) from None


# --- the profile of a home -----------------------------------------------------------------------


def claim_home(home: Path, *, lan: bool) -> bool:
    """Make the home if it is missing and mark what it is for; True if it is new.

    A home serves either the test profile (`run --lan`) or the normal one for all its life: an
    identity that met strangers on a LAN must not carry what they know into a mesh of trust.
    Raises LocalError when the home is of the other kind or cannot be made.
    """
    wanted = "lan" if lan else "normal"
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = _read_profile(home)
        if found is None:
            handle = os.open(home / _PROFILE_NAME, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(handle, "w") as file:
                file.write(wanted + "\n")
            return True
    except FileExistsError:
        found = _read_profile(home)
    except OSError as error:
        raise LocalError(
            f"The home {home} cannot be made: {error.strerror}.",
            hint="Choose another with --home or $TEKTONMESH_HOME.",
        ) from None
    if found != wanted:
        raise LocalError(_wrong_profile(home, lan=lan), hint=_other_home(lan=lan))
    return False


def _read_profile(home: Path) -> str | None:
    try:
        return (home / _PROFILE_NAME).read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return "normal" if (home / "identity").exists() else None


def _wrong_profile(home: Path, *, lan: bool) -> str:
    if lan:
        return f"The home {home} was used in normal mode and is not for test stacks."
    return f"The home {home} belongs to a test stack (run --lan)."


def _other_home(*, lan: bool) -> str:
    if lan:
        return "Leave out --home, or name a new folder."
    return "Use `run --lan` with it, or another --home."
