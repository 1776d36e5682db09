"""A router of Zenoh: `zenoh_router.py PORT [NEXT_PORT]`, run by the Python that has it."""

import sys
import time

import zenoh

config = zenoh.Config()
config.insert_json5("mode", '"router"')
config.insert_json5("listen/endpoints", f'["tcp/127.0.0.1:{sys.argv[1]}"]')
config.insert_json5("scouting/multicast/enabled", "false")
if len(sys.argv) > 2:
    config.insert_json5("connect/endpoints", f'["tcp/127.0.0.1:{sys.argv[2]}"]')
session = zenoh.open(config)
print("ready", flush=True)
time.sleep(3600)
