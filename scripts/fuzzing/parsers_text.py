"""Parsers of text: the JSON lines of the local doors, ids, addresses, announcements on the LAN."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from scripts.fuzzing import material
from scripts.fuzzing.parser import Check, Parse, Parser
from tektonmesh.api import dialect
from tektonmesh.api.validate import registration
from tektonmesh.core.ids import group_id, parse_id, show_id
from tektonmesh.errors import LocalError, MeshError
from tektonmesh.net.addresses import (
    ADDRESSES_MAX,
    is_near,
    join_address,
    never_dialled,
    parse_ip,
    split_address,
)
from tektonmesh.net.mdns import ID_PREFIX_SIZE, Card, Seen, read_service
from tektonmesh.wire import limits
from tektonmesh.wire.jsonrpc import (
    Failure,
    LineReader,
    Request,
    Result,
    read_json,
    read_line,
    write_request,
    write_result,
)

_HALVES = re.compile("[\ud800-\udfff]")
LINE_STEPS = (1, 7, 4096)
READ_SIZE = 65_536
"""What one read of a local socket brings at most (`api/lines`)."""
Inputs = tuple[Callable[[], list[bytes]], Callable[[], list[bytes]]]

# --- JSON lines ----------------------------------------------------------------------------------


def check_line(data: bytes) -> bool:
    """What a line says can be written, and reads the same then. Halves of surrogate pairs cannot
    be written as they are."""
    try:
        line = read_line(data)
    except LocalError:
        return False
    written = _written(line)
    if _HALVES.search(repr(line)) is None and "\\ud" not in repr(line):
        again = read_line(written)
        expected = Result(line.id, line.error) if isinstance(line, Failure) else line
        assert again == expected and _same(again, expected), "a line changed when it was written"
    return True


def _written(line: Request | Result | Failure) -> bytes:
    if isinstance(line, Request):
        return write_request(line)
    return write_result(line.id, line.error if isinstance(line, Failure) else line.result)


def _same(one: object, other: object) -> bool:
    """Tells 1 from 1.0 and True, which are equal in Python."""
    return repr(one) == repr(other)


def check_lines(data: bytes) -> bool:
    """A stream gives the same lines however it is cut."""
    outcomes = []
    for step in LINE_STEPS if len(data) <= 4096 else (4096, READ_SIZE):
        reader, lines = LineReader(), []
        try:
            for at in range(0, len(data), step):
                lines += reader.feed(data[at : at + step])
        except LocalError:
            return False
        outcomes.append((lines, reader.rest))
    assert all(outcome == outcomes[0] for outcome in outcomes), "lines depend on how they arrive"
    lines, rest = outcomes[0]
    assert all(line.strip() and b"\n" not in line for line in lines)
    assert data.endswith(rest) and b"\n" not in rest
    return bool(lines)


def _lines_of(data: bytes) -> list[bytes]:
    return LineReader().feed(data)


def check_answer(data: bytes) -> bool:
    """What a client makes of a line of its daemon's."""
    try:
        message = dialect.read_line(data)
        dialect.is_nameless_error(message)
        dialect.result_of(message)
    except MeshError:
        return False
    return True


def check_registration(data: bytes) -> bool:
    """What a CI says of itself: what is accepted can be kept on disk and told to the mesh."""
    try:
        spec = _registered(data)
    except LocalError:
        return False
    json.dumps(spec, allow_nan=False).encode()
    return True


def _registered(data: bytes) -> dict[str, Any]:
    given = read_json(data)
    if not isinstance(given, dict):
        raise LocalError("The parameters are no object.")
    return registration(given, via="socket", attach=True)


def _line_seeds() -> list[bytes]:
    said = (
        '{"jsonrpc":"2.0","id":1,"method":"send","params":{"to":"numa@west","body":"hé","t":1.5}}',
        '{"id":"a","result":{"list":[1,-2,null,true,0.1],"empty":{}}}',
        '{"id":7,"error":{"code":-32602,"message":"No.","data":{"code":"bad_request"}}}',
        '{"method":"cancel"}',
        '{"id":18446744073709551615,"result":"\\u00e9\\ud83d\\ude00"}',
        '{"id":null,"method":"x","params":{"half":"\\ud800"}}',
    )
    return [line.encode() for line in said]


