"""One diamond of daemons for each file of tests, honest and whole again after every test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.stacks import Mesh, Stack, a_mesh
from tests.failures.shape import Diamond

Stack.quick = True


@pytest.fixture(scope="module")
def _diamond(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Diamond]:
    with a_mesh(tmp_path_factory.mktemp("diamond")) as mesh:
        made = Diamond(mesh)
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def diamond(_diamond: Diamond) -> Iterator[Diamond]:
    yield _diamond
    _diamond.heal()


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    with a_mesh(tmp_path) as made:
        yield made
