"""Who wins among command line, file and environment, and what follows from what."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tektonmesh.config import LAN_TEST_SECRET, Config, load_config
from tektonmesh.config.settings import FILE_NAME
from tektonmesh.errors import LocalError
from tektonmesh.net.nodesettings import settings_of

ID = "abcd" * 13


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in (
        "TEKTON_ROOT",
        "TEKTON_REGISTRY_NAME",
        "TEKTON_PORT_BASE",
        "TEKTONMESH_PORT",
        "TEKTONMESH_SOCKET",
        "TEKTONMESH_HOME",
    ):
        monkeypatch.delenv(key, raising=False)


def settle(home: Path, text: str = "", **overrides: object) -> Config:
    (home / FILE_NAME).write_text(text)
    return load_config(home, overrides)


def test_the_defaults_are_closed(tmp_path: Path) -> None:
    config = settle(tmp_path)
    assert config.admission == "allowlist"
    assert config.share_default == "private"
    assert config.secret == ()
    assert config.http is None
    assert config.listen is None
    assert (config.mdns, config.seeds_only, config.lan) == (True, False, False)
    assert config.mesh == "home"
    assert config.refresh_s is None


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    config = settle(tmp_path, 'name = "file"\nmdns = true', name="line", mdns=False)
    assert config.name == "line"
    assert not config.mdns


def test_seeds_and_allowed_ids_of_the_command_line_are_added(tmp_path: Path) -> None:
    text = f'seeds = ["a:1"]\nallow = ["{ID}"]'
    config = settle(tmp_path, text, seeds=("b:2", "a:1"), allow=("efgh" * 13,))
    assert config.seeds == ("a:1", "b:2")
    assert config.allow == (ID, "efgh" * 13)


def test_listen_of_the_command_line_replaces(tmp_path: Path) -> None:
    config = settle(tmp_path, 'listen = ["0.0.0.0:1"]', listen=("127.0.0.1:0",))
    assert config.listen == ("127.0.0.1:0",)


def test_the_file_wins_over_tektons_name_and_that_over_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "My Host")
    assert settle(tmp_path).name == "my-host"
    monkeypatch.setenv("TEKTON_REGISTRY_NAME", "Primary.tekton.us")
    assert settle(tmp_path).name == "primary.tekton.us"
    assert settle(tmp_path, 'name = "file"').name == "file"


def test_a_tekton_name_outside_the_grammar_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEKTON_REGISTRY_NAME", "not valid")
    with pytest.raises(LocalError, match="TEKTON_REGISTRY_NAME"):
        settle(tmp_path)


def test_a_mesh_secret_admits_and_shares(tmp_path: Path) -> None:
    config = settle(tmp_path, 'secret_file = "mesh.secret"')
    assert (tmp_path / "mesh.secret").exists(), "a relative path is in the home"
    assert len(config.secret) == 1
    assert (config.admission, config.share_default) == ("secret", "public")
    assert config.secret[0] not in repr(config)


def test_a_secret_file_of_the_command_line_is_where_it_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, home = tmp_path / "work", tmp_path / "home"
    work.mkdir()
    home.mkdir()
    monkeypatch.chdir(work)
    settle(home, secret_file="s")
    assert (work / "s").exists()


def test_approval_can_be_asked_for_despite_a_secret(tmp_path: Path) -> None:
    config = settle(tmp_path, 'secret_file = "s"\nadmission = "approve"')
    assert config.admission == "approve"


def test_admission_by_secret_needs_a_secret(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="no mesh secret"):
        settle(tmp_path, 'admission = "secret"')


def test_the_test_profile_has_its_own_mesh_and_the_known_secret(tmp_path: Path) -> None:
    config = settle(tmp_path, lan=True)
    assert (config.mesh, config.secret, config.lan) == ("lan", (LAN_TEST_SECRET,), True)
    assert (config.admission, config.share_default) == ("secret", "public")
    named = settle(tmp_path, lan=True, mesh="other", secret_file=str(tmp_path / "s"))
    assert named.mesh == "other"
    assert named.secret != (LAN_TEST_SECRET,)


def test_http_is_off_until_the_file_or_the_command_line_says_otherwise(tmp_path: Path) -> None:
    assert settle(tmp_path, 'http = "127.0.0.1:1"').http == "127.0.0.1:1"
    assert settle(tmp_path, 'http = "127.0.0.1:1"', http="off").http is None


def test_with_tekton_http_is_on_at_its_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEKTON_ROOT", str(tmp_path))
    assert settle(tmp_path).http == "127.0.0.1:8090"
    (tmp_path / ".env.tekton").write_text("TEKTON_PORT_BASE=8200\n")
    assert settle(tmp_path).http == "127.0.0.1:8290"
    monkeypatch.setenv("TEKTONMESH_PORT", "9000")
    assert settle(tmp_path).http == "127.0.0.1:9000"
    assert settle(tmp_path, 'http = "off"').http is None
    monkeypatch.setenv("TEKTONMESH_PORT", "99999")
    with pytest.raises(LocalError, match="99999"):
        settle(tmp_path)


def test_the_socket_may_be_named_by_environment_and_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settle(tmp_path).socket.name == "tektonmesh.sock"
    monkeypatch.setenv("TEKTONMESH_SOCKET", "/tmp/env.sock")
    assert settle(tmp_path).socket == Path("/tmp/env.sock")
    assert settle(tmp_path, socket=Path("/tmp/opt.sock")).socket == Path("/tmp/opt.sock")


def test_an_override_is_checked_as_the_file_is(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="--seed "):
        settle(tmp_path, seeds=("nowhere",))
    with pytest.raises(LocalError) as caught:
        settle(tmp_path, seed="x")
    assert "seeds" in caught.value.hint


def test_settings_can_be_read_without_trio() -> None:
    code = (
        "import sys; from tektonmesh.config import load_config, socket_path;"
        "assert 'trio' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_endpoint_hosts_users_lease_and_log_come_from_the_file(tmp_path: Path) -> None:
    text = """allow_endpoint_hosts = ["GPU.example", "[fd00::1]"]
