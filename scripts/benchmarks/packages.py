"""Programs of others that a benchmark stands beside: where they come from.

Where one is not installed its Debian package is unpacked into a temporary folder, since an
installation would start a service of its own. What is written in Python gets an environment of its
own, which is kept for the next time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

_FETCH = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download"]


@contextlib.contextmanager
def provided(program: str, *packages: str) -> Iterator[str]:
    """`program` on the PATH for the length of the block, from these packages if need be, and why
    not as text that is empty otherwise."""
    before = {name: os.environ.get(name) for name in ("PATH", "LD_LIBRARY_PATH")}
    with tempfile.TemporaryDirectory(prefix="tmpeer") as folder:
        reason = ""
        if not shutil.which(program):
            reason = _unpack(Path(folder), program, packages)
            libraries = [str(path) for path in Path(folder, "usr/lib").glob("*-linux-gnu")]
            os.environ["PATH"] = f"{before['PATH']}:{folder}/usr/bin:{folder}/usr/sbin"
            os.environ["LD_LIBRARY_PATH"] = ":".join(libraries)
        try:
            yield reason
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def environment(folder: Path, package: str, version: str) -> str:
    """Make `folder` an environment with this package; why not as text, empty otherwise."""
    done = folder / f".installed-{version}"
    if done.exists():
        return ""
    print(f"installing {package} {version} into {folder.name}", file=sys.stderr)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    for command in ([sys.executable, "-m", "venv", str(folder)], [*pip, f"{package}=={version}"]):
        made = subprocess.run(command, capture_output=True, text=True, timeout=1800)
        if made.returncode:
            last = made.stderr.strip().splitlines()[-1:] or ["no reason given"]
            return f"{package} cannot be installed: {last[0]}"
    done.touch()
    return ""


def _unpack(folder: Path, program: str, packages: tuple[str, ...]) -> str:
    """Fetch and unpack the packages; the reason if that does not work, else an empty text."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return f"{program} is not installed and there is no apt-get to fetch it with"
    fetch = [*_FETCH, *packages]
    if not _runs(fetch, folder):
        if os.geteuid() != 0:
            return f"{program} is not installed and apt-get knows no package of that name"
        if not (_runs(["apt-get", "-qq", "update"], folder) and _runs(fetch, folder)):
            return f"{program} is not installed and apt-get cannot fetch it"
    for package in folder.glob("*.deb"):
        if not _runs(["dpkg-deb", "-x", package.name, "."], folder):
            return f"{package.name} cannot be unpacked"
    return ""


def _runs(command: list[str], folder: Path) -> bool:
    return subprocess.run(command, cwd=folder, capture_output=True, timeout=300).returncode == 0
