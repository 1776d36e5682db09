"""`python -m tektonmesh` and the `tektonmesh` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line of this process and exit with its code."""
    try:
        from tektonmesh.cli.main import leave_quietly
        from tektonmesh.cli.main import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    leave_quietly(run())


if __name__ == "__main__":
    main()
