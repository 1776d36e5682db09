"""Canonical msgpack, and the number and packed form of every message between linked nodes.

One value has one encoding: whatever `pack` would not have written, `unpack` refuses, so a hash or
signature over packed bytes means the same to everyone. Plain msgpack accepts duplicate keys,
longer forms of numbers, NaN and extension types without a word. What a message means is left to
the core; frames are `wire/frames`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from math import isfinite
from typing import Any, NoReturn

import msgpack

from tektonmesh.core import messages as msg
from tektonmesh.core.types import (
    ID_SIZE,
    SHORT_ID_SIZE,
    ContentVersion,
    SignedHead,
    SignedKeyDoc,
    Version,
)
from tektonmesh.errors import LocalError, RemoteError
from tektonmesh.wire import limits

_AS_THEY_ARE = frozenset((str, bytes, bool, int, type(None)))
"""What the packer takes as it is, and refuses by itself where it is too large."""
_pack_plain = msgpack.Packer(use_bin_type=True, strict_types=True).pack


def pack(value: Any) -> bytes:
    """The one encoding of `value`: None, bool, int of 64 bits, finite float, str, bytes, list or
    tuple, or dict with str or int keys, sorted as packed. Raises LocalError on anything else."""
    try:
        packed: bytes = _pack_plain(_Ordering().order(value, limits.DEPTH_MAX))
    except OverflowError:
        raise LocalError("A number to pack has over 64 bits.") from None
    except UnicodeEncodeError as error:
        raise LocalError(f"This value cannot be packed: {error}.") from None
    return packed


class _Ordering:
    """Rebuilds a value with its maps in canonical order, and counts its nodes as `_Reader` does:
    each item of an array, each key and each value of a map, and not the value that holds them
    all. What one end counts differently could be written and never read."""

    def __init__(self) -> None:
        self._nodes_left = limits.NODES_MAX

    def order(self, value: Any, depth_left: int) -> Any:
        if type(value) in _AS_THEY_ARE:
            return value
        if isinstance(value, (dict, list, tuple)):
            if depth_left == 0:
                raise LocalError(f"A value to pack is nested over {limits.DEPTH_MAX} deep.")
            if isinstance(value, dict):
                return self._order_map(value, depth_left)
            self._count(len(value))
            if _AS_THEY_ARE.issuperset(map(type, value)):
                return list(value)
            return [self.order(item, depth_left - 1) for item in value]
        return _plain_scalar(value)

    def _count(self, nodes: int) -> None:
        self._nodes_left -= nodes
        if self._nodes_left < 0:
            raise LocalError(f"A value to pack has over {limits.NODES_MAX} parts.")

    def _order_map(self, value: dict[Any, Any], depth_left: int) -> dict[Any, Any]:
        self._count(2 * len(value))
        if len(value) <= _SMALL_MAP and {*map(type, value)} == _TEXT_ONLY:
            keys = _in_order(tuple(value))
        else:
            value = {_plain_key(key): item for key, item in value.items()}
            keys = tuple(sorted(value, key=_pack_plain))
        ordered = {}
        for key in keys:
            item = value[key]
            as_it_is = type(item) in _AS_THEY_ARE
            ordered[key] = item if as_it_is else self.order(item, depth_left - 1)
        return ordered


_SMALL_MAP = 16
_TEXT_ONLY = {str}


@lru_cache(maxsize=256)
def _in_order(keys: tuple[str, ...]) -> tuple[str, ...]:
    """The keys of a small map in canonical order. A node writes the same few maps over and over;
    maps that others wrote are not ordered here, so nobody else decides what is remembered."""
    return tuple(sorted(keys, key=_pack_plain))


def _plain_key(key: Any) -> str | int:
    if type(key) is str:
        return key
    if isinstance(key, bool) or not isinstance(key, (str, int)):
        raise LocalError(f"A map key to pack is a {type(key).__name__}, not text or a number.")
    return str(key) if isinstance(key, str) else int(key)


def _plain_scalar(value: Any) -> Any:
    """Enumerations become the number or text they stand for; the packer is strict about types."""
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float) and isfinite(value):
        return float(value)
    raise LocalError(f"A {type(value).__name__} ({value!r:.40}) cannot be packed.")


def unpack(data: bytes, *, nodes_max: int = limits.NODES_MAX) -> Any:
    """The value of canonical bytes; arrays become lists. Raises RemoteError on anything else:
    malformed, not canonical, too deep, over `nodes_max` values, trailing bytes.

    The C parser reserves room for a whole array when it meets its header, and it nests to 1,024:
    20 KB of headers made it reserve and clear 160 MB, which took 0.1 s. So longer bytes are walked
    over first without making anything; what is whole has an item for all room that is reserved.
    """
    longest = min(len(data), nodes_max)
    reader = _Reader(nodes_max)
    try:
        if len(data) > _WALKED_FROM:
            _walk_over(data)
        value = msgpack.unpackb(
            data,
            strict_map_key=False,
            object_pairs_hook=reader.map,
            list_hook=reader.array,
            ext_hook=_refuse_extension,
            max_array_len=longest,
            max_map_len=longest,
        )
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise RemoteError(f"The msgpack is malformed: {type(error).__name__}.") from None
    _check_values((value,), limits.DEPTH_MAX + 1)
    if _pack_plain(value) != data:
        raise RemoteError("The msgpack is not in its canonical form.")
    return value


_WALKED_FROM = 1024
"""Bytes; shorter ones can reserve 3 MiB at most, and walking would cost a ping half its time."""


def _walk_over(data: bytes) -> None:
    """Raises as `msgpack.unpackb` does for what is cut short or nested over 1,024."""
    walker = msgpack.Unpacker(max_buffer_size=len(data))
    walker.feed(data)
    walker.skip()


class _Reader:
    """Counts nodes while they are made, so that a bomb ends early, and checks the maps."""

    def __init__(self, nodes_max: int) -> None:
        self._nodes_left = nodes_max

    def _count(self, nodes: int) -> None:
        self._nodes_left -= nodes
        if self._nodes_left < 0:
            raise RemoteError("The msgpack has too many parts.")

    def array(self, items: list[Any]) -> list[Any]:
        self._count(len(items))
        return items

    def map(self, pairs: list[tuple[Any, Any]]) -> dict[str | int, Any]:
        self._count(2 * len(pairs))
        last = b""
        for key, _ in pairs:
            if type(key) is not str and type(key) is not int:
                raise RemoteError("A map key of the msgpack is neither text nor a number.")
            packed = _pack_plain(key)
            if packed <= last:
                raise RemoteError("The keys of a msgpack map are doubled or out of order.")
            last = packed
        return dict(pairs)


def _refuse_extension(code: int, _data: bytes) -> NoReturn:
    raise RemoteError(f"The msgpack holds an extension type ({code}).")


def _check_values(items: Any, depth_left: int) -> None:
    """Refuse what the packer would write back just as it came: depth, NaN and timestamps."""
    if depth_left == 0:
        raise RemoteError(f"The msgpack is nested over {limits.DEPTH_MAX} deep.")
    for item in items:
        kind = type(item)
        if kind is list:
            _check_values(item, depth_left - 1)
        elif kind is dict:
            _check_values(item.values(), depth_left - 1)
        elif kind is float and not isfinite(item):
            raise RemoteError("The msgpack holds a number that is not finite.")
        elif kind is msgpack.Timestamp:
            raise RemoteError("The msgpack holds an extension type (-1).")


class Codec:
    """`core.types.Codec`: the two functions above as the node is handed them."""

    def pack(self, value: Any) -> bytes:
        return pack(value)

    def pack_flat(self, value: list[Any]) -> bytes:
        packed: bytes = _pack_plain(value)
        return packed

    def unpack(self, data: bytes) -> Any:
        return unpack(data)


# --- messages ------------------------------------------------------------------------------------
# A number and the order of its fields are final once released. Arrays may grow at the end: what
# is beyond the fields known here is ignored.

KIND: dict[type, int] = {
    msg.Ping: 16,
    msg.Pong: 17,
    msg.Probe: 18,
    msg.ProbeAnswer: 19,
    msg.Bye: 20,
    msg.Vouch: 21,
    msg.Delta: 32,
    msg.Want: 33,
    msg.Vector: 34,
    msg.Buckets: 35,
    msg.Refuses: 36,
    msg.Ihave: 37,
    msg.Graft: 38,
    msg.Prune: 39,
    msg.WantOutlines: 40,
    msg.Outlines: 41,
    msg.RelayOutlines: 42,
    msg.Proof: 44,
    msg.Forward: 48,
    msg.HopAck: 49,
    msg.Settled: 50,
    msg.Released: 51,
    msg.Spread: 52,
    msg.LinkCredit: 53,
    msg.Fetch: 64,
    msg.Piece: 65,
    msg.Lacking: 66,
}
"""The number of each kind of message; 1 to 15 belong to the handshake."""

_FORWARD = KIND[msg.Forward]
_SIZES_MAX = {KIND[msg.Delta]: limits.DELTA_SIZE_MAX, KIND[msg.Proof]: limits.PROOF_SIZE_MAX}
_FORWARD_HEAD = struct.Struct(">Q")
_PRINTS_SIZE = 256 * 16


def size_max(kind: int) -> int:
    """The largest packed message of a kind, in bytes."""
    return _SIZES_MAX.get(kind, limits.MESSAGE_SIZE_MAX)


def encode_message(message: msg.Message) -> bytes:
    """The packed form of a message; its number is `KIND[type(message)]`."""
    if type(message) is msg.Forward:
        return _FORWARD_HEAD.pack(message.seq) + message.envelope
    return pack(_FIELDS_OF[type(message)](message))


def decode_message(kind: int, data: bytes) -> msg.Message | None:
    """The message, or None for a kind this version does not know. Raises RemoteError."""
    if kind == _FORWARD:
        if len(data) <= _FORWARD_HEAD.size:
            raise RemoteError("A forwarded envelope is empty.")
        return msg.Forward(_FORWARD_HEAD.unpack_from(data)[0], data[8:])
    known = _SHAPES.get(kind)
    if known is None:
        return None
    make, shape = known
    message: msg.Message = make(*_fields(unpack(data), shape))
    return message


Check = Callable[[Any], Any]


def _fields(value: Any, shape: tuple[Check, ...]) -> list[Any]:
    if type(value) is not list or len(value) < len(shape):
        raise RemoteError(f"An array of at least {len(shape)} fields was expected.")
    return [check(item) for check, item in zip(shape, value, strict=False)]


def _integer(low: int, high: int) -> Check:
    def check(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise RemoteError("A number was expected, or it is out of its range.")
        return value

    return check


def _octets(*sizes: int) -> Check:
    """Bytes of one of these sizes; of any size if none is named."""

    def check(value: Any) -> bytes:
        if type(value) is not bytes or (sizes and len(value) not in sizes):
            raise RemoteError("Bytes were expected, or they have the wrong length.")
        return value

    return check


def _text(value: Any) -> str:
    if type(value) is not str or len(value) > limits.TEXT_SIZE_MAX:
        raise RemoteError("Text was expected, or it is too long.")
    return value


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise RemoteError("True or false was expected.")
    return value


def _many(check: Check) -> Check:
    def check_all(value: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            raise RemoteError("An array was expected.")
        return tuple([check(item) for item in value])

    return check_all


def _optional(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


def _row(make: Callable[..., Any], *shape: Check) -> Check:
    return lambda value: make(*_fields(value, shape))


def _tuple_of(*fields: Any) -> tuple[Any, ...]:
    return fields


def _vector_entry(value: Any) -> msg.VectorEntry:
    """The proof is left out where there is none: it would cost ten thousand owners a byte each."""
    told = type(value) is list and len(value) >= len(_ENTRY)
    owner, key_epoch, epoch, ver, *rest = _fields(value, _ENTRY if told else _ENTRY[:-1])
    return msg.VectorEntry(owner, Version(key_epoch, epoch, ver), *rest)


def _bare_keydoc(doc: bytes, sig: bytes) -> SignedKeyDoc:
    return SignedKeyDoc(doc, sig, b"")


def _news_of(owner: bytes, key_epoch: int, epoch: int, ver: int, head_hash: bytes) -> msg.News:
    return msg.News(owner, Version(key_epoch, epoch, ver), head_hash)


_count = _integer(0, 2**63 - 1)
_number = _integer(-(2**63), 2**63 - 1)
_id = _octets(ID_SIZE)
_blob_size = _integer(0, msg.BLOB_SIZE_MAX)
_signature = _octets(64)
_content_version = _optional(_row(ContentVersion, _count, _count, _count))
_signed_head = _row(SignedHead, _octets(), _signature)
_keydoc = _optional(_row(SignedKeyDoc, _octets(), _signature, _octets()))
_news = _row(_news_of, _id, *[_count] * 3, _octets(8))
_DELTA = (
    _signed_head,
    _content_version,
    _many(_row(_tuple_of, _count, _text, _octets())),
    _many(_row(_tuple_of, _count, _text)),
    _keydoc,
)
_ENTRY = (_id, *[_count] * 5, _octets(8), _octets(8))

_SHAPES: dict[int, tuple[Callable[..., Any], tuple[Check, ...]]] = {
    KIND[make]: (make, shape)
    for make, shape in {
        msg.Ping: (_count, _number, _octets(0, 16)),
        msg.Pong: (_count, _number),
        msg.Probe: (_count, _id),
        msg.ProbeAnswer: (_count, _id, _number),
        msg.Bye: (_text, _text),
        msg.Vouch: (_octets(),),
        msg.Delta: _DELTA,
        msg.WantOutlines: (_many(_id),),
        msg.Outlines: (_many(_row(msg.Delta, *_DELTA)), _flag),
        msg.RelayOutlines: (_many(_row(msg.Delta, *_DELTA)), _flag),
        msg.Want: (_many(_row(_tuple_of, _id, _content_version)),),
        msg.Vector: (_many(_integer(0, 255)), _many(_vector_entry), _flag, _flag),
        msg.Buckets: (_octets(_PRINTS_SIZE),),
        msg.Refuses: (_many(_id),),
        msg.Ihave: (_many(_news),),
        msg.Graft: (_many(_row(_tuple_of, _id, _content_version)),),
        msg.Prune: (),
        msg.Proof: (
            _many(_signed_head),
            _many(_row(_bare_keydoc, _octets(), _signature)),
        ),
        msg.HopAck: (_count,),
        msg.LinkCredit: (_count,),
        msg.Settled: (_many(_count),),
        msg.Released: (_count, _text, _many(_octets(SHORT_ID_SIZE))),
        msg.Spread: (_many(_count), _many(_octets()), _octets()),
        msg.Fetch: (_id, _blob_size, _blob_size),
        msg.Piece: (_id, _blob_size, _blob_size, _octets()),
        msg.Lacking: (_id,),
    }.items()
}


def _delta_fields(delta: msg.Delta) -> list[Any]:
    keydoc = delta.keydoc
    return [
        [delta.head.head, delta.head.sig],
        delta.base,
        delta.puts,
        delta.deletes,
        None if keydoc is None else [keydoc.doc, keydoc.sig, keydoc.proof],
    ]


def _vector_fields(vector: msg.Vector) -> list[Any]:
    entries = [
        [held.owner, *held.version, held.content_ver, held.status, held.head_hash]
        + ([held.proof] if held.proof else [])
        for held in vector.entries
    ]
    return [vector.buckets, entries, vector.reply, vector.more]


_FIELDS_OF: dict[type, Callable[[Any], list[Any]]] = {
    msg.Ping: lambda it: [it.nonce, it.mesh_ms, it.fingerprint],
    msg.Pong: lambda it: [it.nonce, it.mesh_ms],
    msg.Probe: lambda it: [it.nonce, it.target],
    msg.ProbeAnswer: lambda it: [it.nonce, it.target, it.heard_ms],
    msg.Bye: lambda it: [it.code, it.detail],
    msg.Vouch: lambda it: [it.voucher],
    msg.Delta: _delta_fields,
    msg.Want: lambda it: [it.owners],
    msg.WantOutlines: lambda it: [it.owners],
    msg.Outlines: lambda it: [[_delta_fields(outline) for outline in it.outlines], it.more],
    msg.RelayOutlines: lambda it: [[_delta_fields(one) for one in it.outlines], it.only],
    msg.Vector: _vector_fields,
    msg.Buckets: lambda it: [it.prints],
    msg.Refuses: lambda it: [it.owners],
    msg.Ihave: lambda it: [[[n.owner, *n.version, n.head_hash] for n in it.news]],
    msg.Graft: lambda it: [it.owners],
    msg.Prune: lambda _it: [],
    msg.Proof: lambda it: [
        [[head.head, head.sig] for head in it.heads],
        [[keydoc.doc, keydoc.sig] for keydoc in it.keydocs],
    ],
    msg.HopAck: lambda it: [it.seq],
    msg.LinkCredit: lambda it: [it.limit],
    msg.Settled: lambda it: [it.seqs],
    msg.Released: lambda it: [it.seq, it.code, it.visited],
    msg.Spread: lambda it: [it.seqs, it.heads, it.shared],
    msg.Fetch: lambda it: [it.hash, it.offset, it.size_max],
    msg.Piece: lambda it: [it.hash, it.offset, it.total, it.data],
    msg.Lacking: lambda it: [it.hash],
}
