"""The one table of codes, and that an error survives the way through a door."""

import pytest

from tektonmesh.errors import (
    CODES,
    DeliveryError,
    LocalError,
    MeshError,
    PolicyError,
    RemoteError,
    StoreError,
    error_from,
)


def test_every_exit_code_is_one_of_the_contract() -> None:
    assert {code.exit for code in CODES.values()} <= {1, 2, 3, 4, 5, 6, 130}
    assert {code.retry for code in CODES.values()} <= {"never", "later", "now"}


def test_json_rpc_numbers_are_distinct() -> None:
    numbers = [code.jsonrpc for code in CODES.values()]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize(
    "error",
    [
        LocalError("The name is empty.", hint="Give one."),
        LocalError("No such stack.", code="not_found"),
        DeliveryError("No path.", outcome="indeterminate", code="timeout"),
        PolicyError("Not allowed."),
        StoreError("Disk full.", data={"free": 0}),
        RemoteError("Bad frame."),
    ],
)
def test_an_error_is_rebuilt_from_what_a_door_sent(error: MeshError) -> None:
    rebuilt = error_from(error.as_dict())
    assert rebuilt.code == error.code
    assert rebuilt.sentence() == error.sentence()
    assert rebuilt.data == error.data
    assert getattr(rebuilt, "outcome", None) == getattr(error, "outcome", None)


def test_an_unknown_code_becomes_an_internal_error_with_its_words() -> None:
    rebuilt = error_from({"code": "from-the-future", "detail": "What?"})
    assert (rebuilt.code.name, rebuilt.detail) == ("internal", "What?")
