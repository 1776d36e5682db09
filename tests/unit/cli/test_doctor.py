"""What the doctor finds, and that it says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tektonmesh.cli.common import Where
from tektonmesh.cli.doctor import Finding, examine
from tektonmesh.cli.doctor_closed import check_rights
from tektonmesh.cli.main import main


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for key in ("TEKTON_ROOT", "TEKTONMESH_SOCKET", "TEKTONMESH_HOME", "TEKTON_REGISTRY_NAME"):
        monkeypatch.delenv(key, raising=False)
    home = tmp_path / "home"
    assert main(["init", "--home", str(home), "--name", "west", "--json"]) == 0
    return home


def findings(home: Path) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for finding in examine(Where(home=home)):
        found.setdefault(finding.check, []).append(finding)
        assert finding.level == "ok" or finding.advice, finding
    return found


def levels(home: Path, check: str) -> list[str]:
    return [finding.level for finding in findings(home)[check]]


_GRANT = {"id": "1", "name": "west", "verb": "message", "ci": "numa"}
_TOKEN = {"id": "1", "name": "x", "scopes": ["read"], "expires": 5}


class _Asked:
    """A `Where` whose daemon is the one given."""

    def __init__(self, daemon: object) -> None:
        self._daemon = daemon

    @contextmanager
    def client(self) -> Iterator[object]:
        yield self._daemon


def test_a_good_home_without_a_daemon_fails_in_the_daemon_only(home: Path) -> None:
    failed = [f.check for group in findings(home).values() for f in group if f.level == "fail"]
    assert failed == ["daemon"]


def test_a_missing_home_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    (finding,) = findings(tmp_path / "none")["home"]
    assert finding.level == "fail"
    assert finding.advice == f"tektonmesh init --home {tmp_path / 'none'}"


def test_a_home_that_others_can_read_fails(home: Path) -> None:
    home.chmod(0o755)
    assert levels(home, "home") == ["fail"]


def test_a_key_that_others_can_read_fails(home: Path) -> None:
    (home / "identity" / "op.key").chmod(0o644)
    (finding,) = findings(home)["keys"]
    assert finding.level == "fail"
    assert "op.key" in finding.detail


def test_an_identity_that_is_a_link_elsewhere_fails(home: Path) -> None:
    (home / "identity").rename(home.parent / "elsewhere")
    (home / "identity").symlink_to(home.parent / "elsewhere")
    assert levels(home, "identity") == ["fail"]


def test_a_home_without_identity_says_how_to_get_one(home: Path) -> None:
    (home / "identity").rename(home.parent / "elsewhere")
    (finding,) = findings(home)["identity"]
    assert "init" in finding.advice


def test_a_wrong_setting_fails_with_its_hint(home: Path) -> None:
    (home / "tektonmesh.toml").write_text("mdsn = true\n")
    (finding,) = findings(home)["settings"]
    assert finding.level == "fail"
    assert "mdns" in finding.advice


@pytest.mark.parametrize(
    ("line", "check"),
    [
        ('share_default = "public"', "sharing"),
        ('http = "0.0.0.0:7780"', "http"),
        ('http = "0.0.0.0:7780"\nhttp_cert = "c"\nhttp_key = "k"', "http"),
        ('allow_endpoint_hosts = ["192.168.1.20"]', "endpoints"),
        ("allow_uids = [1001]", "users"),
        ('audit_full = "continue"', "audit"),
        ('oauth_issuer = "https://id.example"\noauth_jwks = "j"', "oauth"),
        ('log_level = "debug"', "log"),
    ],
)
def test_what_is_more_open_than_the_default_is_a_warning(home: Path, line: str, check: str) -> None:
    (home / "tektonmesh.toml").write_text(line + "\n")
    assert levels(home, check) == ["warn"]


def test_a_secret_that_others_can_read_fails(home: Path) -> None:
    (home / "tektonmesh.toml").write_text('secret_file = "s"\n')
    (home / "s").write_text("x" * 40)
    (home / "s").chmod(0o644)
    assert levels(home, "secret") == ["fail"]


def test_the_exit_code_is_1_when_a_check_fails(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["doctor", "--home", str(home)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert all(line.split()[0] in ("ok", "warn", "fail") for line in lines)


def test_findings_are_objects_under_json(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    capsys.readouterr()
    main(["doctor", "--home", str(home), "--json"])
    for line in capsys.readouterr().out.splitlines():
        assert set(json.loads(line)) == {"check", "level", "detail", "advice"}


def test_an_audit_log_that_was_changed_fails(home: Path) -> None:
    from tektonmesh.net import identity
    from tektonmesh.net.auditlog import AuditLog

    keys = identity.load(home)
    log = AuditLog(home, keys.stack_id, keys, None)
    log.add("allow", stack="west")
    log.close()
    assert levels(home, "audit") == ["ok"]
    (path,) = (home / "audit").iterdir()
    path.write_bytes(path.read_bytes().replace(b"west", b"east"))
    assert levels(home, "audit") == ["fail"]


class _Daemon:
    """Answers as a daemon with such a policy would."""

    def __init__(self, **answers: object) -> None:
        self.answers = {"grant": [], "token": [], "invite": []} | answers
        policy = answers.get("policy", {})
        assert isinstance(policy, dict)
        self.policy = {"peers": [], "guests": []} | policy
        self.unproven = answers.get("unproven", 0)

    def call(self, method: str, **_params: object) -> object:
        here = {
            "policy": self.policy,
            "peers": [{"id": "abc", "name": "east"}],
            "status": {"registry": {"unproven": self.unproven}},
        }
        return here[method] if method in here else self.answers[method]


@pytest.mark.parametrize(
    ("answers", "check"),
    [
        ({"grant": [_GRANT]}, "grants"),
        ({"grant": [_GRANT | {"verb": "introduce", "not_after_ms": 1}]}, "grants"),
        ({"policy": {"peers": [{"name": "west", "mode": "full", "shared_cis": []}]}}, "terms"),
        ({"token": [_TOKEN | {"scopes": ["owner"]}]}, "tokens"),
        ({"token": [_TOKEN | {"expires": None}]}, "tokens"),
        ({"invite": [{}]}, "invites"),
        ({"policy": {"guests": ["abc"]}}, "guests"),
        ({"unproven": 3}, "members"),
    ],
)
def test_rights_without_an_end_or_a_bound_are_warnings(
    answers: dict[str, object], check: str
) -> None:
    found = list(check_rights(_Asked(_Daemon(**answers))))  # type: ignore[arg-type]
    assert [(one.check, one.level) for one in found] == [(check, "warn")]
    assert found[0].advice


def test_a_closed_policy_is_worth_no_word() -> None:
    narrow = {"name": "west", "mode": "partial", "shared_cis": ["numa"]}
    daemon = _Daemon(
        grant=[_GRANT | {"not_after_ms": 1}], token=[_TOKEN], policy={"peers": [narrow]}
    )
    assert list(check_rights(_Asked(daemon))) == []  # type: ignore[arg-type]
