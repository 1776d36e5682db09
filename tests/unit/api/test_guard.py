"""Who may call over TCP."""

from __future__ import annotations

from pathlib import Path

import pytest

from tektonmesh.api.http.guard import Access, TcpGuard, check_key, make_token, read_token
from tektonmesh.errors import LocalError, MeshError

TOKEN = "tmk_right"
OWNER = {"host": "127.0.0.1:7780", "authorization": f"Bearer {TOKEN}"}


def refusal(access: Access | None, headers: dict[str, str], *, tekton: bool = True) -> str:
    """The code of the refusal; empty when the call may go on."""
    guard = TcpGuard(TOKEN, "127.0.0.1:7780", tekton=tekton)
    try:
        guard.check(headers, access)
    except MeshError as error:
        return error.code.name
    return ""


def test_the_owner_shows_the_token() -> None:
    assert refusal(Access.OWNER, OWNER) == ""
    assert refusal(Access.OWNER, {"host": "localhost:7780", "x-api-key": TOKEN}) == ""
    assert refusal(Access.OWNER, {"host": "127.0.0.1:7780"}) == "unauthorized"
    assert refusal(Access.OWNER, OWNER | {"authorization": "Bearer tmk_wrong"}) == "unauthorized"
    assert refusal(Access.OWNER, OWNER | {"authorization": "Basic tmk_right"}) == "unauthorized"


def test_routes_that_do_not_exist_are_not_told_to_strangers() -> None:
    assert refusal(None, {"host": "127.0.0.1:7780"}) == "unauthorized"
    assert refusal(None, OWNER) == ""


def test_health_needs_no_token() -> None:
    assert refusal(Access.ANYONE, {"host": "127.0.0.1:7780"}) == ""


@pytest.mark.parametrize(
    "host", ["evil.example:7780", "evil.example", "127.0.0.1:80", "", "localhost.evil.example:7780"]
)
@pytest.mark.hostile("browser")
def test_another_host_is_refused_even_with_the_token(host: str) -> None:
    assert refusal(Access.OWNER, OWNER | {"host": host}) == "refused"
    assert refusal(Access.ANYONE, {"host": host}) == "refused"
    assert refusal(Access.TEKTON, {"host": host}) == "refused"


@pytest.mark.parametrize("host", ["127.0.0.1:7780", "localhost:7780", "[::1]:7780", "[::1]"])
def test_this_machine_has_several_names(host: str) -> None:
    assert refusal(Access.OWNER, OWNER | {"host": host}) == ""


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1:7780", ""])
@pytest.mark.hostile("browser")
def test_pages_from_elsewhere_are_refused(origin: str) -> None:
    assert refusal(Access.OWNER, OWNER | {"origin": origin}) == "refused"


def test_our_own_page_may_call_the_owners_routes_and_no_page_tektons() -> None:
    origin = {"origin": "http://127.0.0.1:7780"}
    assert refusal(Access.OWNER, OWNER | origin) == ""
    assert refusal(Access.TEKTON, OWNER | origin) == "refused"


def test_tektons_routes_need_no_token_and_exist_with_tekton_only() -> None:
    assert refusal(Access.TEKTON, {"host": "localhost:7780"}) == ""
    assert refusal(Access.TEKTON, OWNER, tekton=False) == "unknown_method"


def test_the_token_file_is_private_and_made_once(tmp_path: Path) -> None:
    assert read_token(tmp_path) is None
    token = make_token(tmp_path)
    assert token.startswith("tmk_") and len(token) > 40
    assert make_token(tmp_path) == read_token(tmp_path) == token
    assert (tmp_path / "http-token").stat().st_mode & 0o777 == 0o600


def test_a_token_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    make_token(tmp_path)
    (tmp_path / "http-token").chmod(0o644)
    with pytest.raises(LocalError, match="read by others"):
        read_token(tmp_path)


def test_without_a_token_no_key_fits() -> None:
    with pytest.raises(MeshError):
        check_key({"authorization": "Bearer "}, None)
    with pytest.raises(MeshError):
        check_key({"authorization": "Bearer "}, TOKEN)
