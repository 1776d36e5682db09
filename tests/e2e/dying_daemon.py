"""The daemon, killed by itself (as by `kill -9`) just before or just after a commit that writes to
a table: `dying_daemon.py before|after TABLE put|delete run ...`. Everything else is the product."""

import os
import signal
import sys
from typing import Any

from tektonmesh.cli.main import leave_quietly, main
from tektonmesh.net.store import Store


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def plant(when: str, table: str, act: str) -> None:
    honest = Store._commit

    def commit(self: Store, rows: Any) -> None:
        doomed = any(t == table and (v is None) == (act == "delete") for (t, _), v in rows.items())
        if doomed and when == "before":
            die()
        honest(self, rows)
        if doomed:
            die()

    Store._commit = commit  # type: ignore[method-assign]


if __name__ == "__main__":
    plant(*sys.argv[1:4])
    leave_quietly(main(sys.argv[4:]))
