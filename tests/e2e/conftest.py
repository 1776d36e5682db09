"""Each test gets its meshes and networks from here, and all of them are gone when it ends."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.stacks import Mesh, Stack, a_mesh

# A shell that starts the suite in the background has it ignore Ctrl-C, and every command inherits
# that: the tests that press Ctrl-C would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)

Stack.quick = True


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    with a_mesh(tmp_path) as made:
        yield made
