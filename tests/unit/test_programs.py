"""The commands of the four programs, and the server that may not load the API."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from callboard import programs
from callboard.cli import main
from callboard.errors import ConfigurationError


@pytest.mark.parametrize(
    ("name", "flags"),
    [("web", "--bind"), ("worker", "--queues"), ("beat", "--pidfile"), ("flower", "--port")],
)
def test_flags_come_behind_our_settings_and_so_win(name: programs.Name, flags: str) -> None:
    line = programs.command(name, flags, "x")
    assert line[:2] == [sys.executable, "-m"]
    assert line[-2:] == [flags, "x"]


def test_the_settings_files_are_there_whatever_the_working_directory_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for line in (programs.command("web"), programs.command("flower")):
        (named,) = [word.removeprefix("--conf=") for word in line if word.endswith(".py")]
        assert Path(named).is_absolute()
        assert Path(named).is_file()


@pytest.mark.parametrize(("name", "folder"), [("web", "api"), ("beat", "worker")])
def test_from_the_repository_a_folder_of_that_name_is_not_started_instead(
    name: programs.Name, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=str(tmp_path / folder)):
        programs.command(name)


@pytest.mark.parametrize("name", ["web", "worker", "beat", "flower"])
def test_the_command_line_becomes_the_program_with_all_its_flags(
    name: programs.Name, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr("os.execv", lambda path, line: started.append(line))
    done = CliRunner().invoke(main, [name, "--one", "-t", "2", "--", "--help"])
    assert done.exit_code == 0, done.output
    assert started == [programs.command(name, "--one", "-t", "2", "--help")]
