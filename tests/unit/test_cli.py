"""The command line: tokens, wrong arguments, one clear message per mistake."""

from __future__ import annotations

import sys

import jwt
import pytest
from click.testing import CliRunner, Result

from callboard.cli import main
from callboard.stack.folder import DataFolder
from callboard.stack.secrets import keep_secrets

SECRET = "a-shared-secret-of-at-least-32-bytes"
VARIABLES = (
    *("JWT_SECRET", "JWT_PUBLIC_KEY", "JWT_JWKS_URL", "JWT_ISSUER", "JWT_AUDIENCE"),
    *("JWT_AUTHORIZED_PARTIES", "CALLBOARD_TOKEN", "REDIS_URL", "MONGODB_URI"),
)


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run(tmp_path):
    """Run a command on a data folder of this test's own."""

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(main, [*arguments, "--data-dir", str(tmp_path / "data")])

    return invoke


def test_a_token_names_the_subject_and_ends(run, monkeypatch):
    monkeypatch.setenv("JWT_SECRET", SECRET)
    done = run("token", "alice", "--ttl", "60")
    claims = jwt.decode(done.output.strip(), SECRET, algorithms=["HS256"])
    assert claims["sub"] == "alice"
    assert claims["exp"] - claims["iat"] == 60


def test_a_claim_is_json_or_a_text(run, monkeypatch):
    monkeypatch.setenv("JWT_SECRET", SECRET)
    done = run("token", "alice", "--claim", "level=3", "--claim", "team=red")
    claims = jwt.decode(done.output.strip(), SECRET, algorithms=["HS256"])
    assert (claims["level"], claims["team"]) == (3, "red")


def test_a_token_carries_what_the_settings_check(run, monkeypatch):
    monkeypatch.setenv("JWT_SECRET", SECRET)
    monkeypatch.setenv("JWT_ISSUER", "https://id.example")
    monkeypatch.setenv("JWT_AUDIENCE", "app")
    monkeypatch.setenv("JWT_AUTHORIZED_PARTIES", "https://*.app.example,https://other.example")
    done = run("token", "alice")
    claims = jwt.decode(done.output.strip(), SECRET, algorithms=["HS256"], audience="app")
    assert claims["iss"] == "https://id.example"
    assert claims["azp"] == "https://callboard.app.example"


def test_a_development_machine_signs_with_its_generated_secret(run, tmp_path):
    folder = DataFolder(tmp_path / "data")
    folder.create()
    kept = keep_secrets(folder)
    done = run("token", "alice")
    assert jwt.decode(done.output.strip(), kept.jwt_secret, algorithms=["HS256"])["sub"] == "alice"


def test_without_a_secret_the_next_step_is_told(run):
    done = run("token", "alice")
    assert done.exit_code == 1
    assert "set JWT_SECRET, or start `callboard up` once" in done.output


def test_nobody_here_signs_for_an_identity_provider(run, monkeypatch):
    monkeypatch.setenv("JWT_JWKS_URL", "https://id.example/keys")
    done = run("token", "alice")
    assert done.exit_code == 1
    assert "CALLBOARD_TOKEN" in done.output


def test_damaged_secrets_are_one_message(run, tmp_path):
    folder = DataFolder(tmp_path / "data")
    folder.create()
    folder.write("secrets.json", "{")
    done = run("token", "alice")
    assert done.exit_code == 1
    assert "secrets.json is damaged" in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize("params", ["{", "[]", "3"])
def test_params_must_be_a_json_object(run, params):
    done = run("call", "inviteAttendee", params)
    assert done.exit_code == 2
    assert "JSON" in done.output


def test_a_command_without_its_extra_says_what_to_install(run, monkeypatch):
    monkeypatch.setenv("JWT_SECRET", SECRET)
    monkeypatch.setitem(sys.modules, "jwt", None)  # as if it were not installed
    done = run("token", "alice")
    assert done.exit_code == 1
    assert "token needs jwt" in done.output
    assert "pip install 'callboard[server]'" in done.output
