"""Registrations in their three forms, and what is refused in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tektonmesh.api.validate import LOOPBACK_ONLY, Places, local_url, registration
from tektonmesh.errors import LocalError

SEED_STACK = {
    "name": "tekton-west-coast",
    "type": "tekton",
    "host": "tekton-west.company.com",
    "port": 443,
    "protocol": "https",
    "stack_id": "uuid",
    "mcp_endpoints": {"resources": "/mcp/resources", "tools": "/mcp/tools"},
    "message_endpoint": "/api/federated/message",
    "message_format": "tekton_federated",
    "headers": {"X-Tekton-Stack": "west-coast", "Authorization": "Bearer shared-secret"},
    "capabilities": {"version": "1.0", "ci_count": 17, "specialties": ["nlp", "vision"]},
}


def refused_field(**given: Any) -> str:
    with pytest.raises(LocalError) as refusal:
        registration({"name": "numa"} | given, via="http")
    assert refusal.value.code.name == "bad_request"
    field = refusal.value.data["field"]
    assert f"'{field}'" in refusal.value.detail
    return str(field)


def test_a_bare_name_is_enough() -> None:
    spec = registration({"name": "Numa"}, via="http")
    assert spec == {
        "name": "Numa",
        "type": "ci",
        "specialties": [],
        "capabilities": [],
        "teams": [],
        "share": None,
        "persist": False,
        "lease_s": None,
        "description": "",
        "stream": False,
        "how": {"kind": "none"},
        "metadata": {},
        "via": "http",
    }


def test_without_an_endpoint_a_connection_that_can_take_messages_is_attached() -> None:
    assert registration({"name": "numa"}, via="socket", attach=True)["how"] == {"kind": "attached"}


def test_an_endpoint_is_used_before_the_connection() -> None:
    given = {"name": "numa", "endpoint": "http://127.0.0.1:8000/m", "headers": {"X-Key": "k"}}
    how = registration(given, via="socket", attach=True)["how"]
    assert how == {
        "kind": "http",
        "url": "http://127.0.0.1:8000/m",
        "format": "json_simple",
        "headers": {"X-Key": "k"},
    }


@pytest.mark.parametrize(
    "url", ["https://localhost/x", "http://[::1]:9/x", "http+unix://%2Frun%2Fnuma.sock/message"]
)
def test_an_endpoint_on_this_machine_is_taken(url: str) -> None:
    assert registration({"name": "numa", "endpoint": url}, via="http")["how"]["url"] == url


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/x",
        "http://example.com/x",
        "http://user:pw@127.0.0.1/x",
        "http://127.0.0.1/x#y",
        "http://127.0.0.1:99999/x",
        "http://[::ffff:10.0.0.1]/x",
        "http://2130706433/x",
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "127.0.0.1:80",
        "http://",
        "http://127.0.0.1/\nx",
        7,
    ],
)
def test_an_endpoint_elsewhere_or_nowhere_is_refused(url: Any) -> None:
    assert refused_field(endpoint=url) == "endpoint"


def test_the_seeds_local_form_is_an_endpoint_on_loopback() -> None:
    given = {
        "name": "athena",
        "type": "ai_specialist",
        "port": 45013,
        "message_endpoint": "/api/message",
        "message_format": "json_simple",
    }
    how = registration(given, via="http")["how"]
    assert how["url"] == "http://127.0.0.1:45013/api/message"
    assert how["format"] == "json_simple"


def test_a_message_format_that_nothing_here_speaks_is_listed_and_not_reached() -> None:
    given = {"name": "athena", "port": 45013, "message_format": "rhetor_socket"}
    spec = registration(given, via="http")
    assert spec["how"] == {"kind": "none"}
    assert spec["metadata"]["message_format"] == "rhetor_socket"


def test_the_native_format_must_be_known() -> None:
    assert refused_field(endpoint="http://127.0.0.1/", format="telepathy") == "format"


def test_the_seeds_stack_elsewhere_is_pending_and_has_no_way_to_be_reached() -> None:
    spec = registration(SEED_STACK, via="http")
    assert spec["type"] == "tekton"
    assert spec["how"] == {"kind": "none"}
    assert spec["specialties"] == ["nlp", "vision"]
    assert spec["metadata"]["state"] == "pending"
    assert spec["metadata"]["ci_count"] == 17
    assert spec["metadata"]["mcp_endpoints"] == SEED_STACK["mcp_endpoints"]
    assert "shared-secret" not in str(spec)


def test_the_seeds_external_stack_needs_no_port() -> None:
    federation = {"mode": "full", "shared_cis": ["athena-eu"], "access_level": "public"}
    given = {"name": "eu", "type": "external", "host": "tekton-eu.company.com"}
    spec = registration(given | {"federation": federation}, via="http")
    assert spec["metadata"]["federation"] == federation
    assert spec["metadata"]["state"] == "pending"


def test_a_stack_on_this_machine_is_reached_by_http() -> None:
    given = SEED_STACK | {"host": "localhost", "protocol": "http", "port": 8003}
    spec = registration(given, via="http")
    assert spec["how"]["url"] == "http://localhost:8003/api/federated/message"
    assert spec["how"]["format"] == "tekton_federated"
    assert spec["how"]["headers"]["X-Tekton-Stack"] == "west-coast"
    assert "state" not in spec["metadata"]


def test_unknown_keys_are_kept_and_secrets_are_not() -> None:
    given = {"name": "numa", "colour": "blue", "token": "tmr_x", "headers": {"A": "b"}}
    spec = registration(given | {"metadata": {"size": 3}}, via="http")
    assert spec["metadata"] == {"colour": "blue", "size": 3}


@pytest.mark.parametrize(
    ("capabilities", "words"),
    [
        (["chat", "chat", " code "], ["chat", "code"]),
        ([{"id": "chat", "name": "Chat", "methods": []}, {"name": "plan"}], ["chat", "plan"]),
        ({"chat": {"x": 1}, "plan": True, "never": False}, ["chat", "plan"]),
        (None, []),
    ],
)
def test_capabilities_come_as_words_objects_or_an_object(capabilities: Any, words: Any) -> None:
    given = {"name": "numa", "capabilities": capabilities}
    assert registration(given, via="http")["capabilities"] == words


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", None),
        ("name", 7),
        ("name", "a@b"),
        ("name", "-a"),
        ("name", "a" * 64),
        ("name", "numа"),  # a Cyrillic letter
        ("type", 7),
        ("type", "x" * 65),
        ("type", "a\nb"),
        ("specialties", "vision"),
        ("specialties", [""]),
        ("specialties", ["x" * 65]),
        ("specialties", ["\ud800"]),
        ("specialties", [str(n) for n in range(33)]),
        ("capabilities", 7),
        ("capabilities", [str(n) * 20 for n in range(10, 42)]),
        ("share", "everyone"),
        ("persist", "yes"),
        ("lease_s", 0),
        ("lease_s", True),
        ("lease_s", "90"),
        ("lease_s", float("inf")),
        ("description", "x" * 301),
        ("description", "\ud800"),
        ("stream", 1),
        ("metadata", []),
        ("metadata", {"x": "y" * 17_000}),
        ("metadata", {"x": float("inf")}),
        ("metadata", {"x": "\ud800"}),
        ("port", 0),
        ("port", 65536),
        ("port", "http"),
        ("port", True),
        pytest.param("port", "9" * 5000, id="a port of 5000 digits"),
    ],
)
def test_a_refusal_names_its_field(field: str, value: Any) -> None:
    assert refused_field(**{field: value}) == field


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("host", ""),
        ("host", "a/b"),
        ("host", 7),
        ("protocol", "gopher"),
        ("port", -1),
        ("message_endpoint", "no-slash"),
        ("message_endpoint", "//evil.example/x"),
    ],
)
def test_a_stack_is_refused_by_the_field_that_is_wrong(field: str, value: Any) -> None:
    assert refused_field(**SEED_STACK | {"name": "west", field: value}) == field


@pytest.mark.parametrize(
    "headers",
    [
        [],
        {"bad name": "x"},
        {"X": "a\r\nEvil: b"},
        {"X": 7},
        {"X": "ü"},
        {f"X{n}": "" for n in range(21)},
    ],
)
def test_headers_that_could_break_a_request_are_refused(headers: Any) -> None:
    assert refused_field(endpoint="http://127.0.0.1/", headers=headers) == "headers"


def test_a_message_endpoint_may_be_a_whole_url_of_this_machine() -> None:
    given = {"name": "numa", "message_endpoint": "http://localhost:8000/m", "port": 1}
    assert registration(given, via="http")["how"]["url"] == "http://localhost:8000/m"
    assert refused_field(message_endpoint="http://evil.example/m") == "message_endpoint"


def test_our_own_socket_is_no_endpoint_by_any_path(tmp_path: Path) -> None:
    own = tmp_path / "tektonmesh.sock"
    own.touch()
    (tmp_path / "link").symlink_to(own)
    (tmp_path / "hard").hardlink_to(own)
    for path in (own, tmp_path / "link", tmp_path / "hard", tmp_path / "x" / ".." / own.name):
        url = f"http+unix://{quote(str(path), safe='')}/api/leave"
        with pytest.raises(LocalError, match="own socket"):
            local_url("endpoint", url, Places(own_socket=own))
    other = f"http+unix://{quote(str(tmp_path / 'other.sock'), safe='')}/x"
    assert local_url("endpoint", other, Places(own_socket=own)) == other
    with pytest.raises(LocalError, match="Unix socket"):
        local_url("endpoint", other, LOOPBACK_ONLY)


def test_a_host_that_the_owner_allowed_may_be_an_endpoint() -> None:
    url = "http://192.168.1.20:8000/m"
    assert refused_field(endpoint=url) == "endpoint"
    assert local_url("endpoint", url, Places(hosts=("192.168.1.20",))) == url
