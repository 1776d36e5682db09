"""What the suite runs as the client under test: `knock.py SOCKET URL`, and `door.py` does it."""

import json
import os
import socket
import sys

with socket.socket(socket.AF_UNIX) as link:
    link.connect(sys.argv[1])
    asked = {
        "url": sys.argv[2],
        "scenario": os.environ.get("MCP_CONFORMANCE_SCENARIO", ""),
        "context": os.environ.get("MCP_CONFORMANCE_CONTEXT", ""),
    }
    link.sendall(json.dumps(asked).encode() + b"\n")
    answer = link.recv(16)
sys.exit(int(answer or b"1"))