def _stream_seeds() -> list[bytes]:
    return [b"\n".join(_line_seeds()[:3]) + b"\n", b"\r\n \n{}\n[", b"\n"]


def _heavy_lines() -> list[bytes]:
    """A full line of each thing that costs."""
    size = limits.LINE_SIZE_MAX - 40
    fillings = ('"' + "a" * size + '"', '"' + "\\u00e9" * (size // 6) + '"', "9" * size)
    fillings += ("0." + "1" * size, "1e" + "9" * size, "[" * size, '{"a":' * (size // 5))
    fillings += ("[" * (size // 2) + "]" * (size // 2), "[" + "[]," * (size // 3) + "[]]")
    fillings += ("[" + "1," * (size // 2) + "1]", "[" + "{}," * (size // 3) + "{}]")
    fillings += ("{" + ",".join(f'"{n}":0' for n in range(size // 10)) + "}", " " * size, "1e999")
    fillings += ("[" * 60_000, '{"a":' * 30_000, "[" * 500 + "]" * 500)
    fillings += ("[" + "1.5," * (size // 4) + "1]", '["' + '","' * (size // 3) + '"]')
    return [f'{{"id":1,"result":{filling}}}'.encode() for filling in fillings]


def _heavy_streams() -> list[bytes]:
    return [b"\n" * READ_SIZE, b"a" * (limits.LINE_SIZE_MAX + 1), b"{}\n" * (READ_SIZE // 3)]


def _answer_seeds() -> list[bytes]:
    """Lines of a daemon, and errors with data of ours and of others."""
    said = (
        '{"id":7,"error":{"code":-32005,"message":"No.","data":{"code":"unreachable",'
        '"outcome":"released","retry":"later"}}}',
        '{"id":null,"error":{"code":1,"message":"Odd.","data":{"code":["odd"]}}}',
        '{"id":1,"error":"odd","result":[]}',
    )
    return [*_line_seeds(), *(line.encode() for line in said)]


def _heavy_answers() -> list[bytes]:
    """A client's own daemon is no stranger: it must not confuse, but it may take its time."""
    return [b"[" * limits.LINE_SIZE_MAX, b'{"a":' * 100_000, b"9" * 5000, b"1e999"]


def _registration_seeds() -> list[bytes]:
    said: list[dict[str, Any]] = [
        {"name": "numa", "type": "companion", "specialties": ["nlp"], "share": "public"},
        {"name": "a", "endpoint": "http://127.0.0.1:8016/chat", "headers": {"X-A": "b"}},
        {"name": "b", "port": "8000", "message_endpoint": "/m", "capabilities": {"x": True}},
        {"name": "c", "type": "tekton", "host": "localhost", "port": 8100, "protocol": "http"},
        {"name": "d", "endpoint": "http+unix://%2Ftmp%2Fa.sock/m", "metadata": {"k": [1.5]}},
        {"name": "e", "capabilities": [{"id": "x"}, "y"], "persist": True, "lease_s": 5},
        {"name": "f", "type": "external", "host": "far.example", "description": "Far."},
    ]
    return [json.dumps(one).encode() for one in said]


def _heavy_registrations() -> list[bytes]:
    """Numbers of more digits than Python turns into one, and the largest of everything."""
    said: list[dict[str, Any]] = [
        {"name": "a", "port": "9" * 5000},
        {"name": "a", "endpoint": "http://localhost:" + "9" * 2000},
        {"name": "a", "specialties": ["w"] * 300_000},
        {"name": "a", "metadata": {str(number): number for number in range(60_000)}},
        {"name": "a", "headers": {f"h{number}": "v" * 4096 for number in range(20)}},
        {"name": "a" * 1_000_000},
    ]
    return [json.dumps(one).encode() for one in said]


# --- ids, addresses, announcements ---------------------------------------------------------------


def check_id(data: bytes) -> bool:
    """An id that is read is shown in two forms that read the same."""
    try:
        stack_id = _id_of(data)
    except LocalError:
        return False
    assert parse_id(show_id(stack_id)) == parse_id(group_id(stack_id)) == stack_id
    return True


def _id_of(data: bytes) -> bytes:
    return parse_id(_text_of(data))


def check_address(data: bytes) -> bool:
    """An address is split into what joins to an address that splits the same."""
    text = _text_of(data)
    parse_ip(text)
    never_dialled(text)
    is_near(text)
    try:
        host, port = split_address(text)
    except LocalError:
        return False
    assert 0 <= port <= 65535
    if parse_ip(host) is not None:
        assert split_address(join_address(host, port)) == (host, port)
    return parse_ip(host) is not None


def _split(data: bytes) -> tuple[str, int]:
    return split_address(_text_of(data))


def check_announcement(data: bytes) -> bool:
    """Port, hosts and properties of a service on the LAN, each by its own line."""
    seen = _announced(data)
    if seen is None:
        return False
    assert len(seen.id_prefix) == ID_PREFIX_SIZE and seen.id_prefix.isascii()
    assert 0 < len(seen.addresses) <= ADDRESSES_MAX
    for address in seen.addresses:
        host, _ = split_address(address)
        assert not never_dialled(host)
    return True


def _announced(data: bytes) -> Seen | None:
    port, hosts, *rows = (*data.split(b"\n"), b"")
    properties = {key: value for key, _, value in (row.partition(b"=") for row in rows)}
    number = int.from_bytes(port[:3], "big")
    return read_service(_CARD, properties, number, hosts.decode("utf-8", "replace").split(","))


_CARD = Card(bytes(32), bytes(8), ("127.0.0.1:7700",), False)


def _id_seeds() -> list[bytes]:
    ids = [material.host(number).stack_id for number in (0, 1)]
    return [shown(one).encode() for one in ids for shown in (show_id, group_id)]


def _address_seeds() -> list[bytes]:
    texts = [*material.ADDRESSES, "::1", "[fe80::1%eth0]:1", "west", "127.0.0.1", "2002:7f00:1::"]
    texts += ["[64:ff9b::a9fe:a9fe]:80", "[2001:0:4136:e378:8000:63bf:3fff:fdd2]:1", "0.0.0.0:1"]
    return [text.encode() for text in [*texts, "[::ffff:169.254.169.254]:80", "224.0.0.1:9"]]


def _heavy_addresses() -> list[bytes]:
    return [b"a:" + b"1" * 5000, b":" * 100_000, b"[" * 100_000, b"1." * 50_000 + b":1"]


def _announcement_seeds() -> list[bytes]:
    port = (7700).to_bytes(2, "big")
    mesh = b"mesh=" + _CARD.mesh.encode()
    hosts = b"192.0.2.1,2001:db8::1,fe80::1,169.254.169.254,0.0.0.0"
    return [b"\n".join([port, hosts, b"id=" + b"k" * 16, mesh, b"v=1", b"empty"])]


def _heavy_announcements() -> list[bytes]:
    rows = b"\n".join(b"key%d=value" % number for number in range(5000))
    return [b"\x1e\x14\n" + b"192.0.2.1," * 5000 + b"\n" + rows]


def _text_of(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _text(name: str, check: Check, parse: Parse, given: Inputs, *, share: float = 1) -> Parser:
    """A parser of text; `given` makes its seeds and its heavy inputs."""
    return Parser(name, check, parse, *given, share=share, text=True)


def parsers() -> Iterator[Parser]:
    """Those of this module."""
    yield _text("json-line", check_line, read_line, (_line_seeds, _heavy_lines), share=5)
    yield _text("json-stream", check_lines, _lines_of, (_stream_seeds, _heavy_streams), share=0.5)
    yield _text("json-answer", check_answer, dialect.read_line, (_answer_seeds, _heavy_answers))
    given = (_registration_seeds, _heavy_registrations)
    yield _text("registration", check_registration, _registered, given)
    yield _text("id", check_id, _id_of, (_id_seeds, lambda: [b"a" * 100_000]))
    yield _text("address", check_address, _split, (_address_seeds, _heavy_addresses))
    given = (_announcement_seeds, _heavy_announcements)
    yield _text("announcement", check_announcement, _announced, given)
