"""Local callers over TCP: tokens with scopes, TLS beyond loopback, and OAuth tokens."""

from __future__ import annotations

import base64
import datetime
import hmac
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tektonmesh.api.governing import Governing
from tektonmesh.api.http.oauth import ResourceServer
from tektonmesh.api.operations import Caller, Operations
from tektonmesh.errors import LocalError, PolicyError
from tektonmesh.net.store import Store
from tektonmesh.net.tokens import TOKENS_MAX, Tokens
from tests.doors import open_stack

ISSUER, AUDIENCE = "https://id.example", "tektonmesh"


@asynccontextmanager
async def http_to(
    doors: Operations, token: str = "", **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    scheme = "https" if doors.daemon.config.http_tls else "http"
    address = str(doors.daemon.http).replace("0.0.0.0", "127.0.0.1")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    async with httpx.AsyncClient(
        base_url=f"{scheme}://{address}", headers=headers, trust_env=False, **settings
    ) as http:
        yield http


async def status(doors: Operations, token: str, path: str, method: str = "GET") -> int:
    async with http_to(doors, token) as http:
        return (await http.request(method, path, json={} if method == "POST" else None)).status_code


# --- tokens --------------------------------------------------------------------------------------


async def test_a_token_opens_what_its_scopes_say_and_nothing_else(tmp_path: Path) -> None:
    async with open_stack(tmp_path, http="127.0.0.1:0") as doors:
        governing = Governing(doors.daemon)
        read = await governing.token({"scopes": ["read"], "name": "dashboard"})
        owner = await governing.token({"scopes": ["owner"]})
        send = await governing.token({"scopes": ["send", "register"]})
        assert await status(doors, read["token"], "/api/status") == 200
        assert await status(doors, read["token"], "/api/peers") == 403
        assert await status(doors, read["token"], "/api/audit") == 403
        assert await status(doors, read["token"], "/api/registry/register", "POST") == 403
        assert await status(doors, read["token"], "/api/message/numa", "POST") == 403
        assert await status(doors, owner["token"], "/api/peers") == 200
        assert await status(doors, owner["token"], "/api/audit") == 200
        assert await status(doors, send["token"], "/api/status") == 403
        assert await status(doors, send["token"], "/api/registry/register", "POST") == 422
        assert await status(doors, "tmk_guessed", "/api/status") == 401
        async with http_to(doors) as http:
            asked = await http.get(f"/api/status?token={read['token']}")
            assert asked.status_code == 401
        await governing.token({"revoke": read["id"]})
        assert await status(doors, read["token"], "/api/status") == 401
        listed = await governing.token({})
        assert [token["scopes"] for token in listed] == [["owner"], ["send", "register"]]
        assert listed[0]["last_used"] and owner["token"] not in json.dumps(listed)


async def test_a_token_without_the_scope_of_the_owner_speaks_for_no_ci(tmp_path: Path) -> None:
    async with open_stack(tmp_path, http="127.0.0.1:0") as doors:
        governing = Governing(doors.daemon)
        await doors.register({"name": "numa", "attach": False}, Caller("http"))
        send = await governing.token({"scopes": ["register"]})
        async with http_to(doors, send["token"]) as http:
            assert (await http.delete("/api/registry/numa")).status_code == 401
            taken = await http.post("/api/registry/register", json={"name": "numa"})
            assert taken.status_code == 409


@pytest.mark.hostile("ci-as-another")
async def test_tokens_are_the_owners_to_make(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors:
        ci = Caller("socket", connection=1, is_ci=True)
        for act in ("token", "grant", "revoke", "terms", "invite", "join", "policy", "audit"):
            with pytest.raises(LocalError, match="owner"):
                await doors.acts[act]({}, ci)


async def test_tokens_outlive_a_restart_as_hashes(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    text, made = Tokens(store, {}, lambda _kind, **_data: None).create("x", ("send",), 60.0)
    rows = dict(store._pending)
    saved = {key: value for key, value in rows.items() if value is not None}
    assert text.encode() not in b"".join(saved.values())
    saved["token", b"damaged"] = b"\xc1"
    again = Tokens(store, saved, lambda _kind, **_data: None)
    found = again.find(text)
    assert found is not None and found.scopes == made.scopes
    store.close()


async def test_an_expired_token_opens_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    store = Store(tmp_path / "db")
    tokens = Tokens(store, {}, lambda _kind, **_data: None)
    text, made = tokens.create("x", ("send",), 60.0)
    assert tokens.find(text) is not None
    monkeypatch.setattr("tektonmesh.net.tokens.wall_s", lambda: made.made_s + 60.0)
    assert tokens.find(text) is None
    store.close()


@pytest.mark.parametrize("scopes", [(), ("fly",)])
async def test_tokens_that_cannot_be_are_not_made(tmp_path: Path, scopes: tuple[str, ...]) -> None:
    store = Store(tmp_path / "db")
    tokens = Tokens(store, {}, lambda _kind, **_data: None)
    with pytest.raises(LocalError):
        tokens.create("x", scopes, 0.0)
    for _ in range(TOKENS_MAX):
        tokens.create("x", ("read",), 0.0)
    with pytest.raises(LocalError, match="too many"):
        tokens.create("x", ("read",), 0.0)
    with pytest.raises(LocalError, match="no such"):
        tokens.revoke("none")
    store.close()


# --- TLS -----------------------------------------------------------------------------------------


def make_certificate(folder: Path, *, mode: int = 0o600) -> tuple[Path, Path]:
    """A certificate of our own for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    day = datetime.datetime(2020, 1, 1)
    names = x509.SubjectAlternativeName(
        [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("west.example")]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(day)
        .not_valid_after(day.replace(year=2120))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_path, key_path = folder / "http.crt", folder / "http.key"
    cert_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    key_path.chmod(mode)
    return cert_path, key_path


async def test_beyond_loopback_it_takes_tls_a_token_and_a_known_name(tmp_path: Path) -> None:
    tls = make_certificate(tmp_path)
    async with open_stack(
        tmp_path, http="0.0.0.0:0", http_tls=tls, http_hosts=("west.example",)
    ) as doors:
        made = await Governing(doors.daemon).token({"scopes": ["read"]})
        trusting = ssl.create_default_context(cafile=str(tls[0]))
        async with http_to(doors, made["token"], verify=trusting) as http:
            assert (await http.get("/api/status")).status_code == 200
            named = await http.get("/api/status", headers={"host": "west.example"})
            assert named.status_code == 200
            rebound = await http.get("/api/status", headers={"host": "evil.example"})
            assert rebound.status_code == 403
            page = await http.get("/api/status", headers={"origin": "http://127.0.0.1"})
            assert page.status_code == 403
        async with http_to(doors, verify=trusting) as http:
            assert (await http.get("/api/status")).status_code == 401
        plain = str(doors.daemon.http).replace("0.0.0.0", "127.0.0.1")
        async with httpx.AsyncClient(trust_env=False) as http:
            with pytest.raises(httpx.HTTPError):
                await http.get(f"http://{plain}/api/status")


@pytest.mark.parametrize("fault", ["missing", "open", "garbled"])
async def test_a_certificate_that_is_of_no_use_is_refused_at_the_start(
    tmp_path: Path, fault: str
) -> None:
    cert, key = make_certificate(tmp_path, mode=0o644 if fault == "open" else 0o600)
    if fault == "missing":
        key.unlink()
    if fault == "garbled":
        cert.write_text("nonsense")
    with pytest.raises(LocalError):
        async with open_stack(tmp_path, http="0.0.0.0:0", http_tls=(cert, key)):
            raise AssertionError("It started.")


# --- OAuth ---------------------------------------------------------------------------------------

KEY = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())


def make_jwks(folder: Path) -> Path:
    public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(KEY.public_key()))
    path = folder / "issuer.jwks"
    path.write_text(json.dumps({"keys": [public | {"kid": "k1", "alg": "ES256", "use": "sig"}]}))
    return path


def claims(**changes: Any) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC)
    plain = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "scope": "tektonmesh:read openid"}
    return plain | {"exp": now + datetime.timedelta(minutes=5)} | changes


def token_of(key: Any = KEY, algorithm: str = "ES256", kid: str = "k1", **changes: Any) -> str:
    return jwt.encode(claims(**changes), key, algorithm=algorithm, headers={"kid": kid})


def unsigned() -> str:
    return jwt.encode(claims(), None, algorithm="none", headers={"kid": "k1"})


def confused() -> str:
    """Signed with the public key as if it were a shared secret."""
    public = KEY.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    honest = token_of().split(".")
    header = json.dumps({"alg": "HS256", "typ": "JWT", "kid": "k1"}).encode()
    signed = f"{base64.urlsafe_b64encode(header).decode().rstrip('=')}.{honest[1]}"
    mac = hmac.digest(public, signed.encode(), "sha256")
    return f"{signed}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


PAST = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    "text",
    [
        token_of(OTHER),
        token_of(kid="k2"),
        token_of(iss="https://evil.example"),
        token_of(aud="another"),
        token_of(exp=PAST),
        token_of(nbf=datetime.datetime(2120, 1, 1, tzinfo=datetime.UTC)),
        token_of(sub=None),
        unsigned(),
        confused(),
        "a.b.c",
        token_of() + "x",
        token_of(pad="x" * 9000),
    ],
)
def test_a_jwt_that_is_not_the_issuers_for_us_and_for_now_is_refused(
    tmp_path: Path, text: str
) -> None:
    server = ResourceServer(ISSUER, AUDIENCE, make_jwks(tmp_path))
    with pytest.raises(PolicyError) as refusal:
        server.check(text)
    assert refusal.value.code.name == "unauthorized"
    assert text[:20] not in refusal.value.sentence()


async def test_a_jwt_of_the_issuer_opens_what_its_scopes_say(tmp_path: Path) -> None:
    oauth = (ISSUER, AUDIENCE, make_jwks(tmp_path))
    async with open_stack(tmp_path, http="127.0.0.1:0", oauth=oauth) as doors:
        assert await status(doors, token_of(), "/api/status") == 200
        assert await status(doors, token_of(), "/api/peers") == 403
        assert await status(doors, token_of(scope="openid"), "/api/status") == 403
        assert await status(doors, token_of(scope=5), "/api/status") == 403
        assert await status(doors, token_of(OTHER), "/api/status") == 401
    async with open_stack(tmp_path, "east", http="127.0.0.1:0") as doors:
        assert await status(doors, token_of(), "/api/status") == 401


@pytest.mark.parametrize("text", ["", "{}", '{"keys": []}', '{"keys": [{"kty": "oct"}]}'])
def test_a_key_file_of_no_use_is_refused_at_the_start(tmp_path: Path, text: str) -> None:
    path = tmp_path / "issuer.jwks"
    path.write_text(text)
    with pytest.raises(LocalError, match="keys of the OAuth issuer"):
        ResourceServer(ISSUER, AUDIENCE, path)
