"""Mutual TLS 1.3 with the standard library, between stacks that no authority knows.

Python's `ssl` has no verify callback, and `CERT_OPTIONAL` refuses unknown certificates. So every
node issues its own leaf under a "null CA" whose private key anybody can derive: the CA grants
nothing, it makes both sides demand a certificate and accept any of this mesh's making. Who the
peer is says an extension in its leaf, signed by its operational key (this module), and the signed
HELLO over both leaf keys (`wire/handshake`). The stream here is a non-blocking `SSLSocket`, which
carries twice the frames of `trio.SSLStream` for the same CPU (docs/design/transport.md).
"""

from __future__ import annotations

import datetime
import hashlib
import os
import secrets
import socket
import ssl
import struct
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache

import trio
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

from tektonmesh.core.frozen import frozen
from tektonmesh.errors import RemoteError
from tektonmesh.wire import limits
from tektonmesh.wire.keys import Keys, verify

ALPN = "tektonmesh/1"
IDENTITY_OID = x509.ObjectIdentifier("2.25.97631383765911410937511434783911498229.1")
"""Under a UUID arc (X.667), which needs no registration: identity(32) | issued_at(8) | sig(64)."""

_STATEMENT = struct.Struct(">32sQ64s")
_LEAF_CONTEXT = b"tektonmesh/leaf/1\0"
_NULL_CA_SECRET = b"tektonmesh/null-ca/1: this key is public and grants nothing"
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_EARLIEST = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_LATEST = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
_CA_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tektonmesh null CA")])
_LEAF_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tektonmesh leaf")])


@frozen
class PeerLeaf:
    """What a peer's leaf says: its P-256 key (DER), and which operational key claims it."""

    public: bytes
    identity_key: bytes
    issued_at: int


@frozen
class Leaf:
    """This node's certificate for one start, ready for both ends of a connection."""

    public: bytes
    der: bytes
    issued_at: int
    server: ssl.SSLContext
    client: ssl.SSLContext


def issue_leaf(keys: Keys, issued_at: int) -> Leaf:
    """A fresh leaf, signed for by the operational key. `issued_at` (ms) is higher than in every
    leaf before, or peers refuse it as stolen from an earlier start."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    certificate = _certificate(key.public_key(), _statement(keys, issued_at, public))
    pem = certificate.public_bytes(Encoding.PEM) + key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    with _as_path(pem) as path:
        server = _context(ssl.PROTOCOL_TLS_SERVER, path)
        client = _context(ssl.PROTOCOL_TLS_CLIENT, path)
    server.num_tickets = 0
    return Leaf(public, certificate.public_bytes(Encoding.DER), issued_at, server, client)


def _statement(keys: Keys, issued_at: int, public: bytes) -> bytes:
    sig = keys.sign(_LEAF_CONTEXT, issued_at.to_bytes(8, "big") + public)
    return _STATEMENT.pack(keys.op_public, issued_at, sig)


def _certificate(public: ec.EllipticCurvePublicKey, statement: bytes) -> x509.Certificate:
    """A certificate under the null CA that carries an identity statement."""
    extension = x509.UnrecognizedExtension(IDENTITY_OID, statement)
    builder = _builder(_LEAF_NAME, public).add_extension(extension, critical=False)
    return builder.sign(null_ca_key(), hashes.SHA256())


@cache
def null_ca_key() -> ec.EllipticCurvePrivateKey:
    """The same key for everyone, derived from a constant."""
    secret = int.from_bytes(hashlib.sha256(_NULL_CA_SECRET).digest(), "big") % _P256_ORDER
    return ec.derive_private_key(secret, ec.SECP256R1())


@cache
def _null_ca() -> x509.Certificate:
    key = null_ca_key()
    builder = _builder(_CA_NAME, key.public_key())
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return builder.sign(key, hashes.SHA256())


def _builder(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    """Valid from 1970 to 9999: whether a link works must not depend on anybody's clock."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(_CA_NAME)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_EARLIEST)
        .not_valid_after(_LATEST)
    )


