"""Writes every packet that passes a network namespace into a file, until it is ended.

`python wire.py FILE`, run inside the namespace (`ip netns exec`).
"""

import socket
import sys

ALL_PROTOCOLS = 3
"""ETH_P_ALL of linux/if_ether.h."""


def main() -> None:
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS))
    packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
    with open(sys.argv[1], "wb", buffering=0) as file:
        sys.stdout.write("listening\n")
        sys.stdout.flush()
        while True:
            file.write(packets.recv(65_536))


main()
