"""The command line: tokens, wrong arguments, one clear message per mistake."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import click
import jwt
import pytest
from click.testing import CliRunner, Result

from callboard.cli import main
from callboard.cli.listing import age, table
from callboard.stack.folder import DataFolder
from callboard.stack.secrets import keep_secrets

SECRET = "a-shared-secret-of-at-least-32-bytes"
VARIABLES = (
    *("JWT_SECRET", "JWT_PUBLIC_KEY", "JWT_JWKS_URL", "JWT_ISSUER", "JWT_AUDIENCE"),
    *("JWT_AUTHORIZED_PARTIES", "CALLBOARD_TOKEN", "REDIS_URL", "MONGODB_URI"),
    *("OWNER_USER_ID", "CALLBOARD_ACTIONS"),
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


@pytest.mark.parametrize(
    "params", ["{", "[]", "3", '{"a": NaN}', '{"a": "\\ud800"}', '{"a":' * 2_000]
)
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


def test_where_params_are_no_json_is_told(run):
    assert "line 1 column 7" in run("call", "inviteAttendee", '{"a": }').output


@pytest.mark.parametrize("subject", ["", "  ", "a\nb", "a" * 256])
def test_a_subject_that_is_none_is_refused(run, subject):
    done = run("token", subject)
    assert done.exit_code == 2
    assert "Invalid value for 'SUB'" in done.output


@pytest.mark.parametrize("subject", ["", "a\nb", "a" * 256])
def test_a_caller_that_is_none_is_refused_before_anything_is_sent(run, subject):
    done = run("call", "inviteAttendee", "--as", subject)
    assert done.exit_code == 2
    assert "--as" in done.output


@pytest.mark.parametrize("ttl", ["-5", "0", "soon"])
def test_a_token_that_has_ended_is_refused(run, ttl):
    done = run("token", "alice", "--ttl", ttl)
    assert done.exit_code == 2
    assert "--ttl" in done.output


@pytest.mark.parametrize("token", ["two words", "caf\u00e9"])
def test_a_token_that_no_header_carries_is_refused(run, token):
    done = run("call", "echo", "--token", token)
    assert done.exit_code == 2
    assert "--token" in done.output


def _commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))


@pytest.mark.parametrize("command", list(_commands(main)), ids=" ".join)
def test_help_needs_no_stack_and_no_settings(command):
    done = CliRunner().invoke(main, [*command, "--help"])
    assert done.exit_code == 0, done.output
    assert "Usage: " in done.output


@pytest.mark.parametrize("command", ["runs", "schedules", "doctor"])
def test_without_a_stack_the_next_step_is_told(run, command):
    done = CliRunner().invoke(main, [command, "--data-dir", "/nowhere"])
    assert done.exit_code == 1
    assert "`callboard up`" in done.output
    assert "Traceback" not in done.output


DECLARED = """
from pydantic import BaseModel

from callboard import Retry, action, ok


class Greeting(BaseModel):
    name: str
    note: str = ""


@action(owner_only=True, timeout=5, retry=Retry(max_attempts=2), queue="mail")
def greet(ctx, params: Greeting):
    return ok()


@action
def ping(ctx):
    return ok()
"""


@pytest.fixture
def declared(tmp_path, monkeypatch):
    """An actions package of two actions."""
    (tmp_path / "listed_actions.py").write_text(DECLARED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("CALLBOARD_ACTIONS", "listed_actions")
    yield
    del sys.modules["listed_actions"]


def test_the_actions_are_listed_with_params_and_options(run, declared):
    head, greet, ping = run("actions").output.splitlines()
    assert head.split() == ["Action", "Params", "Options"]
    assert greet.split(maxsplit=3)[:3] == ["greet", "name,", "note?"]
    assert greet.endswith("owner_only, retry, timeout=5, queue=mail")
    assert ping.split() == ["ping", "{}"]


def test_the_actions_are_listed_for_programs(run, declared):
    greet, ping = json.loads(run("actions", "--json").output)
    assert (greet["name"], greet["ownerOnly"], greet["queue"]) == ("greet", True, "mail")
    assert list(greet["params"]["properties"]) == ["name", "note"]
    assert ping["params"] is None


ROWS = [("0123456789", "a" * 30, "b" * 30), ("id", "short", "e\nf \x1b[31m\t g")]


def test_a_table_fits_a_terminal_and_its_first_column_is_whole():
    for width in (80, 40, 25):
        lines = table(("Run", "Action", "Error"), ROWS, width)
        assert max(map(len, lines)) <= width
        assert lines[1].startswith("0123456789  aaaaa")
    assert table(("Run", "Action", "Error"), ROWS, 12)[1] == "0123456789"


def test_a_table_in_a_pipe_is_whole_and_a_row_is_a_line():
    head, first, second = table(("Run", "Action", "Error"), ROWS, None)
    assert first.split() == list(ROWS[0])
    assert second.split(maxsplit=2)[2] == "e f ?[31m g"
    assert head.index("Error") == second.index("e f")


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, "0s"), (59, "59s"), (60, "1m"), (7_300, "2h"), (200_000, "2d")]
)
def test_an_age_is_short(seconds, told):
    moment = datetime.now(UTC) - timedelta(seconds=seconds)
    assert age(moment.isoformat()) == told
