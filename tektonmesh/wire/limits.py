"""Every size and count that a link or a parser enforces, each with its reason.

These numbers are part of the protocol or guard memory against strangers; nothing here is a
setting. Rates and quotas per peer are policy and live in the core.
"""

from __future__ import annotations

PROTOCOL_MIN = 1
PROTOCOL_MAX = 1
"""The range of protocol versions this build speaks; HELLO signs it, the highest common one wins."""

# --- frames --------------------------------------------------------------------------------------

HEADER_SIZE = 16
FRAME_SIZE_MAX = 16_384
"""Header and payload: exactly one TLS record (RFC 8446, 5.1), so a frame never waits for two."""
PAYLOAD_SIZE_MAX = FRAME_SIZE_MAX - HEADER_SIZE
MESSAGE_SIZE_MAX = 262_144
"""A reassembled message. Four classes at once bound what one link can make us hold."""
DELTA_SIZE_MAX = 1_048_576
"""One owner's whole record set is at most 1 MiB, and a full snapshot is one delta."""
PROOF_SIZE_MAX = 8_192
"""Two heads of 2 KiB and two key documents of 1 KiB: an owner must not get away with what it said
because that is long. Ordinary ones make 0.9 KiB."""
HELLO_SIZE_MAX = 4_096
"""What a stranger can make us parse. A HELLO with its key document is about 700 bytes."""
CLASSES = 4

# --- links ---------------------------------------------------------------------------------------

LINK_QUEUE_BYTES_MAX = 33_554_432
"""Bytes queued for one peer before its link is closed; repair and hop acknowledgements make a
closed link harmless, a full memory is not."""
READ_BATCH_BYTES = 65_536
"""One turn of the node gets at most this much from one link, so that no link starves another."""
WRITE_BATCH_BYTES = 65_536
"""One TLS write. More would delay control frames behind bytes the kernel already holds."""
NOTSENT_LOWAT_BYTES = 16_384
"""Trio's value: unsent bytes in the kernel beyond this cannot be overtaken by control frames."""
CONNECT_S = 3.0
HANDSHAKE_S = 10.0
CLOSE_FLUSH_S = 1.0
"""How long a closing link may still try to tell the peer why."""
LEAF_SIZE_MAX = 2_048
"""A leaf of our own making is about 500 bytes of DER."""

# --- what a HELLO may claim ----------------------------------------------------------------------

NAME_SIZE_MAX = 63
ADDRESSES_MAX = 8
"""Dial targets from peers are attacker input; nobody needs more than this many."""
INSTANCE_SIZE_MAX = 16
SECRET_PROOFS_MAX = 2
"""A secret file has two lines while it is being rotated."""
REFUSED_DETAIL_MAX = 200
TEXT_SIZE_MAX = 1_024
"""Any text in a message: record keys (128), codes, a sentence for people."""

# --- msgpack -------------------------------------------------------------------------------------

DEPTH_MAX = 16
"""Nesting of maps and arrays; the deepest value we write ourselves has 6."""
NODES_MAX = 20_000
"""Values in one document. 1 MiB of empty maps would become 64 MiB of objects; 4,096 records of a
delta take 16,400."""
HELLO_NODES_MAX = 64
"""Values in what an unadmitted peer sends; a HELLO has about 30."""

# --- seal ----------------------------------------------------------------------------------------

SENDER_KEYS_MAX = 4_096
"""Cached keys of recipients; one per destination prekey of this hour."""
RECEIVER_KEYS_MAX = 4_096
"""Cached keys of senders; one per (sender hour, prekey)."""
PREKEYS_MAX = 10
"""One a day, each kept for 8 days after the next one came, is 9. The bound is for clocks that keep
jumping back."""

# --- local doors ---------------------------------------------------------------------------------

LINE_SIZE_MAX = 1_048_576
"""One JSON-RPC line: a body of 256 KiB may grow sixfold by JSON escapes, and most do not."""
JSON_DEPTH_MAX = 64
JSON_PARTS_MAX = 65_536
"""Commas, colons and opening brackets of one line, those in texts aside. A line of 1 MiB could hold
half a million of them and take 0.3 s to read; no registration or message needs a tenth of these."""
JSON_INT_DIGITS_MAX = 20
"""An integer of 64 bits has 20 characters with its sign; longer ones cost quadratic time."""
