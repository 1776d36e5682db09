"""Who makes a call: the word of the calling stack, signed, for the owner's policy and audit log.

A call names the CI that makes it and how many calls led to it. The stack of that CI vouches for
both with its operational key, for this call, this body and this owner alone, so that nobody can use
it again elsewhere and no relay change it. Which calls led to a call is known to `handouts`, since
they are in the hands of the CI that makes it; no token of any caller leaves its stack.
"""

from __future__ import annotations

from hashlib import blake2b

from tektonmesh.core.ci import CALL_TYPE
from tektonmesh.core.envelope import Header
from tektonmesh.core.machine import Env
from tektonmesh.core.outcomes import Question
from tektonmesh.core.replica import Replica
from tektonmesh.core.sealing import Body, bytes_of, number_of, text_of
from tektonmesh.core.types import StackId
from tektonmesh.errors import DeliveryError, LocalError

CONTEXT = b"tektonmesh-call-v1\0"
CHAIN_MAX = 4
"""Calls that may lead to a call. A guess: CIs that call one another in a circle end here."""
DEPTH_MAX = 255


class Assertions:
    """Vouches for the callers of this stack, and checks what other stacks say of theirs."""

    def __init__(self, env: Env, replica: Replica) -> None:
        self.env = env
        self._replica = replica

    def sign(self, question: Question, body: bytes, depth: int) -> bytes:
        """The signature for one call. Raises DeliveryError (`refused`) beyond the longest chain."""
        assert question.stack != self.env.me, "a call that stays here needs no signature"
        _check_depth(depth)
        places = (self.env.me, question.stack, question.msg_id)
        text = self._text(places, question.ci, question.sender, body, depth)
        return self.env.crypto.vouch(CONTEXT, text)

    def check(self, header: Header, body: Body) -> int:
        """The depth of a call that has arrived. Raises DeliveryError (`refused`)."""
        depth = number_of(body, "dp", DEPTH_MAX)
        places = (header.source, self.env.me, header.msg_id)
        names = text_of(body, "to"), text_of(body, "from")
        text = self._text(places, *names, bytes_of(body, "body"), depth)
        if not self._is_signed(header.source, text, bytes_of(body, "sg")):
            detail = "The call is not signed by the stack that makes it."
            raise DeliveryError(detail, code="refused")
        _check_depth(depth)
        return depth

    def _is_signed(self, source: StackId, text: bytes, signature: bytes) -> bool:
        """With the keys of now, or those before them that still count: they may have changed while
        the call was on its way."""
        held = self._replica.owners.get(source)
        if held is None:
            return False
        verify, former = self.env.crypto.verify, self._replica.trust.former.of(held.keydoc)
        if verify(held.keydoc.op_pk, CONTEXT, text, signature):
            return True
        return former is not None and verify(former.op_pk, CONTEXT, text, signature)

    def _text(
        self, places: tuple[StackId, StackId, bytes], ci: str, sender: str, body: bytes, depth: int
    ) -> bytes:
        digest = blake2b(body, digest_size=32).digest()
        return self.env.codec.pack([*places, ci, sender, depth, digest])


def check_lasting(content_type: str) -> None:
    """Raises LocalError for a call that is to outlive its caller."""
    if content_type == CALL_TYPE:
        raise LocalError("A call of MCP is not durable: nobody would be there for its answer.")


def _check_depth(depth: int) -> None:
    if depth > CHAIN_MAX:
        detail = f"This call is the last of a chain of {depth}; at most {CHAIN_MAX} are carried."
        raise DeliveryError(detail, code="refused")
