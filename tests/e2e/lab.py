"""Networks of the test's own: namespaces joined by bridges and a router, all removed at the end.

Everything hangs off one router namespace, so nothing outside ever sees a packet.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest


def need_namespaces() -> None:
    """Skip, with the reason, where namespaces cannot be made. Under CI that is a failure."""
    reason = None
    if os.geteuid() != 0:
        reason = "network namespaces need root"
    elif shutil.which("ip") is None:
        reason = "network namespaces need the `ip` command (package iproute2)"
    if reason and os.environ.get("CI"):
        pytest.fail(f"{reason}; CI must run these tests")
    if reason:
        pytest.skip(reason)


class Lab:
    """One router namespace and the host namespaces it joins."""

    def __init__(self, tag: str) -> None:
        self.tag = f"tm{tag}{os.getpid()}"
        self.router = f"{self.tag}r"
        self.hosts: list[str] = []
        self._ports = 0
        self._run("ip", "netns", "add", self.router)
        self._run("ip", "-n", self.router, "link", "set", "lo", "up")
        self._run("ip", "netns", "exec", self.router, "sysctl", "-qw", "net.ipv4.ip_forward=1")

    @staticmethod
    def _run(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True, timeout=20)

    def bridge(self, name: str, address: str | None = None) -> None:
        """A bridge in the router; with an address (CIDR) it routes for that subnet."""
        self._run("ip", "-n", self.router, "link", "add", name, "type", "bridge")
        self._run("ip", "-n", self.router, "link", "set", name, "up")
        if address:
            self._run("ip", "-n", self.router, "addr", "add", address, "dev", name)

    def host(self, name: str, bridge: str, address: str, gateway: str | None = None) -> str:
        """A namespace with one interface `eth0` on `bridge`; gives its name."""
        netns = f"{self.tag}{name}"
        self._run("ip", "netns", "add", netns)
        self.hosts.append(netns)
        self._ports += 1
        port = f"p{self._ports}"
        self._run(
            "ip",
            "link",
            "add",
            port,
            "netns",
            self.router,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            netns,
        )
        self._run("ip", "-n", self.router, "link", "set", port, "master", bridge, "up")
        self._run("ip", "-n", netns, "link", "set", "lo", "up")
        self._run("ip", "-n", netns, "addr", "add", address, "dev", "eth0")
        self._run("ip", "-n", netns, "link", "set", "eth0", "up")
        if gateway:
            self._run("ip", "-n", netns, "route", "add", "default", "via", gateway)
        return netns

    def join(self, one: str, other: str) -> None:
        """A cable between two bridges; `cut` takes it away without a word to anybody."""
        self._run(
            "ip",
            "-n",
            self.router,
            "link",
            "add",
            "cable0",
            "type",
            "veth",
            "peer",
            "name",
            "cable1",
        )
        self._run("ip", "-n", self.router, "link", "set", "cable0", "master", one, "up")
        self._run("ip", "-n", self.router, "link", "set", "cable1", "master", other, "up")

    def cut(self) -> None:
        self._run("ip", "-n", self.router, "link", "set", "cable0", "down")

    def heal(self) -> None:
        self._run("ip", "-n", self.router, "link", "set", "cable0", "up")

    def close(self) -> None:
        for netns in [*self.hosts, self.router]:
            subprocess.run(["ip", "netns", "del", netns], capture_output=True, timeout=20)


@contextlib.contextmanager
def a_lab(tag: str) -> Iterator[Lab]:
    need_namespaces()
    lab = Lab(tag)
    try:
        yield lab
    finally:
        lab.close()
