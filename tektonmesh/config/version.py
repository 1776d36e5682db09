"""The version of the installed package, for `--version`, for `doctor` and for what peers see."""

from __future__ import annotations


def package_version() -> str:
    """As the package's metadata have it; `0` where it is run from a folder and not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("tektonmesh")
    except PackageNotFoundError:
        return "0"
