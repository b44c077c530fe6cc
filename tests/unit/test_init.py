"""`callboard init`: what it writes, and that it changes nothing that was there."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from doc_pages import ROOT, modules

from callboard.cli import main

WRITTEN = {
    *("actions/__init__.py", "actions/greetings.py", "tests/test_greetings.py"),
    *("pyproject.toml", "Procfile", "Dockerfile", "docker-compose.yml", "README.md"),
    *(".env.example", ".gitignore", ".dockerignore"),
}


def init(folder: Path) -> Result:
    return CliRunner().invoke(main, ["init", str(folder)])


def files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def application(tmp_path: Path) -> Path:
    folder = tmp_path / "My shop"
    assert init(folder).exit_code == 0
    return folder


def test_it_writes_an_application(application: Path) -> None:
    assert set(files(application)) == WRITTEN
    assert not [name for name, text in files(application).items() if "my-application" in text]


def test_the_action_is_the_one_of_the_readme(application: Path) -> None:
    shown = modules(ROOT / "README.md")["greetings"].partition("\n")[2]
    assert (application / "actions" / "greetings.py").read_text().endswith(f"\n{shown}")


def test_the_project_is_named_after_the_folder(application: Path) -> None:
    project = tomllib.loads((application / "pyproject.toml").read_text())["project"]
    assert project["name"] == "my-shop"
    compose = yaml.safe_load((application / "docker-compose.yml").read_text())
    assert compose["services"]["worker"]["image"] == "my-shop"


def test_the_compose_file_fits_the_specification(
    application: Path, check_compose: Callable[[Path], None]
) -> None:
    check_compose(application / "docker-compose.yml")


def test_the_image_installs_what_the_application_depends_on(application: Path) -> None:
    """The step of the Dockerfile that asks pyproject.toml."""
    lines = (application / "Dockerfile").read_text().splitlines()
    (step,) = [line.strip().removesuffix("\\") for line in lines if "tomllib" in line]
    (application / "pyproject.toml").write_text(
        '[project]\nname = "x"\n'
        'dependencies = ["callboard[server]", "stripe>=1; python_version>\'3\'"]\n'
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # Debian has no plain `python`
    env = {**os.environ, "PATH": path}
    subprocess.run(["/bin/sh", "-c", step], cwd=application, env=env, check=True)
    listed = (application / "requirements.txt").read_text().splitlines()
    assert listed == ["callboard[server]", "stripe>=1; python_version>'3'"]


def test_a_changed_action_changes_the_last_layer_of_the_image_only(application: Path) -> None:
    steps = [
        line
        for line in (application / "Dockerfile").read_text().splitlines()
        if line.startswith(("COPY", "ADD", "RUN"))
    ]
    assert steps[-1] == "COPY actions ./actions"
    assert not [step for step in steps[:-1] if "actions" in step or step.startswith("COPY . ")]


def test_secrets_reach_neither_git_nor_the_image(application: Path) -> None:
    assert ".env" in (application / ".gitignore").read_text().split()
    ignored, *taken = (application / ".dockerignore").read_text().split()
    assert ignored == "*"
    assert not [name for name in taken if "env" in name]


def test_what_exists_is_left_and_told(tmp_path: Path) -> None:
    (tmp_path / "actions").mkdir()
    (tmp_path / ".gitignore").write_text("*.log\n")
    (tmp_path / "Procfile").write_text("mine\n")
    done = init(tmp_path)
    assert done.exit_code == 0
    for name in ("actions/", ".gitignore", "Procfile"):
        assert f"left   {name}" in done.output
    assert "Add .env to .gitignore" in done.output
    found = files(tmp_path)
    assert (found["Procfile"], found[".gitignore"]) == ("mine\n", "*.log\n")
    assert not [name for name in found if name.startswith(("actions/", "tests/"))]
    assert "Dockerfile" in found


def test_a_second_time_changes_nothing(application: Path) -> None:
    before = files(application)
    done = init(application)
    assert done.exit_code == 0
    assert "wrote" not in done.output
    assert files(application) == before


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "tests").write_text("a file\n")
    done = init(tmp_path)
    assert done.exit_code == 1
    assert f"callboard: {tmp_path / 'tests'}" in done.output
