"""``.env``: what is read from it, and that the environment wins."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from callboard.cli import main
from callboard.errors import ConfigurationError
from callboard.stack.env_file import adopt_env_file, read_env_file

FILE = """
# a comment
MAIL_FROM=shop@example.com
export UPSTREAMS="a=https://a.example,b=https://b.example"   # both
JWT_PUBLIC_KEY="-----BEGIN
END-----"
PASSWORD=pa$$w${ord}#x
EMPTY=
ALONE
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("MAIL_FROM", "UPSTREAMS", "JWT_PUBLIC_KEY", "PASSWORD"):
        monkeypatch.setenv(name, "")  # put back after the test
    path = tmp_path / ".env"
    path.write_text(FILE)
    return path


def test_values_are_taken_as_they_stand(file: Path) -> None:
    assert read_env_file(file) == {
        "MAIL_FROM": "shop@example.com",
        "UPSTREAMS": "a=https://a.example,b=https://b.example",
        "JWT_PUBLIC_KEY": "-----BEGIN\nEND-----",
        "PASSWORD": "pa$$w${ord}#x",
    }


def test_the_environment_wins_and_an_empty_variable_is_unset(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAIL_FROM", "me@example.com")
    assert adopt_env_file(file) == ("UPSTREAMS", "JWT_PUBLIC_KEY", "PASSWORD")
    assert os.environ["MAIL_FROM"] == "me@example.com"
    assert os.environ["PASSWORD"] == "pa$$w${ord}#x"


@pytest.mark.parametrize("missing", ["nothing", "", "/dev/null"])
def test_no_file_is_no_mistake(tmp_path: Path, missing: str) -> None:
    assert read_env_file(tmp_path / missing) == {}


def test_a_line_that_cannot_be_read_is_told_without_what_it_holds(file: Path) -> None:
    file.write_text("A=1\nB=2\nSECRET KEY='hidden\n")
    with pytest.raises(ConfigurationError, match=r"\.env:3: ") as raised:
        read_env_file(file)
    assert "hidden" not in str(raised.value)


def test_a_file_that_is_no_text_is_told(file: Path) -> None:
    file.write_bytes(b"A=\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"\.env cannot be read"):
        read_env_file(file)


def test_commands_of_a_developer_read_it_the_four_programs_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "a-shared-secret-of-at-least-32-bytes"
    (tmp_path / ".env").write_text(f"JWT_SECRET={secret}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JWT_SECRET", "")
    monkeypatch.setattr("os.execv", lambda *_: None)
    assert CliRunner().invoke(main, ["worker"]).exit_code == 0
    assert os.environ["JWT_SECRET"] == ""
    assert CliRunner().invoke(main, ["token", "alice"]).exit_code == 0
    assert os.environ["JWT_SECRET"] == secret


def test_a_file_that_is_named_and_not_there_is_told(tmp_path: Path) -> None:
    told = CliRunner().invoke(main, ["--env-file", str(tmp_path / "stagin.env"), "doctor"])
    assert told.exit_code == 2
    assert f"there is no file {tmp_path / 'stagin.env'}" in " ".join(told.output.split())
