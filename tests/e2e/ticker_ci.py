"""A CI that streams tokens at a steady pace, each with the instant at which it was made.
`ticker_ci.py SOCKET NAME`; the message says how many seconds, and how many tokens a second."""

import sys
import time
from collections.abc import Iterator

from tektonmesh.sync import Client, Message


def tick(message: Message) -> Iterator[str]:
    seconds, rate = (float(word) for word in message.body.split())
    begun = time.monotonic()
    for number in range(int(seconds * rate)):
        wait_s = begun + number / rate - time.monotonic()
        if wait_s > 0:
            time.sleep(wait_s)
        yield f"{time.monotonic_ns()} "


with Client(sys.argv[1]) as client:
    client.register(sys.argv[2], type="ticker")
    sys.stdout.write("registered\n")
    sys.stdout.flush()
    client.serve(tick, parallel=4)
