"""The secure defaults, one test each: what a stack does for whom nothing was said."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tektonmesh.api.validate import registration
from tektonmesh.config import Config, load_config
from tektonmesh.config.home import claim_home
from tektonmesh.core.policy import Act, Subject, Terms, decide
from tektonmesh.core.trust import Verdict
from tektonmesh.errors import LocalError
from tests.doors import open_stack, socket_of
from tests.network import Network
from tests.support import make_keys

ROOT = Path(__file__).resolve().parents[2]
B = make_keys(2)[1]


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The configuration of a stack with no settings at all."""
    for name in [name for name in os.environ if name.startswith("TEKTON")]:
        monkeypatch.delenv(name)
    return load_config(tmp_path)


def test_nobody_is_admitted(plain: Config) -> None:
    assert (plain.admission, plain.allow, plain.secret) == ("allowlist", (), ())
    node = Network("a", mesh_keys=())["a"].node
    assert node.judge(B.stack_id, "b", B.keydoc, False) == Verdict(False, "pending")


def test_new_cis_are_private(plain: Config) -> None:
    assert plain.share_default == "private"


def test_new_cis_are_public_among_ones_own_stacks_only(tmp_path: Path, plain: Config) -> None:
    own = load_config(tmp_path, {"secret_file": str(tmp_path / "mesh.secret")})
    assert (own.share_default, own.admission) == ("public", "secret")
    assert len(own.secret[0]) >= 32


def test_an_admitted_stack_discovers_what_is_shared_and_may_do_nothing_else() -> None:
    member = Subject(B.stack_id, "member")
    assert decide(Act("discover", "x"), member, "public", 0).allowed
    for share in ("partners", "private", None):
        assert decide(Act("discover", "x"), member, share, 0).code == "not_found"
    for verb in ("message", "tool.call:x", "resource.read:x", "prompt.get:x", "relay", "introduce"):
        assert decide(Act(verb, "x"), member, "public", 0).code == "refused"


def test_nobody_introduces_others() -> None:
    network = Network("a", "b")
    network.join("a", "b")
    assert not network["a"].node.rights.is_introducer(B.stack_id)
    assert not decide(Act("introduce"), Subject(B.stack_id, "member", own=True), None, 0).allowed


def test_callers_here_may_use_what_they_are_granted_elsewhere() -> None:
    assert Terms().imports == ("*",)


def test_http_over_tcp_is_off(plain: Config) -> None:
    assert plain.http is None


async def test_http_beyond_loopback_needs_tls(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="open to the network"):
        async with open_stack(tmp_path, http="0.0.0.0:0"):
            raise AssertionError("It started.")


def test_endpoints_are_on_this_machine(plain: Config) -> None:
    assert plain.allow_endpoint_hosts == ()
    with pytest.raises(LocalError):
        registration({"name": "x", "endpoint": "http://192.168.1.20/x"}, via="socket")


def test_no_other_user_is_served(plain: Config) -> None:
    assert plain.allow_uids == ()


def test_acts_that_cannot_be_audited_are_refused(plain: Config) -> None:
    assert plain.audit_full == "refuse"


def test_the_test_profile_is_for_homes_of_its_own(tmp_path: Path) -> None:
    claim_home(tmp_path / "normal", lan=False)
    with pytest.raises(LocalError):
        claim_home(tmp_path / "normal", lan=True)


async def test_the_home_and_everything_in_it_is_ours_alone(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors:
        home = doors.daemon.config.home
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert stat.S_IMODE(Path(socket_of(doors)).stat().st_mode) == 0o600
        opened = [
            path.name for path in home.rglob("*") if path.is_file() and path.stat().st_mode & 0o077
        ]
        assert opened == []


def test_invites_are_good_once_and_for_an_hour() -> None:
    from tektonmesh.core.invites import EXPIRY_MAX_S, EXPIRY_S, WRONG_MAX

    assert (EXPIRY_S, EXPIRY_MAX_S, WRONG_MAX) == (3600.0, 86400.0, 5)


def test_the_systemd_unit_leaves_little_exposed() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = ROOT / "scripts" / "tektonmesh.service"
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    rated = re.search(r"Overall exposure level for tektonmesh\.service: ([0-9.]+)", done.stdout)
    assert rated is not None, done.stdout + done.stderr
    assert float(rated[1]) <= 2.0