def _context(protocol: int, leaf_path: str) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.options |= ssl.OP_NO_TICKET
    context.set_alpn_protocols([ALPN])
    context.load_verify_locations(cadata=_null_ca().public_bytes(Encoding.DER))
    context.load_cert_chain(leaf_path)
    return context


@contextmanager
def _as_path(secret: bytes) -> Iterator[str]:
    """A path under which OpenSSL can read `secret` for a moment: in memory where the system has
    such files, else in a folder that only we can enter."""
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("tektonmesh-leaf", os.MFD_CLOEXEC)
        try:
            os.write(handle, secret)
            yield f"/proc/self/fd/{handle}"
        finally:
            os.close(handle)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, secrets.token_hex(8))
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(secret)
        yield path


_NOT_READ = (
    *(ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion),
    *(x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType),
)
"""All that `cryptography` raises for a certificate it cannot read; some of it is no ValueError."""


def read_leaf(der: bytes) -> PeerLeaf:
    """What a peer's certificate says of it. Raises RemoteError unless it is a small P-256 leaf
    whose own key is vouched for by the identity key it names."""
    if len(der) > limits.LEAF_SIZE_MAX:
        raise RemoteError(f"The peer's certificate has {len(der)} bytes.")
    try:
        with warnings.catch_warnings():
            # What is odd in a stranger's certificate (a negative serial number) is not our user's
            # affair, and must not be written to standard error.
            warnings.simplefilter("ignore")
            certificate = x509.load_der_x509_certificate(der)
        key = certificate.public_key()
        found = certificate.extensions.get_extension_for_oid(IDENTITY_OID).value
    except _NOT_READ as error:
        raise RemoteError(f"The peer's certificate is not one of ours: {error}.") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise RemoteError("The key in the peer's certificate is not on P-256.")
    assert isinstance(found, x509.UnrecognizedExtension)
    if len(found.value) != _STATEMENT.size:
        raise RemoteError("The identity statement in the peer's certificate is cut.")
    public = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    identity_key, issued_at, sig = _STATEMENT.unpack(found.value)
    if not verify(identity_key, _LEAF_CONTEXT, found.value[32:40] + public, sig):
        raise RemoteError("The identity statement does not belong to the peer's certificate.")
    return PeerLeaf(public, identity_key, issued_at)


_LOOK_EVERY = 4
"""Looking for a second record in vain costs a system call before the first is dealt with. So after
a lone one this is done every fourth time only, until it finds something (a guess)."""

# --- the stream ----------------------------------------------------------------------------------


