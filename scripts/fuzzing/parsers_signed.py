"""Parsers of what travels sealed or signed: key documents, heads, vouchers, proofs, envelopes,
sealed bodies, signatures, and the certificate that TLS hands over."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import cache, partial
from random import Random

from scripts.fuzzing import material
from scripts.fuzzing.material import CLIENT, CODEC, SERVER
from scripts.fuzzing.parser import Check, Parse, Parser
from tektonmesh.core import envelope as env
from tektonmesh.core.envelope import Envelope, Header, Kind
from tektonmesh.core.head import HEAD_SIZE_MAX, Head
from tektonmesh.core.keydoc import (
    DOC_SIZE_MAX,
    KEY_EPOCH_MAX,
    PROOF_SIZE_MAX,
    KeyDoc,
    read_proof,
    read_voucher,
    write_proof,
)
from tektonmesh.core.types import Status
from tektonmesh.errors import LocalError, RemoteError
from tektonmesh.net.tls import issue_leaf, read_leaf
from tektonmesh.wire.codec import pack, unpack
from tektonmesh.wire.keys import verify

# --- documents -----------------------------------------------------------------------------------


def check_keydoc(data: bytes) -> bool:
    """A key document that is read is written again as the same bytes."""
    try:
        document = KeyDoc.decode(CODEC, data)
    except RemoteError:
        return False
    assert document.encode(CODEC) == data, "a key document is not what its fields say"
    assert type(document.key_epoch) is int and 0 <= document.key_epoch <= KEY_EPOCH_MAX
    return True


def check_head(data: bytes) -> bool:
    """A head that is read is written again as the same bytes."""
    try:
        head = Head.decode(CODEC, data)
    except RemoteError:
        return False
    assert head.encode(CODEC) == data, "a head is not what its fields say"
    numbers = (*head.version, head.content_ver, head.hlc, head.lease_s, head.caps, head.minor)
    assert all(type(number) is int and 0 <= number < 2**63 for number in numbers)
    return True


def check_voucher(data: bytes) -> bool:
    """A voucher's body and signature pack to the voucher, and its fields to its body, but for keys
    that a later version may have added."""
    try:
        signed = read_voucher(CODEC, data)
    except RemoteError:
        return False
    one = signed.voucher
    assert pack([signed.body, signed.sig]) == data
    fields = {0: one.mesh_id, 1: one.stack_id, 2: one.role, 3: one.not_after_ms, 4: one.issuer}
    known = {key: value for key, value in unpack(signed.body).items() if key < 5}
    assert pack(known) == pack(fields), "a voucher is not what its fields say"
    return True


def check_proof(data: bytes) -> bool:
    """A proof with its own vouchers put into it is the same proof."""
    try:
        mac, vouchers = read_proof(CODEC, data)
    except RemoteError:
        return False
    assert isinstance(mac, bytes) and all(isinstance(one, bytes) for one in vouchers)
    if vouchers:
        assert write_proof(CODEC, data, vouchers) == data, "a proof is not what its parts say"
    return True


def _keydoc_seeds() -> list[bytes]:
    documents = [material.host(number).keydoc.doc for number in (CLIENT, SERVER)]
    return [*documents, pack(unpack(documents[0]) | {7: "later", 300: [1]})]


def _head_seeds() -> list[bytes]:
    heads = [
        material.head(),
        material.head(status=Status.LEFT, extra={15: "later", 16: {1: b""}}),
        material.head(roots={}, instance=b"i", lease_s=0, status=Status.DRAINING),
        material.head(roots=dict.fromkeys(range(32), bytes(32)), caps=2**63 - 1),
    ]
    return [head.encode(CODEC) for head in heads]


def _voucher_seeds() -> list[bytes]:
    return [material.voucher(role) for role in ("member", "observer", "relay")]


def _proof_seeds() -> list[bytes]:
    return [b"", *(material.proof(count) for count in range(5))]


# --- envelopes -----------------------------------------------------------------------------------


def check_envelope(data: bytes) -> bool:
    """An envelope is packed again to the same bytes, a relay's copy of it can be read, and its
    lists are as long as they say."""
    try:
        mutable = env.read_mutable(data)
    except RemoteError:
        return False
    read = env.parse(data)
    assert read.pack(mutable.hops_left, mutable.tries_left) == data
    assert read.header.pack()[1:] == read.head[1:], "a header is not what its fields say"
    assert len(env.read_trace(read.trace)) == mutable.n_trace
    assert len(env.shorts_of(read.avoid)) == mutable.n_avoid
    assert len(env.read_reports(read.body)) == len(read.body) // env.REPORT_SIZE
    if mutable.hops_left and mutable.n_trace < env.ENTRIES_MAX:
        _check_passed_on(data, mutable)
    return True


def _check_passed_on(data: bytes, mutable: env.Mutable) -> None:
    entry = env.trace_entry(b"shortid1", 70_000)
    passed = env.pass_on(
        data, mutable, tries_left=3, age_ms=mutable.age_ms + 1, entry=entry, avoid=bytes(80 * 8)
    )
    after, before = env.parse(passed), env.parse(data)
    assert after.header == before.header and after.body == before.body
    assert after.trace == before.trace + entry
    assert after.avoid.endswith(before.avoid) and len(after.avoid) <= env.ENTRIES_MAX * 8
    assert len(passed) - len(data) <= env.GROWTH_MAX


def _header() -> Header:
    source, destination = material.host(CLIENT).stack_id, material.host(SERVER).stack_id
    return Header(Kind.REQUEST, bytes(16), source, destination, 1, 60_000, 5, b"keyid123")


def envelope_seeds() -> list[bytes]:
    """Envelopes with and without a trace and an avoid list."""
    header = _header()
    head = header.pack()
    trace = env.trace_entry(b"shortid0", 12) * 3
    return [
        Envelope(header, head, b"a sealed body").pack(16, 32),
        Envelope(header, head, env.report(5, 0.1) * 3, trace, bytes(16), 99).pack(13, 30),
        Envelope(header, head, b"", trace[:10] * 63, b"", 2**32 - 1).pack(1, 1),
        Envelope(header, head, b"b", trace[:10] * 64, bytes(8 * 64)).pack(0, 0),
    ]


def _heavy_envelopes() -> list[bytes]:
    return [(envelope_seeds()[3] + bytes(env.SIZE_MAX))[: env.SIZE_MAX], bytes(env.SIZE_MAX)]


# --- sealed bodies and signatures ----------------------------------------------------------------

_AAD = b"the clear header"
_CONTEXT = b"tektonmesh/fuzz/1\0"


def check_sealed(data: bytes) -> bool:
    """Key id and sealed body: only what was really sealed is opened."""
    try:
        plain = _opened(data)
    except (RemoteError, LocalError):
        return False
    assert _sealed().get(data) == plain, "what nobody sealed was opened"
    return True


def check_signature(data: bytes) -> bool:
    """Public key, signature, text: only what was really signed is verified, whatever the sizes."""
    if not _verified(data):
        return False
    assert data in _signed(), "what nobody signed was verified"
    return True


def _opened(data: bytes) -> bytes:
    sender = material.keys_of(CLIENT).box_public
    return material.keys_of(SERVER).open(sender, data[:8], _AAD, data[8:])


def _verified(data: bytes) -> bool:
    return verify(data[:32], _CONTEXT, data[96:], data[32:96])


def sealed_body(body: bytes) -> bytes:
    """Key id and sealed body, by a fresh sealer, so that it is the same every time."""
    keys, to = material.host(CLIENT).keys(Random(len(body))), material.seal_key()
    return to.key_id + keys.seal(to, _AAD, body)


@cache
def _sealed() -> dict[bytes, bytes]:
    return {sealed_body(body): body for body in (b"", b"a body", bytes(200))}


@cache
def _signed() -> tuple[bytes, ...]:
    keys = material.keys_of(CLIENT)
    texts = (b"", b"a text", bytes(100))
    return tuple(keys.op_public + keys.sign(_CONTEXT, text) + text for text in texts)


# --- certificates --------------------------------------------------------------------------------

_ISSUED = struct.Struct(">Q")


def check_leaf(data: bytes) -> bool:
    """A certificate that is believed was issued by the key it names."""
    try:
        leaf = read_leaf(data)
    except RemoteError:
        return False
    assert leaf.identity_key == material.keys_of(CLIENT).op_public and leaf.public in data
    assert _ISSUED.pack(leaf.issued_at) in data
    return True


@cache
def _leaf() -> bytes:
    """The key of a leaf is fresh in every process, so this seed alone is never the same."""
    return issue_leaf(material.keys_of(CLIENT), material.WHEN_MS).der


def _heavy(size: int) -> list[bytes]:
    return [b"\xdd\x00\x00\x03\xe8" * (size // 5), b"\x91" * size, b"\x80" * size, bytes(size)]


def _packed(
    name: str, check: Check, parse: Parse, seeds: Callable[[], list[bytes]], size_max: int
) -> Parser:
    """A parser of packed documents of at most `size_max` bytes."""
    return Parser(name, check, parse, seeds, partial(_heavy, size_max), packed=True)


def parsers() -> Iterator[Parser]:
    """Those of this module."""
    keydoc, head = partial(KeyDoc.decode, CODEC), partial(Head.decode, CODEC)
    voucher, proof = partial(read_voucher, CODEC), partial(read_proof, CODEC)
    yield _packed("keydoc", check_keydoc, keydoc, _keydoc_seeds, DOC_SIZE_MAX)
    yield _packed("head", check_head, head, _head_seeds, HEAD_SIZE_MAX)
    yield _packed("voucher", check_voucher, voucher, _voucher_seeds, 4096)
    yield _packed("proof", check_proof, proof, _proof_seeds, PROOF_SIZE_MAX)
    yield Parser("envelope", check_envelope, env.parse, envelope_seeds, _heavy_envelopes, share=2)
    yield Parser("sealed", check_sealed, _opened, lambda: list(_sealed()), share=0.2)
    yield Parser("signature", check_signature, _verified, lambda: list(_signed()), share=0.5)
    yield Parser("leaf", check_leaf, read_leaf, lambda: [_leaf()], share=0.5)
