"""A CI that says what it got: size and SHA-256 of the body, whether it was a file, and the attempt.
`hash_ci.py SOCKET NAME`."""

import hashlib
import json
import sys

from tektonmesh.sync import Client, Message


def answer(message: Message) -> str:
    if message.file is None:
        size, digest = len(message.data), hashlib.sha256(message.data).hexdigest()
    else:
        size = message.file.stat().st_size
        with message.file.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    got = {"size": size, "sha256": digest, "file": message.file is not None}
    return json.dumps(got | {"attempt": message.attempt})


with Client(sys.argv[1]) as client:
    client.register(sys.argv[2], type="hash")
    sys.stdout.write("registered\n")
    sys.stdout.flush()
    client.serve(answer)