class TlsStream:
    """One TLS connection on a non-blocking socket. One task reads, one writes."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, *, server_side: bool) -> None:
        """Takes the socket over; the caller no longer closes it."""
        sock.setblocking(False)
        _prefer_priorities(sock)
        self._ssl = context.wrap_socket(
            sock, server_side=server_side, do_handshake_on_connect=False, suppress_ragged_eofs=True
        )
        self._fd = self._ssl.fileno()
        # Whether the socket is taken to be empty, so that the next read waits at once; and how many
        # reads in a row brought a single record.
        self._dry = False
        self._lone = 1

    async def handshake(self, turns: trio.StrictFIFOLock) -> PeerLeaf:
        """Finish the TLS handshake, one step in each of our `turns`: a step can take a millisecond,
        and sixty strangers at once shall not hold up everybody else for sixty of them. Raises
        RemoteError when the other end does not speak our TLS, has no certificate that we accept,
        or leaves."""
        try:
            await self._shake_hands(turns)
        except (ssl.SSLError, OSError) as error:
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None)
            raise RemoteError(f"The TLS handshake failed ({reason or error}).") from None
        if self._ssl.selected_alpn_protocol() != ALPN:
            raise RemoteError("The other end does not speak our protocol.")
        der = self._ssl.getpeercert(binary_form=True)
        assert der is not None, "CERT_REQUIRED lets nobody through without one"
        return read_leaf(der)

    async def _shake_hands(self, turns: trio.StrictFIFOLock) -> None:
        wait = trio.lowlevel.wait_readable
        while True:
            async with turns:
                try:
                    self._ssl.do_handshake()
                    return
                except ssl.SSLWantReadError:
                    wait = trio.lowlevel.wait_readable
                except ssl.SSLWantWriteError:
                    wait = trio.lowlevel.wait_writable
            await wait(self._fd)

    async def read(self) -> bytes:
        """All that has come, up to 64 KiB and a record; empty when the other end is gone. Raises
        OSError (`ssl.SSLError` is one) on a broken connection, trio.ClosedResourceError after
        `close`."""
        if self._dry:
            await trio.lowlevel.wait_readable(self._fd)
        else:
            await trio.lowlevel.checkpoint()
        while True:
            data = self._read_now()
            if data is not None:
                return data
            await trio.lowlevel.wait_readable(self._fd)

    def _read_now(self) -> bytes | None:
        """None when nothing is there yet."""
        chunks: list[bytes] = []
        size = 0
        look_on = self._lone % _LOOK_EVERY == 0
        self._dry = False
        while size < limits.READ_BATCH_BYTES and not self._dry:
            try:
                chunk = self._ssl.recv(limits.FRAME_SIZE_MAX)
            except ssl.SSLWantReadError:
                self._dry = True
                break
            except OSError:
                if not chunks:
                    raise
                # What came before the end counts; the next read meets the end again.
                break
            if not chunk:
                break
            chunks.append(chunk)
            size += len(chunk)
            self._dry = len(chunk) < limits.FRAME_SIZE_MAX and not look_on
        if not chunks:
            return None if self._dry else b""
        self._lone = self._lone + 1 if len(chunks) == 1 else 0
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def write_now(self, data: bytes) -> bool:
        """Whether the kernel took it all without waiting. If not, the same bytes go to `write`
        next, and nothing before them: OpenSSL has begun a record with them."""
        try:
            self._ssl.send(data)
        except OSError:
            # A connection that is broken is found so again by `write`, where it can be told.
            return False
        return True

    async def write(self, data: bytes) -> None:
        """Returns once the kernel has it all. Raises as `read`."""
        while True:
            try:
                self._ssl.send(data)
                return
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(self._fd)

    def close(self) -> None:
        """Close at once; tasks that wait in `read` or `write` get trio.ClosedResourceError."""
        if self._ssl.fileno() != -1:
            trio.lowlevel.notify_closing(self._fd)
            self._ssl.close()


def _prefer_priorities(sock: socket.socket) -> None:
    """Small frames leave at once, and the kernel holds little that control frames would have to
    wait behind."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Not on every system; there the kernel's buffer is simply longer.
    lowat = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if lowat is not None:
        sock.setsockopt(socket.IPPROTO_TCP, lowat, limits.NOTSENT_LOWAT_BYTES)


# --- memory --------------------------------------------------------------------------------------


class SeenLeaves:
    """The highest `issued_at` per operational key: a stolen leaf of an earlier start is dead.

    Only admitted identities get in, so strangers cannot fill it. `save(key, issued_at)` is called
    for what should outlive the process (table `leaf`).
    """

    def __init__(
        self,
        known: Mapping[bytes, int] | None = None,
        save: Callable[[bytes, int], None] = lambda _key, _issued_at: None,
    ) -> None:
        self._known = dict(known or {})
        self._save = save

    def highest(self, identity_key: bytes) -> int:
        """0 when none was seen."""
        return self._known.get(identity_key, 0)

    def note(self, identity_key: bytes, issued_at: int) -> None:
        if issued_at > self.highest(identity_key):
            self._known[identity_key] = issued_at
            self._save(identity_key, issued_at)
