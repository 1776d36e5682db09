"""The end-to-end seal: who can open, and what is noticed."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from nacl.bindings import crypto_scalarmult_base

from tektonmesh.core.types import SealKey
from tektonmesh.errors import LocalError, RemoteError
from tektonmesh.wire import limits, seal
from tektonmesh.wire.seal import SEAL_OVERHEAD, Sealer, agree, hkdf_sha256
from tests.support import make_keys, seal_key_of

ALICE, _ = make_keys(1)
BOB, _ = make_keys(2)
EVE, _ = make_keys(3)
TO_BOB = seal_key_of(BOB)


def opened(sealed: bytes, *, aad: bytes = b"aad", sender: bytes = ALICE.box_public) -> bytes:
    fresh, _ = make_keys(2)
    return fresh.open(sender, TO_BOB.key_id, aad, sealed)


@pytest.mark.parametrize("size", [0, 1, 1024, 262_144])
def test_the_recipient_opens_what_was_sealed_to_it(size: int) -> None:
    body = bytes(size)
    sealed = ALICE.seal(TO_BOB, b"aad", body)
    assert len(sealed) == size + SEAL_OVERHEAD
    assert opened(sealed) == body


def test_two_seals_of_one_body_look_different() -> None:
    one, two = (ALICE.seal(TO_BOB, b"", b"body") for _ in range(2))
    assert one != two


@pytest.mark.parametrize("at", [0, 1, 32, 33, 44, 45, 60, -1])
@pytest.mark.hostile("bit-flip")
def test_a_changed_bit_anywhere_is_noticed(at: int) -> None:
    sealed = bytearray(ALICE.seal(TO_BOB, b"aad", b"body"))
    sealed[at] ^= 1
    with pytest.raises(RemoteError):
        opened(bytes(sealed))


def test_a_body_cannot_be_moved_under_another_header() -> None:
    sealed = ALICE.seal(TO_BOB, b"to: numa", b"body")
    with pytest.raises(RemoteError):
        opened(sealed, aad=b"to: athena")


def test_a_body_cannot_be_passed_off_as_another_senders() -> None:
    sealed = ALICE.seal(TO_BOB, b"aad", b"body")
    with pytest.raises(RemoteError):
        opened(sealed, sender=EVE.box_public)


def test_a_body_cannot_be_opened_with_another_prekey_or_by_another_stack() -> None:
    sealed = ALICE.seal(TO_BOB, b"aad", b"body")
    fresh, _ = make_keys(2)
    other = fresh.add_prekey(b"o" * 32)
    with pytest.raises(RemoteError):
        fresh.open(ALICE.box_public, other, b"aad", sealed)
    with pytest.raises(RemoteError):
        EVE.open(ALICE.box_public, EVE.prekey()[0], b"aad", sealed)


def test_the_recipients_static_key_is_part_of_the_seal() -> None:
    lied = SealKey(EVE.box_public, TO_BOB.key_id, TO_BOB.prekey)
    with pytest.raises(RemoteError):
        opened(ALICE.seal(lied, b"aad", b"body"))


def test_an_unknown_prekey_is_told_apart_from_a_forgery() -> None:
    with pytest.raises(LocalError) as caught:
        BOB.open(ALICE.box_public, b"unknown!", b"", ALICE.seal(TO_BOB, b"", b"body"))
    assert caught.value.code.name == "not_found"


@pytest.mark.parametrize("sealed", [b"", b"\x01", b"\x01" + bytes(59), b"\x02" + bytes(80)])
def test_what_is_cut_or_of_another_version_is_refused(sealed: bytes) -> None:
    with pytest.raises(RemoteError, match="cut or of an unknown version"):
        opened(sealed)


def test_keys_of_small_order_are_refused_on_both_sides() -> None:
    with pytest.raises(RemoteError, match="small order"):
        ALICE.seal(SealKey(bytes(32), bytes(8), bytes(32)), b"", b"body")
    with pytest.raises(RemoteError, match="small order"):
        opened(b"\x01" + bytes(32) + bytes(12) + bytes(16))


def counting_agreements(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    made: list[bytes] = []

    def counted(private: bytes, public: bytes) -> bytes:
        made.append(public)
        return agree(private, public)

    monkeypatch.setattr(seal, "agree", counted)
    return made


def test_x25519_is_paid_once_per_recipient_prekey_and_sender_hour(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sender, _ = make_keys(4)
    receiver, _ = make_keys(2)
    made = counting_agreements(monkeypatch)
    for _ in range(3):
        sealed = sender.seal(TO_BOB, b"", b"body")
        receiver.open(sender.box_public, TO_BOB.key_id, b"", sealed)
    assert len(made) == 4
    before = sealed
    sender.renew_ephemeral()
    sealed = sender.seal(TO_BOB, b"", b"body")
    assert sealed[1:33] != before[1:33]
    assert receiver.open(sender.box_public, TO_BOB.key_id, b"", sealed) == b"body"
    assert len(made) == 8


def test_a_forgery_takes_no_place_in_the_receivers_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    receiver, _ = make_keys(2)
    forged = b"\x01" + crypto_scalarmult_base(b"e" * 32) + bytes(12 + 40)
    made = counting_agreements(monkeypatch)
    for _ in range(2):
        with pytest.raises(RemoteError):
            receiver.open(ALICE.box_public, TO_BOB.key_id, b"", forged)
    assert len(made) == 4


def test_the_caches_keep_what_was_used_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SENDER_KEYS_MAX", 2)
    sender = Sealer(b"s" * 32, random.Random(1).randbytes)
    targets = [seal_key_of(make_keys(n)[0]) for n in (10, 11, 12)]
    made = counting_agreements(monkeypatch)

    def agreements(act: Callable[[], object]) -> int:
        before = len(made)
        act()
        return len(made) - before

    assert agreements(lambda: [sender.seal(to, b"", b"") for to in targets[:2]]) == 4
    assert agreements(lambda: sender.seal(targets[0], b"", b"")) == 0
    assert agreements(lambda: sender.seal(targets[2], b"", b"")) == 2
    assert agreements(lambda: sender.seal(targets[0], b"", b"")) == 0
    assert agreements(lambda: sender.seal(targets[1], b"", b"")) == 2


def test_the_derivation_is_hkdf_of_rfc_5869() -> None:
    """Test case 1 of the RFC's appendix, cut to the one block that is used here."""
    made = hkdf_sha256(b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA)))
    assert made.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"
