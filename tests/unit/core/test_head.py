from __future__ import annotations

from typing import Any

import pytest

from tektonmesh.core.head import HEAD_CONTEXT, Head, Heads, hash_head, signed_by
from tektonmesh.core.types import ContentVersion, SignedHead, Status, Version
from tektonmesh.errors import RemoteError
from tektonmesh.wire.codec import Codec, pack
from tests.support import Author

CODEC = Codec()
AUTHOR = Author()
HEAD = AUTHOR.head(ver=7, content_ver=4)


def fields(**changes: Any) -> bytes:
    """The packed head with some fields replaced; None removes one."""
    shown = CODEC.unpack(HEAD.encode(CODEC)) | {int(k[1:]): v for k, v in changes.items()}
    return pack({key: value for key, value in shown.items() if value is not None})


def test_a_head_survives_packing() -> None:
    assert Head.decode(CODEC, HEAD.encode(CODEC)) == HEAD


def test_the_versions_of_a_head() -> None:
    assert HEAD.version == Version(0, 5, 7)
    assert HEAD.content_version == ContentVersion(0, 5, 4)


def test_keys_of_later_versions_are_carried() -> None:
    read = Head.decode(CODEC, fields(_40=[1, 2], _15="x"))
    assert read.extra == {15: "x", 40: [1, 2]}
    assert read.encode(CODEC) == fields(_40=[1, 2], _15="x")


def test_a_signature_covers_every_byte_of_the_head() -> None:
    signed = HEAD.sign(CODEC, AUTHOR.keys)
    assert signed_by(AUTHOR.keys, AUTHOR.keys.op_public, signed)
    assert not signed_by(AUTHOR.keys, AUTHOR.keys.root_public, signed)
    assert not signed_by(
        AUTHOR.keys, AUTHOR.keys.op_public, SignedHead(signed.head[:-1] + b"\0", signed.sig)
    )
    assert AUTHOR.keys.verify(AUTHOR.keys.op_public, HEAD_CONTEXT, signed.head, signed.sig)


def test_heads_of_different_bytes_have_different_hashes() -> None:
    assert hash_head(fields()) != hash_head(fields(_7=1))


def test_a_head_that_leaves_carries_the_longest_lease() -> None:
    with pytest.raises(RemoteError, match="lease"):
        Head.decode(CODEC, fields(_9=2, _8=899))
    assert Head.decode(CODEC, fields(_9=2, _8=900)).status is Status.LEFT


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        pack("head"),
        pack({}),
        fields(_0=2),
        fields(_0=True),
        fields(_0=1.0),
        fields(_1=bytes(7)),
        fields(_2=bytes(31)),
        fields(_2=None),
        fields(_3=-1),
        fields(_4=2**48),
        fields(_5=2**63),
        fields(_6="1"),
        fields(_7=True),
        fields(_8=2**40),
        fields(_9=3),
        fields(_10=b""),
        fields(_10=bytes(33)),
        fields(_10="text"),
        fields(_11=[]),
        fields(_11={"0": bytes(32)}),
        fields(_11={0: bytes(31)}),
        fields(_11={256: bytes(32)}),
        fields(_11={n: bytes(32) for n in range(33)}),
        fields(_12=None),
        fields(_14=bytes(31)),
        fields(_99=bytes(2100)),
    ],
)
def test_a_malformed_head_is_refused(packed: bytes) -> None:
    with pytest.raises(RemoteError):
        Head.decode(CODEC, packed)


def test_a_head_is_decoded_once_for_all_who_share_the_memory() -> None:
    heads = Heads()
    first = heads.read(CODEC, fields())
    assert first == Head.decode(CODEC, fields())
    assert heads.read(CODEC, fields()) is first
    assert heads.read(CODEC, fields(_7=1)) != first
    with pytest.raises(RemoteError):
        heads.read(CODEC, fields(_0=2))


def test_the_memory_of_decoded_heads_is_bounded() -> None:
    heads = Heads(2)
    packed = [fields(_7=n) for n in range(3)]
    first = heads.read(CODEC, packed[0])
    heads.read(CODEC, packed[1])
    assert heads.read(CODEC, packed[0]) is first
    heads.read(CODEC, packed[2])
    assert heads.read(CODEC, packed[0]) is not first
