"""What strangers can do to the transport: nothing but waste their own connection."""

from __future__ import annotations

import datetime
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tektonmesh.errors import RemoteError
from tektonmesh.net import tls
from tektonmesh.net.link import Link, LinkContext, LinkRefused, accept_link, open_link
from tektonmesh.net.tls import ALPN, IDENTITY_OID, TlsStream, issue_leaf, null_ca_key, read_leaf
from tektonmesh.wire.codec import pack
from tektonmesh.wire.frames import cut
from tektonmesh.wire.handshake import Channel, Handshake, Kind, Local, Role
from tests.links import admit, make_context, meet, open_door, tcp_pair, turn_away
from tests.support import make_keys

SERVER = make_context(2)
Act = Callable[[TlsStream], Awaitable[None]]


async def outcome_of(attack: Callable[[socket.socket], Awaitable[None]]) -> LinkRefused:
    """How an honest server ends a connection that `attack` uses."""
    dialled, accepted = await tcp_pair()
    results: list[LinkRefused] = []

    async def serve() -> None:
        with pytest.raises(LinkRefused) as caught:
            await accept_link(trio.socket.from_stdlib_socket(accepted), SERVER)
        results.append(caught.value)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            with dialled:
                await attack(dialled)
    return results[0]


def over_tls(context: ssl.SSLContext, act: Act | None = None) -> Callable[..., Awaitable[None]]:
    """An attack by somebody who gets as far as TLS lets him with this context."""

    async def attack(dialled: socket.socket) -> None:
        stream = TlsStream(dialled.dup(), context, server_side=False)
        try:
            await stream.handshake(trio.StrictFIFOLock())
            if act is not None:
                await act(stream)
            while await stream.read():
                pass
        except (RemoteError, OSError):
            pass
        finally:
            stream.close()

    return attack


def sends(data: bytes) -> Callable[[socket.socket], Awaitable[None]]:
    """An attack by somebody who writes these bytes to the bare socket and listens."""

    async def attack(dialled: socket.socket) -> None:
        dialled.setblocking(False)
        plain = trio.socket.from_stdlib_socket(dialled.dup())
        try:
            await trio.SocketStream(plain).send_all(data)
            while await plain.recv(65536):
                pass
        except (OSError, trio.BrokenResourceError):
            pass
        finally:
            plain.close()

    return attack


# --- certificates --------------------------------------------------------------------------------