allow_uids = [1001]
lease_s = 30
refresh_s = 10
log_json = true"""
    config = settle(tmp_path, text)
    assert config.allow_endpoint_hosts == ("gpu.example", "fd00::1")
    assert (config.allow_uids, config.lease_s, config.log_json) == ((1001,), 30.0, True)
    (tmp_path / "bare").mkdir()
    plain = settle(tmp_path / "bare")
    assert (plain.allow_endpoint_hosts, plain.allow_uids) == ((), ())
    assert (plain.lease_s, plain.log_json) == (None, False)


@pytest.mark.parametrize(
    "text",
    [
        'allow_endpoint_hosts = ["http://x"]',
        'allow_endpoint_hosts = ["x:80"]',
        'allow_uids = ["me"]',
        "allow_uids = [true]",
        "lease_s = 10\nrefresh_s = 9",
    ],
)
def test_values_that_cannot_be_meant_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(LocalError):
        settle(tmp_path, text)


def test_the_room_for_large_bodies_reaches_the_node(tmp_path: Path) -> None:
    plain = settings_of(settle(tmp_path, ""), (), ())
    assert (plain.large_body_max, plain.large_bodies_bytes) == (1 << 30, 4 << 30)
    text = "large_body_max = 5_000_000\nlarge_bodies_bytes = 20_000_000"
    chosen = settings_of(settle(tmp_path, text), (), ())
    assert (chosen.large_body_max, chosen.large_bodies_bytes) == (5_000_000, 20_000_000)


def test_a_lease_of_the_settings_reaches_the_node_with_a_refresh_that_fits(tmp_path: Path) -> None:
    settings = settings_of(settle(tmp_path, "lease_s = 30"), (), ())
    assert settings.lease_s == 30.0
    assert settings.refresh_min_s == settings.refresh_max_s == 10.0
