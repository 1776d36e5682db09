"""Counts who connects: `trap.py FILE HOST PORT` writes one byte into FILE for every connection."""

import socket
import sys


def main() -> None:
    place = (sys.argv[2], int(sys.argv[3]))
    with socket.create_server(place) as listener, open(sys.argv[1], "wb", buffering=0) as file:
        sys.stdout.write("listening\n")
        sys.stdout.flush()
        while True:
            caller, _address = listener.accept()
            file.write(b"x")
            caller.close()


main()
