"""Each test gets its meshes and networks from here, and all of them are gone when it ends."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.stacks import Mesh, a_mesh


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    with a_mesh(tmp_path) as made:
        yield made
