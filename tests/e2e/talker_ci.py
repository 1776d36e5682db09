"""A CI that streams numbered tokens, as its author would write it: no word about offsets or
restarts. `talker_ci.py SOCKET NAME`; the message says how many tokens, and how many a second."""

import sys
import time
from collections.abc import Iterator

from tektonmesh.sync import Client, Message


def talk(message: Message) -> Iterator[str]:
    count, rate = (int(word) for word in message.body.split())
    begun = time.monotonic()
    for number in range(count):
        if number % 20 == 0:
            wait_s = begun + number / rate - time.monotonic()
            if wait_s > 0:
                time.sleep(wait_s)
        yield f"token-{number} "


with Client(sys.argv[1]) as client:
    client.register(sys.argv[2], type="talker")
    sys.stdout.write("registered\n")
    sys.stdout.flush()
    client.serve(talk, parallel=4)