@contextmanager
def pem_file(certificate: x509.Certificate, key: Any, folder: Path) -> Iterator[str]:
    path = folder / "leaf.pem"
    path.write_bytes(
        certificate.public_bytes(Encoding.PEM)
        + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    yield str(path)
    path.unlink()


def client_context(certificate: x509.Certificate | None, key: Any, folder: Path) -> ssl.SSLContext:
    """A client that shows any certificate and accepts every server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=tls._null_ca().public_bytes(Encoding.DER))
    context.set_alpn_protocols([ALPN])
    if certificate is not None:
        with pem_file(certificate, key, folder) as path:
            context.load_cert_chain(path)
    return context


def certificate_for(
    public: Any, *, signer: Any, statement: bytes | None = None, padding: int = 0
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody")])
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tektonmesh null CA")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(9999, 1, 1, tzinfo=datetime.UTC))
    )
    if statement is not None:
        extension = x509.UnrecognizedExtension(IDENTITY_OID, statement)
        builder = builder.add_extension(extension, critical=False)
    if padding:
        oid = x509.ObjectIdentifier("1.2.3.4")
        extension = x509.UnrecognizedExtension(oid, bytes(padding))
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(signer, hashes.SHA256())


def statement_of(context: LinkContext) -> bytes:
    """The identity statement in somebody's real leaf."""
    found = x509.load_der_x509_certificate(context.leaf.der)
    value = found.extensions.get_extension_for_oid(IDENTITY_OID).value
    assert isinstance(value, x509.UnrecognizedExtension)
    return value.value


@pytest.mark.hostile("no-certificate")
async def test_a_client_without_a_certificate_is_refused(tmp_path: Path) -> None:
    refused = await outcome_of(over_tls(client_context(None, None, tmp_path)))
    assert refused.code == "protocol" and "PEER_DID_NOT_RETURN" in refused.detail


@pytest.mark.hostile("foreign-certificate")
async def test_a_self_signed_certificate_is_refused(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = certificate_for(key.public_key(), signer=key)
    refused = await outcome_of(over_tls(client_context(certificate, key, tmp_path)))
    assert refused.code == "protocol" and "CERTIFICATE_VERIFY_FAILED" in refused.detail


BAD_LEAVES: dict[str, tuple[Callable[[], Any], Callable[[], bytes | None], int, str]] = {
    "no identity": (lambda: ec.generate_private_key(ec.SECP256R1()), lambda: None, 0, "not one"),
    "a copied identity": (
        lambda: ec.generate_private_key(ec.SECP256R1()),
        lambda: statement_of(make_context(1)),
        0,
        "does not belong",
    ),
    "a cut identity": (
        lambda: ec.generate_private_key(ec.SECP256R1()),
        lambda: statement_of(make_context(1))[:-1],
        0,
        "is cut",
    ),
    "an identity key of small order": (
        lambda: ec.generate_private_key(ec.SECP256R1()),
        lambda: bytes(104),
        0,
        "does not belong",
    ),
    "an RSA key": (
        lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
        lambda: statement_of(make_context(1)),
        0,
        "P-256",
    ),
    "a key on another curve": (
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: statement_of(make_context(1)),
        0,
        "P-256",
    ),
    "3 KiB of certificate": (
        lambda: ec.generate_private_key(ec.SECP256R1()),
        lambda: statement_of(make_context(1)),
        3072,
        "bytes",
    ),
}


@pytest.mark.parametrize("case", BAD_LEAVES.values(), ids=BAD_LEAVES.keys())
@pytest.mark.hostile("copied-identity", "small-order-key", "rsa-leaf")
async def test_a_leaf_under_the_null_ca_with_a_flaw_is_refused(
    case: tuple[Callable[[], Any], Callable[[], bytes | None], int, str], tmp_path: Path
) -> None:
    make_key, statement, padding, why = case
    key = make_key()
    certificate = certificate_for(
        key.public_key(), signer=null_ca_key(), statement=statement(), padding=padding
    )
    refused = await outcome_of(over_tls(client_context(certificate, key, tmp_path)))
    assert refused.code == "protocol" and why in refused.detail
    assert refused.peer is None


@pytest.mark.hostile("copied-identity")
async def test_another_stacks_leaf_without_its_key_is_of_no_use(tmp_path: Path) -> None:
    """The certificate is public; whoever shows it must sign with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    stolen = x509.load_der_x509_certificate(make_context(1).leaf.der)
    with pytest.raises(ssl.SSLError, match="KEY_VALUES_MISMATCH"):
        client_context(stolen, key, tmp_path)


@pytest.mark.parametrize("der", [b"", b"\x30\x82\xff\xff", os.urandom(500)])
def test_bytes_that_are_no_certificate_are_the_peers_fault(der: bytes) -> None:
    with pytest.raises(RemoteError):
        read_leaf(der)


def with_version_10(der: bytes) -> bytes:
    """A certificate says 2 there and means version 3."""
    return der.replace(bytes.fromhex("a003020102"), bytes.fromhex("a00302010a"), 1)


def with_one_extension_twice(der: bytes) -> bytes:
    """Two extensions of one name; a second statement of who issued it would be one."""
    assert der.count(bytes.fromhex("2a030405")) == 1
    return der.replace(bytes.fromhex("2a030405"), bytes.fromhex("2a030406"), 1)


def with_a_negative_serial_number(der: bytes) -> bytes:
    """`cryptography` warns of it and reads on; what it lacks then is an identity."""
    return der.replace(bytes.fromhex("020101"), bytes.fromhex("0201ff"), 1)


def two_extensions() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(
        issuer_name=x509.Name([]),
        subject_name=x509.Name([]),
        public_key=key.public_key(),
        serial_number=1,
        not_valid_before=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
        not_valid_after=datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC),
    )
    for name in ("1.2.3.4.5", "1.2.3.4.6"):
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(name), b"x")
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    "spoil", [with_version_10, with_one_extension_twice, with_a_negative_serial_number]
)
def test_a_certificate_that_cannot_be_read_is_the_peers_fault(
    spoil: Callable[[bytes], bytes],
) -> None:
    der = two_extensions()
    assert spoil(der) != der
    with pytest.raises(RemoteError, match="not one of ours"):
        read_leaf(spoil(der))


def test_a_leaf_says_who_issued_it_and_when() -> None:
    keys, _ = make_keys(1)
    leaf = issue_leaf(keys, 77)
    read = read_leaf(leaf.der)
    assert (read.public, read.identity_key, read.issued_at) == (leaf.public, keys.op_public, 77)
    assert len(leaf.der) < 700


def test_a_leaf_can_be_loaded_where_there_are_no_files_in_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert read_leaf(issue_leaf(make_keys(1)[0], 1).der).issued_at == 1
    assert list(tmp_path.iterdir()) == []


# --- protocols -----------------------------------------------------------------------------------


@pytest.mark.hostile("old-tls")
async def test_tls_1_2_is_refused(tmp_path: Path) -> None:
    context = client_context(None, None, tmp_path)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    refused = await outcome_of(over_tls(context))
    assert refused.code == "protocol" and "UNSUPPORTED_PROTOCOL" in refused.detail


@pytest.mark.parametrize("protocols", [[], ["h2", "http/1.1"]], ids=["none", "http"])
async def test_another_application_protocol_is_refused(protocols: list[str]) -> None:
    context = make_context(1).leaf.client
    context.set_alpn_protocols(protocols)
    refused = await outcome_of(over_tls(context))
    assert refused.code == "protocol" and "our protocol" in refused.detail


@pytest.mark.parametrize(
    "data",
    [
        b"GET /api/status HTTP/1.1\r\nHost: mesh\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        bytes(16 << 20),
        b"\xff" * 65536,
        b"\x16\x03\x01\xff\xff" + bytes(70_000),
    ],
    ids=["http", "ssh", "zeros", "ones", "endless record"],
)
@pytest.mark.hostile("http-on-the-port")
async def test_noise_on_the_port_ends_the_connection(data: bytes) -> None:
    refused = await outcome_of(sends(data))
    assert (refused.code, refused.peer) == ("protocol", None)


async def test_whoever_leaves_during_tls_is_refused() -> None:
    async def leave(dialled: socket.socket) -> None:
        dialled.send(b"\x16")

    refused = await outcome_of(leave)
    assert (refused.code, refused.peer) == ("protocol", None)


@pytest.mark.hostile("half-open")
async def test_a_handshake_that_never_ends_is_cut_off_at_the_cap() -> None:
    dialled, accepted = await tcp_pair()
    context = replace(SERVER, handshake_s=0.05)
    with dialled:
        dialled.send(b"\x16\x03\x01\x02\x00\x01")
        with pytest.raises(LinkRefused, match=r"0\.05 s"):
            await accept_link(trio.socket.from_stdlib_socket(accepted), context)
        assert dialled.recv(1) == b""


# --- inside TLS ----------------------------------------------------------------------------------


def says(data: bytes) -> Act:
    async def act(stream: TlsStream) -> None:
        await stream.write(data)

    return act


def frame(length: int) -> bytes:
    return length.to_bytes(4, "big") + bytes(2) + b"\x01\x00" + length.to_bytes(4, "big") + bytes(4)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (frame(0), "header"),
        (frame(0xFFFFFFFF), "header"),
        (frame(5000) + bytes(5000), "header"),
        (os.urandom(4) + b"\xff" * 60, "header"),
        (cut(48, 0, b"confidential")[0], "HELLO was due"),
        (cut(Kind.HELLO, 0, b"\x91" * 4000)[0], "malformed"),
        (cut(Kind.HELLO, 0, b"\xdd\xff\xff\xff\xff")[0], "malformed"),
        (cut(Kind.HELLO, 0, pack([b"claim", bytes(64)]))[0], "malformed"),
    ],
    ids=["0", "0xFFFFFFFF", "over 4 KiB", "noise", "payload", "deep", "array bomb", "no claim"],
)
async def test_an_admissible_leaf_and_then_nonsense_is_refused(data: bytes, why: str) -> None:
    refused = await outcome_of(over_tls(make_context(1).leaf.client, says(data)))
    assert refused.code == "protocol" and why in refused.detail
    assert refused.peer is None


async def test_whoever_leaves_after_tls_is_refused() -> None:
    async def leave(stream: TlsStream) -> None:
        stream.close()

    refused = await outcome_of(over_tls(make_context(1).leaf.client, leave))
    assert refused.code == "protocol" and "left" in refused.detail


@pytest.mark.hostile("early-payload")
async def test_a_payload_before_the_welcome_is_refused() -> None:
    context = make_context(1)

    async def eager(stream: TlsStream) -> None:
        server_leaf = read_leaf(stream._ssl.getpeercert(binary_form=True) or b"")
        channel = Channel(context.leaf.public, server_leaf.public, server_leaf.identity_key, 1)
        local = Local(context.identity, context.keys, (), ())
        machine = Handshake(Role.CLIENT, local, channel, judge=admit, highest=lambda key: 0)
        await stream.write(machine.start() + cut(48, 2, b"confidential")[0])

    refused = await outcome_of(over_tls(context.leaf.client, eager))
    assert refused.code == "protocol" and "before the handshake was over" in refused.detail


async def test_a_refused_peer_learns_nothing_of_the_server() -> None:
    """It gets one short frame, and its words hold no name, id or address."""
    async with open_door() as door, trio.open_nursery() as nursery:
        stranger = make_context(1)
        nursery.start_soon(door.accept, make_context(2, judge=turn_away))
        stream = TlsStream(
            (await trio_connect(door.address)), stranger.leaf.client, server_side=False
        )
        leaf = await stream.handshake(trio.StrictFIFOLock())
        channel = Channel(stranger.leaf.public, leaf.public, leaf.identity_key, 1)
        local = Local(stranger.identity, stranger.keys, stranger.mesh_keys, ())
        machine = Handshake(Role.CLIENT, local, channel, judge=admit, highest=lambda key: 0)
        await stream.write(machine.start())
        got = b""
        while data := await stream.read():
            got += data
        stream.close()
    _, server = make_keys(2)
    assert len(got) < 250
    for known in (server.stack_id, server.name.encode(), b"7702", server.instance):
        assert known not in got


async def trio_connect(address: str) -> socket.socket:
    host, port = address.split(":")
    stream = await trio.open_tcp_stream(host, int(port))
    return socket.socket(fileno=stream.socket.detach())


@pytest.mark.hostile("man-in-the-middle")
async def test_a_man_in_the_middle_with_an_admitted_identity_gets_no_link() -> None:
    """He is stack 3, admitted by both, and relays every byte between two TLS connections."""
    middle = make_context(3)
    client_link: list[Link | LinkRefused] = []
    server_link: list[Link | LinkRefused] = []

    async def relay(one: TlsStream, other: TlsStream) -> None:
        try:
            while data := await one.read():
                await other.write(data)
        except (OSError, trio.ClosedResourceError):
            pass
        finally:
            one.close()
            other.close()

    async def dial(address: str) -> None:
        try:
            client_link.append(await open_link(address, make_context(1), expect=None))
        except LinkRefused as refused:
            client_link.append(refused)

    async def serve(door: Any) -> None:
        server_link.append(await door.accept(make_context(2)))

    async with open_door() as front, open_door() as back, trio.open_nursery() as nursery:
        nursery.start_soon(dial, front.address)
        nursery.start_soon(serve, back)
        to_client = TlsStream(await front.accept_raw(), middle.leaf.server, server_side=True)
        await to_client.handshake(trio.StrictFIFOLock())
        to_server = TlsStream(
            await trio_connect(back.address), middle.leaf.client, server_side=False
        )
        await to_server.handshake(trio.StrictFIFOLock())
        nursery.start_soon(relay, to_client, to_server)
        nursery.start_soon(relay, to_server, to_client)
    (client,), (server,) = client_link, server_link
    assert isinstance(client, LinkRefused) and isinstance(server, LinkRefused)
    assert (server.code, server.peer) == ("protocol", None)
    assert (client.code, client.by_peer) == ("protocol", True)


@pytest.mark.hostile("another-answers")
async def test_a_server_that_answers_with_another_stacks_welcome_is_refused() -> None:
    """Stack 3 dials stack 2 for its WELCOME and shows it to stack 1 as its own."""
    ends = await meet(make_context(1), replace(make_context(3), identity=make_keys(2)[1]))
    client, server = ends
    assert isinstance(client, LinkRefused) and isinstance(server, LinkRefused)
    assert (client.code, client.peer) == ("protocol", None)
