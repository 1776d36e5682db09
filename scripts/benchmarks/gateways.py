"""`gateways`: ContextForge as a gateway beside ours, both before one and the same server.

ContextForge (`mcp-contextforge-gateway`) runs as one worker on SQLite, with a memory cache and
without plugins, interface or limits of rate; a bearer token is shown with each call, as it wants.
The client speaks the dialect 2025-11-25, which is the newest that it speaks.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2

from scripts.benchmarks.figures import Figure, middle, quantile
from scripts.benchmarks.fleet import fleet, free_port, processes, socket_of
from scripts.benchmarks.packages import environment
from scripts.benchmarks.tools import knows, timed
from tests.e2e.stacks import wait_until

VERSION = "1.0.7"
FOLDER = Path(__file__).parents[2] / ".venv" / "contextforge"
START_S = 120.0
USER, PASSWORD = "admin@example.com", "A-word-for-1-benchmark!"
SETTINGS = {
    "AUTH_REQUIRED": "true",
    "RATE_LIMITING_ENABLED": "false",
    "TOOL_RATE_LIMIT": "1000000",
    "PASSWORD_CHANGE_ENFORCEMENT_ENABLED": "false",
    "ADMIN_REQUIRE_PASSWORD_CHANGE_ON_BOOTSTRAP": "false",
    "REQUIRE_TOKEN_EXPIRATION": "false",
    "MCP_CLIENT_AUTH_ENABLED": "true",
    "MCPGATEWAY_UI_ENABLED": "false",
    "MCPGATEWAY_ADMIN_API_ENABLED": "true",
    "JWT_SECRET_KEY": "a-secret-of-more-than-thirty-two-characters",
    "AUTH_ENCRYPTION_SECRET": "another-secret-of-more-than-32-characters",
    "CACHE_TYPE": "memory",
    "LOG_LEVEL": "WARNING",
    "SSRF_ALLOW_LOCALHOST": "true",
    "SSRF_ALLOW_PRIVATE_NETWORKS": "true",
    "PLUGINS_ENABLED": "false",
    "OBSERVABILITY_ENABLED": "false",
    "BASIC_AUTH_PASSWORD": PASSWORD,
    "PLATFORM_ADMIN_EMAIL": USER,
    "PLATFORM_ADMIN_PASSWORD": PASSWORD,
    "REQUIRE_STRONG_SECRETS": "false",
}

Way = Callable[[], list[float]]


@contextlib.contextmanager
def provided() -> Iterator[str]:
    """ContextForge in an environment of its own, kept for the next time; why not as text that is
    empty otherwise."""
    yield environment(FOLDER, "mcp-contextforge-gateway", VERSION)


class ContextForge:
    """One of it, before the server at `url`, for the length of the block."""

    def __init__(self, folder: Path, url: str) -> None:
        self._port = free_port()
        self._at = f"http://127.0.0.1:{self._port}"
        database = f"sqlite:///{folder / 'mcp.db'}"
        where = {"HOST": "127.0.0.1", "PORT": str(self._port), "DATABASE_URL": database}
        program = str(FOLDER / "bin" / "mcpgateway")
        words = ["mcpgateway.main:app", "--host", "127.0.0.1", "--port", str(self._port)]
        self._process = subprocess.Popen(
            [program, *words, "--workers", "1"],
            env=SETTINGS | where | {"HOME": str(folder), "PATH": os.environ["PATH"]},
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._url = url
        self.headers: dict[str, str] = {}

    def __enter__(self) -> ContextForge:
        end = time.monotonic() + START_S
        while not self._is_up():
            assert self._process.poll() is None, "ContextForge ended"
            assert time.monotonic() < end, "ContextForge did not start"
            time.sleep(0.5)
        who = {"email": USER, "password": PASSWORD}
        token = self._post("/auth/email/login", who)["access_token"]
        self.headers = {"Authorization": f"Bearer {token}"}
        self._post("/gateways", {"name": "floor", "url": self._url, "transport": "STREAMABLEHTTP"})
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.terminate()
        self._process.wait(30)

    def _is_up(self) -> bool:
        try:
            return httpx2.get(f"{self._at}/health", timeout=5.0).status_code == 200
        except httpx2.TransportError:
            return False

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        answer = httpx2.post(self._at + path, json=body, headers=self.headers, timeout=60.0)
        assert answer.is_success, (path, answer.status_code, answer.text[:300])
        return answer.json()

    def timed(self, count: int) -> list[float]:
        return timed(f"{self._at}/mcp/", "floor-echo", count, headers=self.headers, mode="legacy")


def gateways(*, quick: bool) -> Iterator[Figure]:
    """`tools/call` of an echo over HTTP, p50: direct, through ContextForge, and through ours."""
    count, repeats = (20, 1) if quick else (200, 3)
    with tempfile.TemporaryDirectory() as folder, processes() as running, fleet() as mesh:
        port = free_port()
        running.start("mcp_server", f"127.0.0.1:{port}")
        url = f"http://127.0.0.1:{port}/mcp"
        stacks = mesh.chain("abcd")
        stacks[-1].rpc("register", name="echo", attach=False, persist=True,
                       mcp={"http": {"url": url}})  # fmt: skip
        for stack in stacks:
            wait_until("the tool", lambda one=stack: knows(one), within_s=30)

        def ours(links: int) -> list[float]:
            socket = Path(socket_of(stacks[-1 - links]))
            face = "http://localhost/mcp/ci/echo@d"
            return timed(face, "echo", count, socket=socket, mode="legacy")

        with ContextForge(Path(folder), url) as forge:
            ways: dict[str, Way] = {
                "direct": lambda: timed(url, "echo", count, mode="legacy"),
                "ContextForge": lambda: forge.timed(count),
            }
            ways |= {f"tektonmesh, {n} link(s)": lambda n=n: ours(n) for n in (0, 1, 3)}
            runs: dict[str, list[list[float]]] = {name: [] for name in ways}
            for _ in range(repeats):
                for name, way in ways.items():
                    runs[name].append(way())
    floor = middle([middle(run) for run in runs.pop("direct")])
    for name, taken in runs.items():
        value = middle([middle(run) for run in taken])
        p99 = middle([quantile(run, 0.99) for run in taken])
        yield Figure(
            "gateways", name, value, "ms", count * repeats, value, p99, limit=("direct", floor)
        )
