"""The daemon, killed by itself (as by `kill -9`) between new keys on the disk and their publishing:
`dying_keys.py run ...`. Everything else is the product."""

import os
import signal
import sys

from tektonmesh.cli.main import leave_quietly, main
from tektonmesh.net.credentials import Credentials


def die(_self: Credentials, _issued_at: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    Credentials.adopt = die  # type: ignore[method-assign]
    leave_quietly(main(sys.argv[1:]))
